/** Any Node stream as the host's end of a connection: services in the same program, and sockets that were accepted. */

import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { HostStream, HostStreamEvents } from '../stack/host-network.ts';

export class DuplexStream implements HostStream {
  readonly #stream: Duplex;
  #over = false;
  #pending = false;

  /** Does not read before `resume` is called. */
  constructor(stream: Duplex, events: HostStreamEvents) {
    this.#stream = stream;
    stream.pause();
    stream.on('data', (data: Buffer) => {
      if (!this.#over && !events.data(data)) stream.pause();
    });
    stream.on('end', () => {
      if (!this.#over) events.ended();
    });
    const fail = (code: string): void => {
      if (this.#over) return;
      this.#over = true;
      stream.destroy();
      events.failed(code);
    };
    stream.on('error', (error: NodeJS.ErrnoException) => fail(error.code ?? 'EIO'));
    stream.on('close', () => {
      // In order only when both directions had ended.
      if (stream.readableEnded && stream.writableFinished) this.#over = true;
      else fail('ECONNRESET');
    });
    this.#written = () => {
      this.#pending = false;
      if (!this.#over) events.written();
    };
  }

  readonly #written: () => void;

  write(bytes: Uint8Array): boolean {
    if (this.#over) return true;
    // A copy: who reads a stream may keep what it got.
    if (!this.#stream.write(Buffer.from(bytes))) {
      this.#pending = true;
      this.#stream.once('drain', this.#written);
    }
    return !this.#pending;
  }

  end(): void {
    if (!this.#over) this.#stream.end();
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    if (!this.#over) this.#stream.resume();
  }

  destroy(reset: boolean): void {
    if (this.#over) return;
    this.#over = true;
    if (reset && this.#stream instanceof Socket) this.#stream.resetAndDestroy();
    else this.#stream.destroy();
  }
}
