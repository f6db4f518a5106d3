/**
 * A queue of bytes in chunks of the arena. Bytes can be put beyond its end, leaving a gap: that is how segments that
 * came out of order wait at the place where they belong.
 *
 * Positions are offsets from the head. A chunk is taken when the first byte of it is written, and goes back when its
 * last byte was taken out; an empty queue holds no memory.
 */
import { ARENA_CHUNK_BYTES } from '../limits.ts';
import { swapped } from '../wire/checksum.ts';
import type { Arena } from './arena.ts';

const NONE = -1;
const SHIFT = 15; // ARENA_CHUNK_BYTES is 2^15
const MASK: number = ARENA_CHUNK_BYTES - 1;
const SLOTS_MIN = 4;

export class ByteQueue {
  readonly #arena: Arena;
  /** A ring of chunk numbers; its length is a power of two. */
  #slots: Int32Array = new Int32Array(SLOTS_MIN).fill(NONE);
  #first = 0;
  /** Offset of the head in the first chunk. */
  #head = 0;
  #held = 0;
  /** Bytes from the head that are there without a gap, as the owner says. */
  length = 0;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  /** Chunks held. */
  get chunks(): number {
    return this.#held;
  }

  /**
   * Copies `length` bytes of the arena to `position`. False when the arena is full; then a part may have been
   * written, which does no harm: `length` has not changed.
   */
  put(position: number, from: number, length: number): boolean {
    const arena = this.#arena;
    let at = this.#head + position;
    let source = from;
    let left = length;
    while (left > 0) {
      const chunk = this.#chunkFor(at >>> SHIFT);
      if (chunk === NONE) return false;
      const inChunk = at & MASK;
      const part = Math.min(left, ARENA_CHUNK_BYTES - inChunk);
      arena.kernels.copy(arena.chunkAt(chunk) + inChunk, source, part);
      at += part;
      source += part;
      left -= part;
    }
    return true;
  }

  /** As `put`, from a view that is not in the arena. */
  putView(position: number, view: Uint8Array): boolean {
    const arena = this.#arena;
    let at = this.#head + position;
    let done = 0;
    while (done < view.length) {
      const chunk = this.#chunkFor(at >>> SHIFT);
      if (chunk === NONE) return false;
      const inChunk = at & MASK;
      const part = Math.min(view.length - done, ARENA_CHUNK_BYTES - inChunk);
      arena.bytes.set(
        done === 0 && part === view.length ? view : view.subarray(done, done + part),
        arena.chunkAt(chunk) + inChunk,
      );
      at += part;
      done += part;
    }
    return true;
  }

  /** Copies `length` bytes from `position` to `to` in the arena and returns their one's complement sum. */
  copySum(position: number, to: number, length: number): number {
    const { kernels } = this.#arena;
    let at = this.#head + position;
    let target = to;
    let left = length;
    let sum = 0;
    while (left > 0) {
      const chunk = this.#slots[(this.#first + (at >>> SHIFT)) & (this.#slots.length - 1)] as number;
      const inChunk = at & MASK;
      const part = Math.min(left, ARENA_CHUNK_BYTES - inChunk);
      const partSum = kernels.copySum(target, this.#arena.chunkAt(chunk) + inChunk, part);
      sum += ((target - to) & 1) === 0 ? partSum : swapped(partSum);
      at += part;
      target += part;
      left -= part;
    }
    return sum;
  }

  /** The bytes from `position` on that lie together, at most up to `length`; empty when there are none. */
  peek(position: number): Uint8Array {
    const at = this.#head + position;
    const left = this.length - position;
    const inChunk = at & MASK;
    const chunk = this.#slots[(this.#first + (at >>> SHIFT)) & (this.#slots.length - 1)] as number;
    if (left <= 0 || chunk === NONE) return EMPTY;
    return this.#arena.chunkView(chunk, inChunk, Math.min(ARENA_CHUNK_BYTES, inChunk + left));
  }

  /** Takes bytes out at the head. */
  drop(count: number): void {
    this.length -= count;
    this.#head += count;
    while (this.#head >= ARENA_CHUNK_BYTES) {
      this.#release(this.#first);
      this.#first = (this.#first + 1) & (this.#slots.length - 1);
      this.#head -= ARENA_CHUNK_BYTES;
    }
  }

  /** Gives everything back, when nothing is left that anybody wants. */
  clear(): void {
    if (this.#held > 0) {
      for (let i = 0; i < this.#slots.length; i += 1) this.#release(i);
    }
    this.#head = 0;
    this.#first = 0;
    this.length = 0;
    if (this.#slots.length > SLOTS_MIN) this.#slots = new Int32Array(SLOTS_MIN).fill(NONE);
  }

  #release(slot: number): void {
    const chunk = this.#slots[slot] as number;
    if (chunk === NONE) return;
    this.#arena.giveChunk(chunk);
    this.#slots[slot] = NONE;
    this.#held -= 1;
  }

  #chunkFor(index: number): number {
    if (index >= this.#slots.length) this.#grow(index);
    const slot = (this.#first + index) & (this.#slots.length - 1);
    const there = this.#slots[slot] as number;
    if (there !== NONE) return there;
    const taken = this.#arena.takeChunk();
    if (taken === NONE) return NONE;
    this.#slots[slot] = taken;
    this.#held += 1;
    return taken;
  }

  #grow(index: number): void {
    let size = this.#slots.length * 2;
    while (size <= index) size *= 2;
    const slots = new Int32Array(size).fill(NONE);
    for (let i = 0; i < this.#slots.length; i += 1) {
      slots[i] = this.#slots[(this.#first + i) & (this.#slots.length - 1)] as number;
    }
    this.#slots = slots;
    this.#first = 0;
  }
}

const EMPTY = new Uint8Array(0);
