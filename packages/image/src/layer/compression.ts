/** What a stream is packed with, by its first bytes. */

import type { Duplex } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { ImageError } from '../errors.ts';
import { BLOCK_BYTES } from '../tar/header.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

/** So many bytes are enough to tell. */
export const DETECT_BYTES = BLOCK_BYTES;
const OUTPUT_BYTES = 256 * 1024;

const MAGIC: readonly [Compression | 'bzip2' | 'xz', readonly number[]][] = [
  ['gzip', [0x1f, 0x8b]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
];

/** Throws `ERR_ARCBOX_ARCHIVE_INVALID` for a packing that we do not read. */
export function detectCompression(start: Buffer): Compression {
  const found = MAGIC.find(([, bytes]) => bytes.every((byte, index) => start[index] === byte))?.[0];
  if (found === 'bzip2' || found === 'xz') {
    throw new ImageError(
      'ERR_ARCBOX_ARCHIVE_INVALID',
      `the archive is packed with ${found}; unpack it first (${found} -dc FILE | arcbox …)`,
    );
  }
  return found ?? 'none';
}

/** Whether these first bytes are those of a tar: a header, or an empty archive's end. */
export function looksLikeTar(start: Buffer): boolean {
  if (start.length < BLOCK_BYTES) return false;
  return (
    start.toString('latin1', 257, 262) === 'ustar' ||
    start.subarray(0, BLOCK_BYTES).every((byte) => byte === 0)
  );
}

export function decompressor(compression: 'gzip' | 'zstd'): Duplex {
  const options = { chunkSize: OUTPUT_BYTES };
  return compression === 'gzip' ? createGunzip(options) : createZstdDecompress(options);
}
