/**
 * Sends frames into a byte channel.
 *
 * Everything that is sent within one turn of the event loop leaves in one `writev`. Control frames (calls, answers,
 * credit) are queued at once: what is in flight bounds them. Bulk senders ask `ready` before each chunk and wait,
 * first come first served, while the channel holds more than `SEND_QUEUE_BYTES`.
 */
import type { Duplex } from 'node:stream';
import { ProtocolError } from './errors.ts';
import { FRAME_HEADER_BYTES, putFrameHeader } from './frame.ts';
import { FRAME_DATA_BYTES_MAX, SEND_QUEUE_BYTES, SEND_QUEUE_BYTES_MAX } from './limits.ts';

interface Waiter {
  resolve(): void;
  reject(error: ProtocolError): void;
}

export class FrameWriter {
  readonly #channel: Duplex;
  readonly #onOverflow: (error: ProtocolError) => void;
  #waiters: Waiter[] = [];
  #corked = false;
  #ended: ProtocolError | undefined;
  readonly #wake = (): void => {
    while (this.#waiters.length > 0 && !this.#isFull()) {
      // One turn each: the woken sender sends its chunk in a microtask, so the queue's length is not yet known here.
      const burst = this.#waiters.splice(0, WAKE_AT_ONCE);
      for (const waiter of burst) waiter.resolve();
      if (this.#waiters.length > 0) setImmediate(this.#wake);
      return;
    }
  };

  constructor(channel: Duplex, onOverflow: (error: ProtocolError) => void) {
    this.#channel = channel;
    this.#onOverflow = onOverflow;
    channel.on('drain', this.#wake);
  }

  /** Queues a frame whose data is `head` followed by `body`. Neither may be changed until it was sent. */
  send(streamId: number, type: number, flags: number, head: Uint8Array, body?: Uint8Array): void {
    if (this.#ended !== undefined) throw this.#ended;
    const bytes = head.length + (body?.length ?? 0);
    if (bytes > FRAME_DATA_BYTES_MAX) {
      throw new ProtocolError(
        'ERR_ARCBOX_AGENT_LIMIT',
        `A message of ${bytes} bytes does not fit into a frame of ${FRAME_DATA_BYTES_MAX}; send it in parts`,
      );
    }
    const start = Buffer.allocUnsafe(FRAME_HEADER_BYTES + head.length);
    putFrameHeader(start, 0, bytes, streamId, type, flags);
    start.set(head, FRAME_HEADER_BYTES);
    if (!this.#corked) {
      this.#corked = true;
      this.#channel.cork();
      process.nextTick(() => {
        this.#corked = false;
        this.#channel.uncork();
      });
    }
    this.#channel.write(start);
    if (body !== undefined && body.length > 0) this.#channel.write(body);
    if (this.#channel.writableLength > SEND_QUEUE_BYTES_MAX) {
      this.#onOverflow(
        new ProtocolError(
          'ERR_ARCBOX_AGENT_LIMIT',
          `The peer has not taken ${this.#channel.writableLength} bytes; the limit is ${SEND_QUEUE_BYTES_MAX}`,
        ),
      );
    }
  }

  /** `undefined` when a bulk sender may send now, otherwise a promise of when; it rejects when the connection ends. */
  ready(): Promise<void> | undefined {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (this.#waiters.length === 0 && !this.#isFull()) return undefined;
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
    });
  }

  /** A channel that will not say when it has drained is not waited for. */
  #isFull(): boolean {
    return this.#channel.writableLength >= SEND_QUEUE_BYTES && this.#channel.writableNeedDrain;
  }

  /** Nothing is sent from now on; those who wait get the error. */
  end(error: ProtocolError): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    this.#channel.off('drain', this.#wake);
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reject(error);
  }
}

/** So many waiting senders go on together; each adds at most one chunk to the queue. */
const WAKE_AT_ONCE = 8;
