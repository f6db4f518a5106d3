/**
 * One byte channel from its first byte to its end: pieces in, frames out, and the one place where a connection ends.
 * However it ends (the peer, an error, a broken protocol, `close`), it ends once, with one `ProtocolError`, and the
 * channel is destroyed. The connection owns the channel.
 */
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { ProtocolError, violation } from './errors.ts';
import { FrameDecoder, type FrameHandler } from './frame.ts';
import { FrameWriter } from './frame-writer.ts';
import { CLOSE_TIMEOUT_MS } from './limits.ts';

export class Connection {
  readonly writer: FrameWriter;
  /** Settles with the reason when the connection ended; never rejects. */
  readonly closed: Promise<ProtocolError>;
  readonly #channel: Duplex;
  readonly #settle: (error: ProtocolError) => void;
  #decoder: FrameDecoder | undefined;
  #onEnd: ((error: ProtocolError) => void) | undefined;
  #onPiece: ((piece: Uint8Array) => void) | undefined;
  #held: Uint8Array[] = [];
  #ended: ProtocolError | undefined;

  constructor(channel: Duplex) {
    this.#channel = channel;
    const { promise, resolve } = Promise.withResolvers<ProtocolError>();
    this.closed = promise;
    this.#settle = resolve;
    this.writer = new FrameWriter(channel, (error) => this.fail(error));
    channel.on('data', (piece: Uint8Array) => this.#take(piece));
    channel.on('error', (cause) => {
      this.fail(
        new ProtocolError('ERR_ARCBOX_AGENT_CLOSED', `The channel failed: ${cause.message}`, { cause }),
      );
    });
    const gone = (): void => {
      this.fail(new ProtocolError('ERR_ARCBOX_AGENT_CLOSED', 'The peer closed the channel'));
    };
    channel.on('end', gone);
    channel.on('close', gone);
    if (channel.destroyed) gone();
  }

  get ended(): ProtocolError | undefined {
    return this.#ended;
  }

  /** Before `start`: the raw pieces go to `onPiece`; without it they are held. */
  intercept(onPiece: ((piece: Uint8Array) => void) | undefined): void {
    this.#onPiece = onPiece;
  }

  /** From now on frames are decoded, beginning with `first` and what was held. */
  start(onFrame: FrameHandler, onEnd: (error: ProtocolError) => void, first?: Uint8Array): void {
    this.#onEnd = onEnd;
    this.#onPiece = undefined;
    if (this.#ended !== undefined) {
      onEnd(this.#ended);
      return;
    }
    this.#decoder = new FrameDecoder(onFrame);
    const held = this.#held;
    this.#held = [];
    if (first !== undefined) this.#take(first);
    for (const piece of held) this.#take(piece);
  }

  /** Ends the connection now. The first reason counts. */
  fail(error: ProtocolError): void {
    if (this.#end(error)) this.#channel.destroy();
  }

  /** Sends what is queued (for at most `CLOSE_TIMEOUT_MS`), then ends the connection. */
  async close(error: ProtocolError): Promise<void> {
    if (this.#end(error) && !this.#channel.destroyed) {
      const timeout = AbortSignal.timeout(CLOSE_TIMEOUT_MS);
      const finished = once(this.#channel, 'finish', { signal: timeout });
      this.#channel.end();
      try {
        await finished;
      } catch {
        // The peer takes nothing, or the channel failed: what was queued is lost, as at any other end of an epoch.
      }
      this.#channel.destroy();
    }
    if (!this.#channel.closed) await once(this.#channel, 'close');
  }

  #end(error: ProtocolError): boolean {
    if (this.#ended !== undefined) return false;
    this.#ended = error;
    this.#held = [];
    this.#decoder?.stop();
    this.writer.end(error);
    this.#onEnd?.(error);
    this.#settle(error);
    return true;
  }

  #take(piece: Uint8Array): void {
    if (this.#ended !== undefined) return;
    try {
      if (this.#decoder !== undefined) this.#decoder.push(piece);
      else if (this.#onPiece !== undefined) this.#onPiece(piece);
      else this.#held.push(piece);
    } catch (cause) {
      this.fail(
        cause instanceof ProtocolError
          ? cause
          : violation(`A frame could not be handled: ${cause}`, { cause }),
      );
    }
  }
}
