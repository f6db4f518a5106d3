/**
 * The stack's end of a link: cuts what comes into frames, and gathers what goes out into batches.
 *
 * Its memory is one block of the arena: a receive buffer, and two send buffers of which one is filled while the link may
 * still be sending the other. When both are full the port is *blocked*: connections wait (and so close their windows
 * towards the other side), everything that may be lost is dropped and counted.
 */
import { NetError } from '../errors.ts';
import { FRAME_BYTES_MAX, FRAME_BYTES_MIN, LINK_RECEIVE_BYTES, LINK_SEND_BYTES } from '../limits.ts';
import type { Arena } from '../memory/arena.ts';
import { i32, putU32 } from '../wire/bytes.ts';
import type { Link, LinkReceiver } from './link.ts';

const PREFIX_BYTES = 4;
const RECEIVE_BYTES = LINK_RECEIVE_BYTES + FRAME_BYTES_MAX;

/** Who gets the frames. */
export interface PortOwner {
  /** One frame, in the arena. */
  frame(port: Port, start: number, end: number): void;
  /** All whole frames that were there have been given. */
  batchEnd(port: Port): void;
  portClosed(port: Port, error: Error | undefined): void;
}

/** Waits for a blocked port. */
export interface PortWaiter {
  portWritable(): void;
}

export interface PortCounters {
  receivedFrames: number;
  receivedBytes: number;
  sentFrames: number;
  sentBytes: number;
  /** Frames for the machine that did not fit, because it reads too slowly. */
  droppedFrames: number;
}

export type FrameTap = (port: Port, direction: 'in' | 'out', start: number, end: number) => void;

export class Port implements LinkReceiver {
  readonly link: Link;
  readonly arena: Arena;
  readonly counters: PortCounters = {
    receivedFrames: 0,
    receivedBytes: 0,
    sentFrames: 0,
    sentBytes: 0,
    droppedFrames: 0,
  };
  /** Sees every frame, in both directions. */
  tap: FrameTap | undefined;
  readonly #owner: PortOwner;
  readonly #block: number;
  #fill = 0;
  #sendBase: number;
  #sendOther: number;
  #sendFill = 0;
  #sending = false;
  #open = true;
  #waiters: PortWaiter[] = [];

  /** @throws {NetError} ERR_ARCBOX_NET_EXHAUSTED when all ports are in use. */
  constructor(arena: Arena, link: Link, owner: PortOwner) {
    this.arena = arena;
    this.link = link;
    this.#owner = owner;
    this.#block = arena.takePortBlock();
    this.#sendBase = this.#block + Math.ceil(RECEIVE_BYTES / 64) * 64;
    this.#sendOther = this.#sendBase + LINK_SEND_BYTES;
  }

  get open(): boolean {
    return this.#open;
  }

  start(): void {
    this.link.start(this);
  }

  space(): Uint8Array {
    return this.arena.bytes.subarray(this.#block + this.#fill, this.#block + RECEIVE_BYTES);
  }

  received(count: number): void {
    if (!this.#open) return;
    const { bytes } = this.arena;
    const end = this.#block + this.#fill + count;
    let at = this.#block;
    while (end - at >= PREFIX_BYTES) {
      const length = i32(bytes, at);
      if (length < FRAME_BYTES_MIN || length > FRAME_BYTES_MAX) {
        this.#fail(
          new NetError(
            'ERR_ARCBOX_NET_LINK',
            `The link ${this.link.name} announced a frame of ${length >>> 0} bytes; where the next one begins is unknown, so it is closed`,
          ),
        );
        return;
      }
      const frame = at + PREFIX_BYTES;
      if (frame + length > end) break;
      at = frame + length;
      this.counters.receivedFrames += 1;
      this.counters.receivedBytes += length;
      this.tap?.(this, 'in', frame, at);
      this.#owner.frame(this, frame, at);
      if (!this.#open) return;
    }
    const rest = end - at;
    if (rest > 0 && at !== this.#block) this.arena.kernels.copy(this.#block, at, rest);
    this.#fill = rest;
    this.#owner.batchEnd(this);
  }

  /** Where a frame of at most `length` bytes may be written, or -1: the port is blocked. `commit` must follow at once. */
  reserve(length: number): number {
    if (!this.#open) return -1;
    if (this.#sendFill + PREFIX_BYTES + length > LINK_SEND_BYTES) {
      this.flush();
      if (this.#sendFill + PREFIX_BYTES + length > LINK_SEND_BYTES) return -1;
    }
    return this.#sendBase + this.#sendFill + PREFIX_BYTES;
  }

  /** Sends the frame of `length` bytes that was written where `reserve` said, with the next `flush`. */
  commit(length: number): void {
    const prefix = this.#sendBase + this.#sendFill;
    putU32(this.arena.bytes, prefix, length);
    this.#sendFill += PREFIX_BYTES + length;
    this.counters.sentFrames += 1;
    this.counters.sentBytes += length;
    this.tap?.(this, 'out', prefix + PREFIX_BYTES, prefix + PREFIX_BYTES + length);
  }

  /** Hands what has been gathered to the link. */
  flush(): void {
    if (this.#sendFill === 0 || this.#sending || !this.#open) return;
    const batch = this.arena.bytes.subarray(this.#sendBase, this.#sendBase + this.#sendFill);
    this.#sendFill = 0;
    if (this.link.send(batch)) return;
    this.#sending = true;
    const base = this.#sendBase;
    this.#sendBase = this.#sendOther;
    this.#sendOther = base;
  }

  sent(): void {
    this.#sending = false;
    if (!this.#open) return;
    this.flush();
    const waiters = this.#waiters;
    if (waiters.length === 0) return;
    this.#waiters = [];
    for (const waiter of waiters) waiter.portWritable();
    this.flush();
  }

  /** Calls `waiter.portWritable` once when a blocked port can take more. */
  wait(waiter: PortWaiter): void {
    this.#waiters.push(waiter);
  }

  closed(error?: Error): void {
    if (this.#open) this.#fail(error);
  }

  /** Unplugs the link, from our side. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#waiters = [];
    this.link.close();
    // A link that still sends keeps its view of the block: nobody else may have it before the link has let go, and
    // `close` is where it has.
    this.arena.givePortBlock(this.#block);
  }

  #fail(error: Error | undefined): void {
    this.close();
    this.#owner.portClosed(this, error);
  }
}
