/**
 * Sparse files: GNU tar's old header form and its three pax forms (GNU tar manual, *Storing Sparse Files*). In all of
 * them the data is the pieces one after the other; only where the map stands differs.
 */
import { SPARSE_PIECES_MAX } from '../limits.ts';
import { invalidTar, number, type SparseMap } from './header.ts';
import { paxNumber } from './pax.ts';

/** Pieces in the old GNU header and in each of its extension blocks. */
const OLD_HEADER_PIECES = 4;
const OLD_EXTENSION_PIECES = 21;

/** Adds what an old GNU header says; answers whether an extension block follows. */
export function oldHeaderPieces(block: Buffer, pieces: number[]): boolean {
  readPieces(block, 386, OLD_HEADER_PIECES, pieces);
  return block[482] !== 0;
}

export function oldHeaderRealBytes(block: Buffer): number {
  return number(block, 483, 12, 'real size');
}

/** Adds what an extension block says; answers whether another one follows. */
export function oldExtensionPieces(block: Buffer, pieces: number[]): boolean {
  readPieces(block, 0, OLD_EXTENSION_PIECES, pieces);
  return block[504] !== 0;
}

function readPieces(block: Buffer, start: number, count: number, pieces: number[]): void {
  for (let index = 0; index < count; index += 1) {
    const at = start + index * 24;
    if (block[at] === 0) return;
    addPiece(pieces, number(block, at, 12, 'sparse map'), number(block, at + 12, 12, 'sparse map'));
  }
}

function addPiece(pieces: number[], offset: number, length: number): void {
  if (pieces.length >= 2 * SPARSE_PIECES_MAX) {
    throw invalidTar(`a sparse file has more than ${SPARSE_PIECES_MAX} pieces`);
  }
  pieces.push(offset, length);
}

/** What the pax records before an entry say about it; `inData`: the map stands before the data. */
export interface PaxSparse {
  readonly realBytes: number;
  readonly name: Buffer | undefined;
  readonly pieces: readonly number[];
  readonly inData: boolean;
}

/** Undefined when the file is not sparse. `pairs` are the records of form 0.0, in order. */
export function paxSparse(
  records: ReadonlyMap<string, Buffer>,
  pairs: readonly Buffer[],
): PaxSparse | undefined {
  const real = records.get('GNU.sparse.realsize') ?? records.get('GNU.sparse.size');
  if (real === undefined) return undefined;
  const name = records.get('GNU.sparse.name');
  const realBytes = paxNumber(real, 'real size');
  if (records.get('GNU.sparse.major')?.toString('latin1') === '1') {
    return { realBytes, name, pieces: [], inData: true };
  }
  const map = records.get('GNU.sparse.map');
  const texts =
    map === undefined ? pairs : map.length === 0 ? [] : map.toString('latin1').split(',').map(latin1);
  if (texts.length % 2 !== 0) throw invalidTar('the map of a sparse file is incomplete');
  const pieces: number[] = [];
  for (let index = 0; index < texts.length; index += 2) {
    const [offset, length] = [texts[index], texts[index + 1]];
    if (offset === undefined || length === undefined) break;
    addPiece(pieces, paxNumber(offset, 'sparse map'), paxNumber(length, 'sparse map'));
  }
  return { realBytes, name, pieces, inData: false };
}

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

/** Longest line of a map before the data. */
const LINE_BYTES_MAX = 24;

/** The map of form 1.0, which stands before the data as decimal lines, filled up to a block. It is read block by block. */
export class MapBeforeData {
  readonly pieces: number[] = [];
  /** Of the blocks that were read. */
  bytes = 0;
  #count: number | undefined;
  /** The beginning of a line whose end is in the next block. */
  #rest = '';

  /** Takes the next block; true: that was the last one of the map. Throws `ERR_ARCBOX_LAYER_INVALID`. */
  take(block: Buffer): boolean {
    this.bytes += block.length;
    const lines = (this.#rest + block.toString('latin1')).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      const value = paxNumber(latin1(line), 'sparse map');
      if (this.#count === undefined) {
        if (value < 0 || value > SPARSE_PIECES_MAX) {
          throw invalidTar(`a sparse file has more than ${SPARSE_PIECES_MAX} pieces`);
        }
        this.#count = value;
      } else {
        this.pieces.push(value);
      }
      if (this.pieces.length === 2 * this.#count) return true;
    }
    if (this.#rest.length > LINE_BYTES_MAX) {
      throw invalidTar('the map of a sparse file is not made of numbers');
    }
    return false;
  }
}

/** Pieces must be in order, inside the file, and as long together as what is stored. */
export function checkSparse(map: SparseMap, storedBytes: number): void {
  let end = 0;
  let sum = 0;
  for (let index = 0; index < map.pieces.length; index += 2) {
    const offset = map.pieces[index] ?? 0;
    const length = map.pieces[index + 1] ?? 0;
    if (offset < end || length < 0) throw invalidTar('the pieces of a sparse file overlap');
    end = offset + length;
    sum += length;
  }
  if (end > map.realBytes) throw invalidTar('a piece of a sparse file lies beyond its end');
  if (sum !== storedBytes) throw invalidTar('the pieces of a sparse file are not as long as its data');
}
