/** Headers for entries: ustar, with GNU's long names and pax records for extended attributes. Sparse files are not written. */
import { BLOCK_BYTES, type TarEntry, type TarType } from './header.ts';
import { paxRecord } from './pax.ts';

const FLAGS: Readonly<Record<TarType, string>> = {
  file: '0',
  link: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};
const NAME_BYTES = 100;
const OCTAL_7_MAX = 0o7777777;
const OCTAL_11_MAX = 0o77777777777;

/**
 * The header blocks of an entry. Long names are written as GNU does: sqfstar takes pax link names for paths and strips
 * their leading slash.
 */
export function encodeHeader(entry: TarEntry): Buffer {
  const blocks: Buffer[] = [];
  const records: Buffer[] = [];
  for (const [name, value] of entry.xattrs) records.push(paxRecord(`SCHILY.xattr.${name}`, value));
  if (records.length > 0) extension(blocks, 'x', Buffer.concat(records));
  if (entry.name.length > NAME_BYTES) extension(blocks, 'L', zeroEnded(entry.name));
  if (entry.linkName.length > NAME_BYTES) extension(blocks, 'K', zeroEnded(entry.linkName));
  blocks.push(
    block({
      name: entry.name,
      flag: FLAGS[entry.type],
      mode: entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      sizeBytes: entry.type === 'file' ? entry.sizeBytes : 0,
      mtime: entry.mtime,
      linkName: entry.linkName,
      devMajor: entry.devMajor,
      devMinor: entry.devMinor,
    }),
  );
  return blocks.length === 1 && blocks[0] !== undefined ? blocks[0] : Buffer.concat(blocks);
}

/** Two zero blocks. */
export const TAR_END = Buffer.alloc(2 * BLOCK_BYTES);
/** To fill up the last block of an entry's data. */
export const ZEROS = Buffer.alloc(BLOCK_BYTES);

interface Fields {
  readonly name: string;
  readonly flag: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly mtime: number;
  readonly linkName: string;
  readonly devMajor: number;
  readonly devMinor: number;
}

function extension(blocks: Buffer[], flag: string, data: Buffer): void {
  const nothing = { mode: 0o644, uid: 0, gid: 0, mtime: 0, linkName: '', devMajor: 0, devMinor: 0 };
  blocks.push(block({ ...nothing, name: '././@LongLink', flag, sizeBytes: data.length }), data);
  const rest = data.length % BLOCK_BYTES;
  if (rest > 0) blocks.push(ZEROS.subarray(rest));
}

function block(fields: Fields): Buffer {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  bytes.write(fields.name, 0, NAME_BYTES, 'latin1');
  numeric(bytes, 100, 8, fields.mode, OCTAL_7_MAX);
  numeric(bytes, 108, 8, fields.uid, OCTAL_7_MAX);
  numeric(bytes, 116, 8, fields.gid, OCTAL_7_MAX);
  numeric(bytes, 124, 12, fields.sizeBytes, OCTAL_11_MAX);
  numeric(bytes, 136, 12, fields.mtime, OCTAL_11_MAX);
  bytes.write('        ', 148, 'latin1');
  bytes.write(fields.flag, 156, 'latin1');
  bytes.write(fields.linkName, 157, NAME_BYTES, 'latin1');
  bytes.write('ustar\x0000', 257, 'latin1');
  numeric(bytes, 329, 8, fields.devMajor, OCTAL_7_MAX);
  numeric(bytes, 337, 8, fields.devMinor, OCTAL_7_MAX);
  let sum = 0;
  for (const byte of bytes) sum += byte;
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return bytes;
}

/** Octal, or base 256 where that does not fit. */
function numeric(bytes: Buffer, at: number, length: number, value: number, octalMax: number): void {
  if (value >= 0 && value <= octalMax) {
    bytes.write(value.toString(8).padStart(length - 1, '0'), at, 'latin1');
    return;
  }
  let rest = BigInt(value);
  for (let index = length - 1; index >= 0; index -= 1) {
    bytes[at + index] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  bytes[at] = (bytes[at] ?? 0) | 0x80;
}

function zeroEnded(text: string): Buffer {
  return Buffer.from(`${text}\0`, 'latin1');
}
