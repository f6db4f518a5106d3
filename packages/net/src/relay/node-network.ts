/** The host's network through Node's sockets. */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import net from 'node:net';
import { closeFd, connectLoopback } from '@arcbox/sys';
import { DIAL_TIMEOUT_MS, UDP_PENDING_MAX, UDP_QUEUE_BYTES_MAX } from '../limits.ts';
import type {
  Endpoint,
  HostDatagramEvents,
  HostDatagrams,
  HostNetwork,
  HostPing,
  HostPingEvents,
  HostStream,
  HostStreamEvents,
} from '../stack/host-network.ts';
import { openPing } from './node-ping.ts';

export class NodeNetwork implements HostNetwork {
  /** All sockets read into it, one after the other: what came is copied on before the next one reads. */
  readonly #readBuffer: Uint8Array;

  constructor(readBuffer: Uint8Array) {
    this.#readBuffer = readBuffer;
  }

  connect({ address, port }: Endpoint, events: HostStreamEvents): HostStream {
    const here = address === '127.0.0.1' || address === '::1';
    const fd = here ? connectLoopback(address, port) : undefined;
    if (fd === undefined) return this.#stream({ host: address, port, noDelay: true }, events);
    // It owns the descriptor from here on.
    const stream = new ConnectedStream(fd, events, () => this.#stream({ fd }, events));
    events.connected();
    return stream;
  }

  #stream(to: { readonly fd: number } | net.TcpNetConnectOpts, events: HostStreamEvents): SocketStream {
    const buffer = this.#readBuffer;
    const options = {
      ...to,
      allowHalfOpen: true,
      onread: { buffer, callback: (count: number) => stream.read(buffer.subarray(0, count)) },
    };
    const socket =
      'fd' in to ? new net.Socket(options).setNoDelay() : net.connect(options as net.TcpNetConnectOpts);
    const stream: SocketStream = new SocketStream(socket, events);
    return stream;
  }

  datagrams(target: Endpoint, events: HostDatagramEvents): HostDatagrams {
    return new NodeDatagrams(target, events);
  }

  ping(address: string, events: HostPingEvents): HostPing | undefined {
    return openPing(address, events);
  }
}

/**
 * A connection that is there already. Its socket is made when this turn of the loop is over, or somebody needs it: the
 * machine is answered first.
 */
class ConnectedStream implements HostStream {
  readonly #fd: number;
  readonly #events: HostStreamEvents;
  readonly #make: () => HostStream;
  #made: HostStream | undefined;

  constructor(fd: number, events: HostStreamEvents, make: () => HostStream) {
    this.#fd = fd;
    this.#events = events;
    this.#make = make;
    setImmediate(() => this.#stream());
  }

  #stream(): HostStream {
    if (this.#made !== undefined) return this.#made;
    try {
      this.#made = this.#make();
    } catch (error) {
      closeFd(this.#fd);
      this.#made = NO_STREAM;
      this.#events.failed((error as NodeJS.ErrnoException).code ?? 'EIO');
    }
    return this.#made;
  }

  write(bytes: Uint8Array): boolean {
    return this.#stream().write(bytes);
  }

  end(): void {
    this.#stream().end();
  }

  pause(): void {
    this.#stream().pause();
  }

  resume(): void {
    this.#stream().resume();
  }

  destroy(reset: boolean): void {
    this.#stream().destroy(reset);
  }
}

/** What has failed, and said so. */
const NO_STREAM: HostStream = {
  write: () => true,
  end: () => {},
  pause: () => {},
  resume: () => {},
  destroy: () => {},
};

/** A TCP socket as the stack's stream. */
export class SocketStream implements HostStream {
  readonly #socket: net.Socket;
  readonly #events: HostStreamEvents;
  #over = false;
  #connected: boolean;
  /** Callbacks of writes that were done at once, which come late. */
  #done = 0;

  constructor(socket: net.Socket, events: HostStreamEvents) {
    this.#socket = socket;
    this.#events = events;
    this.#connected = !socket.connecting;
    if (socket.connecting) {
      const timer = setTimeout(() => this.#fail('ETIMEDOUT'), DIAL_TIMEOUT_MS);
      socket.once('connect', () => {
        clearTimeout(timer);
        this.#connected = true;
        if (!this.#over) events.connected();
      });
      socket.once('close', () => clearTimeout(timer));
    }
    socket.on('end', () => {
      if (!this.#over) events.ended();
    });
    socket.on('error', (error: NodeJS.ErrnoException) => this.#fail(error.code ?? 'EIO'));
    socket.on('close', () => {
      this.#over = true;
    });
  }

  /** Bytes came; false stops the socket. */
  read(bytes: Uint8Array): boolean {
    return !this.#over && this.#events.data(bytes);
  }

  write(bytes: Uint8Array): boolean {
    if (this.#over) return true;
    const socket = this.#socket;
    socket.write(bytes, this.#written);
    // libuv writes before it queues: mostly the kernel has taken it all already.
    if (socket.writableLength > 0) return false;
    this.#done += 1;
    return true;
  }

  readonly #written = (): void => {
    if (this.#done > 0) this.#done -= 1;
    else if (!this.#over) this.#events.written();
  };

  end(): void {
    if (!this.#over) this.#socket.end();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#over) this.#socket.resume();
  }

  destroy(reset: boolean): void {
    if (this.#over) return;
    this.#over = true;
    // Takes a while, and the same turn may have other frames of the machine, which waits for their answers.
    setImmediate(() => {
      if (reset && this.#connected) this.#socket.resetAndDestroy();
      else this.#socket.destroy();
    });
  }

  #fail(code: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#socket.destroy();
    this.#events.failed(code);
  }
}

class NodeDatagrams implements HostDatagrams {
  readonly #socket: UdpSocket;
  #connected = false;
  #closed = false;
  #pending: Uint8Array[] = [];

  constructor(target: Endpoint, events: HostDatagramEvents) {
    const socket = createSocket({
      type: target.address.includes(':') ? 'udp6' : 'udp4',
      // The address is one already.
      lookup: (host, _options, callback) => callback(null, host, host.includes(':') ? 6 : 4),
    });
    this.#socket = socket;
    socket.on('message', (message) => events.datagram(message));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (this.#closed) return;
      if (error.code === 'ECONNREFUSED') events.refused();
      else events.failed(error.code ?? 'EIO');
    });
    socket.connect(target.port, target.address, () => {
      if (this.#closed) return;
      this.#connected = true;
      for (const payload of this.#pending) this.send(payload);
      this.#pending = [];
    });
  }

  send(payload: Uint8Array): void {
    if (this.#closed) return;
    const copy = Buffer.from(payload);
    if (!this.#connected) {
      if (this.#pending.length < UDP_PENDING_MAX) this.#pending.push(copy);
    } else if (this.#socket.getSendQueueSize() < UDP_QUEUE_BYTES_MAX) {
      this.#socket.send(copy, (error) => {
        if (error !== null && !this.#closed) this.#socket.emit('error', error);
      });
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.close();
  }
}
