/** Frames over a connected stream socket: what QEMU's `-netdev stream` and passt speak. */
import net from 'node:net';
import type { Link, LinkReceiver } from './link.ts';

export class StreamLink implements Link {
  readonly name: string;
  /** Settles once the socket is connected; rejects when it cannot be. */
  readonly ready: Promise<void>;
  readonly #path: string;
  readonly #isReady = Promise.withResolvers<void>();
  #socket: net.Socket | undefined;
  #receiver: LinkReceiver | undefined;

  /** Connects to the Unix socket `path` when it is plugged in. */
  constructor(name: string, path: string) {
    this.name = name;
    this.#path = path;
    this.ready = this.#isReady.promise;
    this.ready.catch(() => {});
  }

  start(receiver: LinkReceiver): void {
    this.#receiver = receiver;
    const socket = net.connect({
      path: this.#path,
      // Straight into the stack's memory, wherever that wants it next.
      onread: {
        buffer: () => receiver.space(),
        callback: (count) => {
          receiver.received(count);
          return true;
        },
      },
    });
    this.#socket = socket;
    let failure: Error | undefined;
    socket.once('connect', () => this.#isReady.resolve());
    socket.on('error', (error) => {
      failure = error;
    });
    socket.on('close', () => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      this.#isReady.reject(failure ?? new Error(`the socket ${this.#path} was closed`));
      receiver.closed(failure);
    });
  }

  send(frames: Uint8Array): boolean {
    const socket = this.#socket;
    if (socket === undefined) return true;
    socket.write(frames, this.#written);
    // The kernel took it all at once: libuv writes before it queues.
    if (socket.writableLength === 0) {
      this.#skip += 1;
      return true;
    }
    return false;
  }

  /** Callbacks of writes that were done at once. */
  #skip = 0;
  readonly #written = (): void => {
    if (this.#skip > 0) this.#skip -= 1;
    else this.#receiver?.sent();
  };

  close(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    this.#isReady.reject(new Error(`the link ${this.name} was closed`));
    socket?.destroy();
  }
}
