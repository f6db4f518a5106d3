/**
 * A ring of records between two threads, one that puts and one that takes: no locks, nothing is copied twice, nothing
 * is allocated. It lies in a SharedArrayBuffer.
 *
 *   0 tail, written by the producer │ 64 head, written by the consumer │ 128 capacity │ 192 records
 *
 * Each index is on a cache line of its own, so that the two threads do not take it from each other; and each side keeps a
 * copy of the other's index, which it reads again only when the ring looks full, or empty. A record is its length (4
 * bytes) and its bytes, padded to four; it never wraps: where the rest of the ring is too short, a mark says to go on at
 * the beginning. Indices count bytes modulo 2³².
 */

const TAIL = 0;
const HEAD = 16;
const CAPACITY = 32;
export const RING_HEADER_BYTES = 192;
const LENGTH_BYTES = 4;
const WRAP = -1;

/** Shared memory for a ring of `capacity` bytes, a power of two of at least 64. */
export function createRing(capacity: number): SharedArrayBuffer {
  if (capacity < 64 || (capacity & (capacity - 1)) !== 0 || capacity > 2 ** 30) {
    throw new RangeError(`the capacity of a ring is a power of two from 64 to 2^30, not ${capacity}`);
  }
  const memory = new SharedArrayBuffer(RING_HEADER_BYTES + capacity);
  new Int32Array(memory)[CAPACITY] = capacity;
  return memory;
}

const padded = (length: number): number => (length + 3) & ~3;

abstract class RingEnd {
  protected readonly indices: Int32Array;
  protected readonly lengths: Int32Array;
  protected readonly bytes: Uint8Array;
  protected readonly capacity: number;
  protected readonly mask: number;

  constructor(memory: SharedArrayBuffer) {
    this.indices = new Int32Array(memory, 0, RING_HEADER_BYTES / 4);
    this.capacity = this.indices[CAPACITY] as number;
    this.mask = this.capacity - 1;
    this.lengths = new Int32Array(memory, RING_HEADER_BYTES, this.capacity / 4);
    this.bytes = new Uint8Array(memory, RING_HEADER_BYTES, this.capacity);
  }

  /** Largest record that always fits into an empty ring, wherever it stands. */
  get recordBytesMax(): number {
    return this.capacity / 2 - LENGTH_BYTES;
  }
}

export class RingProducer extends RingEnd {
  #tail: number;
  #head: number;
  /** The tail before the last record. */
  #before = 0;

  constructor(memory: SharedArrayBuffer) {
    super(memory);
    this.#tail = Atomics.load(this.indices, TAIL);
    this.#head = Atomics.load(this.indices, HEAD);
  }

  /**
   * Puts a record of two parts, one after the other. False when there is no room; nothing was put then. Afterwards
   * `consumerWaits` tells whether the consumer should be woken.
   */
  put(first: Uint8Array, second: Uint8Array = NOTHING): boolean {
    const length = first.length + second.length;
    if (length > this.recordBytesMax) return false;
    const size = LENGTH_BYTES + padded(length);
    let at = this.#tail & this.mask;
    const skip = at + size > this.capacity ? this.capacity - at : 0;
    if (!this.#hasRoom(skip + size)) return false;
    if (skip > 0) {
      this.lengths[at >>> 2] = WRAP;
      at = 0;
    }
    this.lengths[at >>> 2] = length;
    this.bytes.set(first, at + LENGTH_BYTES);
    if (second.length > 0) this.bytes.set(second, at + LENGTH_BYTES + first.length);
    this.#before = this.#tail;
    this.#tail = (this.#tail + skip + size) | 0;
    // Everything above is visible to whoever sees this.
    Atomics.store(this.indices, TAIL, this.#tail);
    return true;
  }

  /**
   * Whether the consumer had taken everything before the last record: then it may have stopped looking. Asked after the
   * record was put, and answered by what the consumer wrote before it looked for the last time, so no record is missed.
   */
  get consumerWaits(): boolean {
    return Atomics.load(this.indices, HEAD) === this.#before;
  }

  #hasRoom(size: number): boolean {
    if (((this.#tail - this.#head) | 0) + size <= this.capacity) return true;
    this.#head = Atomics.load(this.indices, HEAD);
    return ((this.#tail - this.#head) | 0) + size <= this.capacity;
  }
}

export class RingConsumer extends RingEnd {
  #head: number;
  #tail: number;

  constructor(memory: SharedArrayBuffer) {
    super(memory);
    this.#head = Atomics.load(this.indices, HEAD);
    this.#tail = Atomics.load(this.indices, TAIL);
  }

  /** Calls `take` with every record that is there, at most `max`; the view is good for the call only. Returns how many. */
  drain(take: (record: Uint8Array) => void, max = Number.POSITIVE_INFINITY): number {
    let count = 0;
    while (count < max) {
      if (this.#head === this.#tail) {
        this.#tail = Atomics.load(this.indices, TAIL);
        if (this.#head === this.#tail) break;
      }
      const at = this.#head & this.mask;
      const length = this.lengths[at >>> 2] as number;
      if (length === WRAP) {
        this.#head = (this.#head + this.capacity - at) | 0;
        continue;
      }
      take(this.bytes.subarray(at + LENGTH_BYTES, at + LENGTH_BYTES + length));
      this.#head = (this.#head + LENGTH_BYTES + padded(length)) | 0;
      count += 1;
      // The producer may use the room as soon as it sees this.
      Atomics.store(this.indices, HEAD, this.#head);
    }
    Atomics.store(this.indices, HEAD, this.#head);
    return count;
  }
}

const NOTHING = new Uint8Array(0);
