/** What a stream is packed with, by its first bytes. */

import type { Duplex } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { ImageError } from '../errors.ts';
import { BLOCK_BYTES } from '../tar/header.ts';

/** What a layer may be packed with. */
export type Compression = 'none' | 'gzip' | 'zstd';
/** What an archive may be packed with, as a whole. */
export type Packing = Compression | 'bzip2' | 'xz';

/** So many bytes are enough to tell. */
export const DETECT_BYTES = BLOCK_BYTES;
const OUTPUT_BYTES = 256 * 1024;

const MAGIC: readonly [Packing, readonly number[]][] = [
  ['gzip', [0x1f, 0x8b]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
];

export function detectPacking(start: Buffer): Packing {
  return MAGIC.find(([, bytes]) => bytes.every((byte, index) => start[index] === byte))?.[0] ?? 'none';
}

/** Throws `ERR_ARCBOX_LAYER_INVALID` for a packing that layers do not have. */
export function detectCompression(start: Buffer): Compression {
  const packing = detectPacking(start);
  if (packing !== 'bzip2' && packing !== 'xz') return packing;
  throw new ImageError(
    'ERR_ARCBOX_LAYER_INVALID',
    `the layer is packed with ${packing}; an image's layers are plain or packed with gzip or zstd`,
  );
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
