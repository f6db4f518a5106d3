/**
 * The 512-byte headers of tar: ustar (POSIX.1-1988), GNU's dialect, and what they share.
 *
 * Names are byte strings: they are kept as latin1 text, one character a byte, so that names which are no UTF-8 come
 * through unchanged.
 */
import { ImageError } from '../errors.ts';

export const BLOCK_BYTES = 512;

export type TarType = 'file' | 'link' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo';

export interface TarEntry {
  /** Latin1, one character a byte. */
  readonly name: string;
  readonly type: TarType;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of data that follow; of a sparse file, what is stored of it. */
  readonly sizeBytes: number;
  /** Seconds since 1970. */
  readonly mtime: number;
  /** Latin1; of links. */
  readonly linkName: string;
  readonly devMajor: number;
  readonly devMinor: number;
  readonly xattrs: ReadonlyMap<string, Buffer>;
  /** Of a sparse file: where its data belongs. */
  readonly sparse?: SparseMap;
}

export interface SparseMap {
  readonly realBytes: number;
  /** Offset, length, offset, length, … */
  readonly pieces: readonly number[];
}

/** A header as it stands, before extended headers are applied. */
export interface RawHeader {
  readonly name: string;
  readonly typeFlag: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly mtime: number;
  readonly linkName: string;
  readonly devMajor: number;
  readonly devMinor: number;
}

export const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();

export function invalidTar(why: string): ImageError {
  return new ImageError('ERR_ARCBOX_LAYER_INVALID', `the tar archive is not valid: ${why}`);
}

export function isZeroBlock(block: Buffer): boolean {
  for (let at = 0; at < BLOCK_BYTES; at += 4) if (block.readInt32LE(at) !== 0) return false;
  return true;
}

/** Parses a header block that is not zero. Throws `ERR_ARCBOX_LAYER_INVALID`. */
export function parseHeader(block: Buffer): RawHeader {
  checkSum(block);
  const magic = block.toString('latin1', 257, 263);
  const ustar = magic === 'ustar\0';
  const known = ustar || magic === 'ustar ';
  let name = text(block, 0, 100);
  if (ustar) {
    const prefix = text(block, 345, 155);
    if (prefix !== '') name = `${prefix}/${name}`;
  }
  return {
    name,
    typeFlag: block.toString('latin1', 156, 157),
    mode: number(block, 100, 8, 'mode'),
    uid: number(block, 108, 8, 'user ID'),
    gid: number(block, 116, 8, 'group ID'),
    sizeBytes: number(block, 124, 12, 'size'),
    mtime: number(block, 136, 12, 'time'),
    linkName: text(block, 157, 100),
    devMajor: known ? number(block, 329, 8, 'device number') : 0,
    devMinor: known ? number(block, 337, 8, 'device number') : 0,
  };
}

/** A field up to its first zero byte. */
export function text(block: Buffer, at: number, length: number): string {
  const end = block.indexOf(0, at);
  return block.toString('latin1', at, end < 0 || end > at + length ? at + length : end);
}

/** An octal number, or GNU's base 256 when the first bit is set. */
export function number(block: Buffer, at: number, length: number, what: string): number {
  const first = block[at] ?? 0;
  if ((first & 0x80) !== 0) return base256(block, at, length, what);
  let value = 0;
  let index = at;
  const end = at + length;
  while (index < end && (block[index] === 0x20 || block[index] === 0)) index += 1;
  for (; index < end; index += 1) {
    const byte = block[index] ?? 0;
    if (byte === 0x20 || byte === 0) break;
    if (byte < 0x30 || byte > 0x37) throw invalidTar(`its ${what} is not a number`);
    value = value * 8 + (byte - 0x30);
  }
  return value;
}

function base256(block: Buffer, at: number, length: number, what: string): number {
  const negative = ((block[at] ?? 0) & 0x40) !== 0;
  // Two's complement; the marker bit is no part of it.
  let value = negative ? -1n : 0n;
  for (let index = 0; index < length; index += 1) {
    let byte = block[at + index] ?? 0;
    if (index === 0) byte = negative ? byte | 0x80 : byte & 0x7f;
    value = (value << 8n) | BigInt(byte);
  }
  const result = Number(value);
  if (!Number.isSafeInteger(result)) throw invalidTar(`its ${what} is too large`);
  return result;
}

function checkSum(block: Buffer): void {
  let unsigned = 8 * 0x20;
  let signed = 8 * 0x20;
  for (let index = 0; index < BLOCK_BYTES; index += 1) {
    if (index >= 148 && index < 156) continue;
    const byte = block[index] ?? 0;
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte;
  }
  const said = number(block, 148, 8, 'check sum');
  if (said !== unsigned && said !== signed) {
    throw invalidTar('the check sum of a header is wrong');
  }
}
