/** A {@link DnsServer} on sockets of this host, and on any byte stream. */
import dgram from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { u16 } from '../wire/index.ts';
import { TCP_CLIENTS_MAX, TCP_IDLE_MS, TCP_PIPELINE_MAX } from './limits.ts';
import type { DnsSource } from './names.ts';
import type { DnsServer } from './server.ts';

/**
 * Answers questions on a byte stream (RFC 7766: each message after its length), several at a time, in the order that
 * they are ready in. Ends the stream when it says nothing for a while, and destroys it when it is malformed.
 */
export function serveDnsStream(stream: Duplex, server: DnsServer, source: DnsSource): void {
  let pending: Buffer = Buffer.alloc(0);
  let answering = 0;
  let ended = false;
  const idle = setTimeout(() => stream.destroy(), TCP_IDLE_MS);
  const finish = (): void => {
    if (ended && answering === 0) stream.end();
  };
  const answer = async (message: Buffer): Promise<void> => {
    const reply = await server.handle(message, source, 'tcp');
    answering--;
    if (reply === undefined) {
      stream.destroy();
      return;
    }
    if (stream.writable) {
      const length = Buffer.alloc(2);
      length.writeUInt16BE(reply.length);
      stream.write(Buffer.concat([length, reply]));
    }
    take();
    finish();
  };
  const take = (): void => {
    while (answering < TCP_PIPELINE_MAX && pending.length >= 2 && pending.length >= 2 + u16(pending, 0)) {
      const end = 2 + u16(pending, 0);
      const message = pending.subarray(2, end);
      pending = pending.subarray(end);
      answering++;
      void answer(message);
    }
    if (answering >= TCP_PIPELINE_MAX) stream.pause();
    else stream.resume();
  };
  stream.on('data', (chunk: Buffer) => {
    idle.refresh();
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    take();
  });
  stream.once('end', () => {
    ended = true;
    finish();
  });
  stream.on('error', () => stream.destroy());
  stream.once('close', () => clearTimeout(idle));
}

export interface DnsSocketOptions {
  readonly server: DnsServer;
  readonly address: string;
  /** 0: any free one, the same for UDP and TCP. Default 53. */
  readonly port?: number;
  /** Who asks from an address. */
  readonly sourceOf: (address: string) => DnsSource;
  /** An answer that could not be sent. */
  readonly onError: (error: Error) => void;
}

export interface DnsSockets extends AsyncDisposable {
  readonly port: number;
}

/** Serves UDP and TCP until it is disposed of. Rejects when the port cannot be bound. */
export async function serveDnsSockets(options: DnsSocketOptions): Promise<DnsSockets> {
  const { server, address, sourceOf, onError } = options;
  const clients = new Set<Socket>();
  const tcp = createServer({ allowHalfOpen: true }, (socket) => {
    if (clients.size >= TCP_CLIENTS_MAX) {
      socket.destroy();
      return;
    }
    clients.add(socket);
    socket.once('close', () => clients.delete(socket));
    serveDnsStream(socket, server, sourceOf(socket.remoteAddress ?? address));
  });
  tcp.listen(options.port ?? 53, address);
  await once(tcp, 'listening');
  const bound = tcp.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0;
  const udp = dgram.createSocket(address.includes(':') ? 'udp6' : 'udp4');
  const closeTcp = async (): Promise<void> => {
    for (const socket of clients) socket.destroy();
    const closed = once(tcp, 'close');
    tcp.close();
    await closed;
  };
  try {
    udp.bind(port, address);
    await once(udp, 'listening');
  } catch (error) {
    udp.close();
    await closeTcp();
    throw error;
  }
  tcp.on('error', onError);
  udp.on('error', onError);
  let open = true;
  udp.on('message', (message, remote) => {
    void server.handle(message, sourceOf(remote.address), 'udp').then((reply) => {
      if (reply === undefined || !open) return;
      udp.send(reply, remote.port, remote.address, (error) => {
        if (error !== null && error !== undefined) onError(error);
      });
    });
  });
  return {
    port,
    async [Symbol.asyncDispose]() {
      open = false;
      const closed = once(udp, 'close');
      udp.close();
      await Promise.all([closed, closeTcp()]);
    },
  };
}
