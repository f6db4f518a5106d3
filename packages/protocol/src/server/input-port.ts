import { STREAM_WINDOW_BYTES } from '../limits.ts';

/** Takes input bytes; a promise holds back the acknowledgement, and so the sender. The bytes are its own. */
export type InputSink = (data: Uint8Array, eof: boolean) => void | Promise<void>;

/** An object's input channel. It outlives connections; what it received, it delivers. */
export class InputPort {
  /** Called when the acknowledged offset has moved. */
  onAcked: (() => void) | undefined;
  readonly #sink: InputSink;
  #received = 0;
  #acked = 0;
  #ended = false;
  #delivery: Promise<void> = Promise.resolve();

  constructor(sink: InputSink) {
    this.#sink = sink;
  }

  /** Offset of the next byte. */
  get received(): number {
    return this.#received;
  }

  get acked(): number {
    return this.#acked;
  }

  get limit(): number {
    return this.#acked + STREAM_WINDOW_BYTES;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** `data` is taken over. */
  push(data: Uint8Array, eof: boolean): void {
    this.#received += data.length;
    if (eof) this.#ended = true;
    this.#delivery = this.#delivery
      .then(() => this.#sink(data, eof))
      // A sink that fails is a reader that has gone: the rest is taken and dropped, as after EPIPE.
      .catch(() => {})
      .then(() => {
        this.#acked += data.length;
        this.onAcked?.();
      });
  }
}
