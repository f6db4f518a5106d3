import type net from 'node:net';
import { Duplex } from 'node:stream';

export interface Cut {
  /** The connection is gone after so many bytes from the agent, ... */
  readonly readBytes?: number;
  /** ... or so many to it. What comes before is delivered: the cut is in the middle of a frame. */
  readonly writtenBytes?: number;
}

/** A socket that breaks after a number of bytes. */
export class CutChannel extends Duplex {
  readonly #socket: net.Socket;
  #readLeft: number;
  #writeLeft: number;

  constructor(socket: net.Socket, cut: Cut) {
    super();
    this.#socket = socket;
    this.#readLeft = cut.readBytes ?? Number.POSITIVE_INFINITY;
    this.#writeLeft = cut.writtenBytes ?? Number.POSITIVE_INFINITY;
    socket.on('data', (piece: Buffer) => {
      const taken = piece.subarray(0, this.#readLeft);
      this.#readLeft -= taken.length;
      if (!this.push(taken)) socket.pause();
      if (this.#readLeft <= 0) this.destroy();
    });
    socket.on('error', () => this.destroy());
    socket.on('close', () => this.destroy());
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(piece: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const taken = piece.subarray(0, this.#writeLeft);
    this.#writeLeft -= taken.length;
    this.#socket.write(taken, (error) => {
      if (this.#writeLeft <= 0) this.destroy();
      done(error);
    });
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }
}
