/**
 * Joins a connection of a machine with a stream of the host. Nothing is held here: bytes wait in the connection's two
 * queues, and a side that does not take more stops the other one (`pause` towards the host, a closing window towards
 * the machine). Half-close and reset pass through in both directions.
 */
import { HOST_READ_BYTES } from '../limits.ts';
import type { FirstBytes } from '../policy/index.ts';
import type { HostStream, HostStreamEvents } from '../stack/host-network.ts';
import type { TcpConnection, TcpEnd, TcpUser } from '../tcp/connection.ts';
import type { GatedReader, ReadGate } from './read-gate.ts';

export interface TcpRelayOptions {
  readonly gate: ReadGate;
  /** Judges the machine's first bytes before the host's end gets any. */
  readonly inspect?: FirstBytes;
  /** The host's end could not be connected: `abort` the connection, after having said why. */
  dialFailed?(connection: TcpConnection, code: string): void;
  /** The machine's end is established (it was connected by us). */
  opened?(): void;
  /** It is over, for whatever reason. */
  done?(): void;
}

export class TcpRelay implements TcpUser, HostStreamEvents, GatedReader {
  readonly #connection: TcpConnection;
  readonly #options: TcpRelayOptions;
  #stream: HostStream | undefined;
  #connected = false;
  /** Bytes at the head of the queue that the host's end still needs. */
  #writing = 0;
  #ended = false;
  #paused = false;
  #over = false;
  #inspect: FirstBytes | undefined;

  constructor(connection: TcpConnection, options: TcpRelayOptions) {
    this.#connection = connection;
    this.#options = options;
    this.#inspect = options.inspect;
    connection.user = this;
    options.gate.add(this);
  }

  /** The stream that these events come from. It may have called some of them already. */
  attach(stream: HostStream): void {
    this.#stream = stream;
    if (this.#over) stream.destroy(true);
  }

  // The host's end.

  connected(): void {
    if (this.#over) return;
    this.#connected = true;
    this.#connection.accept();
    this.#pump();
  }

  failed(code: string): void {
    if (this.#over) return;
    this.#stream = undefined;
    if (!this.#connected) this.#options.dialFailed?.(this.#connection, code);
    this.#connection.abort();
    this.#leave();
  }

  data(bytes: Uint8Array): boolean {
    if (this.#over) return false;
    const c = this.#connection;
    if (!c.write(bytes)) {
      // There is a reserve for this; who gets here has used it up.
      this.#stream?.destroy(true);
      c.abort();
      this.#leave();
      return false;
    }
    this.#paused = !this.#options.gate.check() || c.sendSpace < HOST_READ_BYTES;
    return !this.#paused;
  }

  written(): void {
    const count = this.#writing;
    this.#writing = 0;
    if (this.#over) return;
    this.#connection.consume(count);
    this.#pump();
  }

  ended(): void {
    if (!this.#over) this.#connection.finish();
  }

  // The machine's end.

  opened(): void {
    this.#options.opened?.();
  }

  readable(): void {
    this.#pump();
  }

  writable(): void {
    this.#options.gate.check();
    this.maybeRead();
  }

  closed(end: TcpEnd): void {
    const stream = this.#stream;
    if (end !== 'closed') stream?.destroy(true);
    else if (!this.#ended) {
      // After an orderly end the host's socket closes by itself, when the last bytes have gone.
      this.#ended = true;
      stream?.end();
    }
    this.#leave();
  }

  // The gate.

  stopReading(): void {
    if (this.#paused || this.#over) return;
    this.#paused = true;
    this.#stream?.pause();
  }

  maybeRead(): void {
    if (!this.#paused || this.#over || this.#connection.sendSpace < HOST_READ_BYTES) return;
    this.#paused = false;
    this.#stream?.resume();
  }

  #pump(): void {
    const stream = this.#stream;
    if (stream === undefined || !this.#connected || this.#over) return;
    const c = this.#connection;
    if (this.#inspect !== undefined && !this.#judged(this.#inspect)) return;
    while (this.#writing === 0) {
      const bytes = c.receiving.peek(0);
      if (bytes.length === 0) break;
      if (stream.write(bytes)) c.consume(bytes.length);
      else this.#writing = bytes.length;
      if (this.#over) return;
    }
    if (c.peerFinished && !this.#ended && this.#writing === 0 && c.receiving.length === 0) {
      this.#ended = true;
      stream.end();
    }
  }

  /** Whether the machine's bytes may pass. They lie together: nothing was taken out of the queue yet. */
  #judged(inspect: FirstBytes): boolean {
    const c = this.#connection;
    const verdict = inspect(c.receiving.peek(0));
    if (verdict === 'more' && !c.peerFinished) return false;
    this.#inspect = undefined;
    if (verdict !== 'deny') return true;
    this.#stream?.destroy(true);
    c.abort();
    this.#leave();
    return false;
  }

  #leave(): void {
    if (this.#over) return;
    this.#over = true;
    this.#options.gate.remove(this);
    this.#options.done?.();
  }
}
