/**
 * One published TCP port. The inside is dialled before a byte of the client is read, and the client is reset at once
 * when nothing listens there: it cannot tell us from the container. The end of a stream passes through in either
 * direction on its own, and so does a reset.
 */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import type { Inside, InsideStream } from './inside.ts';
import { CONNECTIONS_PER_PORT_MAX, DIAL_MS } from './limits.ts';

export interface PortCounters {
  connections: number;
  /** Clients that were reset since nothing listened inside. */
  refused: number;
  bytesIn: number;
  bytesOut: number;
}

export interface Listener extends AsyncDisposable {
  readonly port: number;
}

export interface ListenOptions {
  readonly address: string;
  /** 0: any. */
  readonly port: number;
  readonly inside: Inside;
  readonly target: { readonly address: string; readonly port: number };
  readonly counters: PortCounters;
}

/** Rejects with the error of bind(2). */
export async function listenTcp(options: ListenOptions): Promise<Listener> {
  const { address, inside, target, counters } = options;
  const clients = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (client) => {
    if (clients.size >= CONNECTIONS_PER_PORT_MAX) {
      client.resetAndDestroy();
      return;
    }
    counters.connections++;
    clients.add(client);
    client.once('close', () => clients.delete(client));
    client.on('error', () => {}); // 'close' follows
    void connect(client);
  });

  async function connect(client: Socket): Promise<void> {
    // Gives up when the client goes before it is answered, but has no say once it was.
    const dialling = new AbortController();
    const giveUp = (): void => dialling.abort();
    client.once('close', giveUp);
    const limit = setTimeout(giveUp, DIAL_MS);
    const from = { address: client.remoteAddress ?? '', port: client.remotePort ?? 0 };
    let inner: InsideStream;
    try {
      inner = await inside.dial(target, from, dialling.signal);
    } catch {
      counters.refused++;
      client.resetAndDestroy();
      return;
    } finally {
      clearTimeout(limit);
      client.off('close', giveUp);
    }
    if (client.destroyed) reset(inner);
    else join(client, inner, counters);
  }

  server.listen({ host: address, port: options.port, ipv6Only: true });
  await once(server, 'listening');
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : options.port;
  return {
    port,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      for (const client of clients) client.resetAndDestroy();
      await closed;
    },
  };
}

/** Carries bytes both ways, each direction to its own end; a side that breaks takes the other with it. */
function join(client: Socket, inner: InsideStream, counters: PortCounters): void {
  client.on('data', (chunk: Buffer) => {
    counters.bytesIn += chunk.length;
  });
  inner.on('data', (chunk: Buffer) => {
    counters.bytesOut += chunk.length;
  });
  client.pipe(inner);
  inner.pipe(client);
  inner.on('error', () => client.resetAndDestroy());
  inner.once('close', () => {
    // Both ends came: the rest is being flushed. Otherwise it was cut off.
    if (!inner.readableEnded || !inner.writableFinished) client.resetAndDestroy();
  });
  client.once('close', (hadError) => {
    if (hadError || !client.readableEnded || !client.writableFinished) reset(inner);
  });
}

function reset(inner: InsideStream): void {
  if (inner.resetAndDestroy === undefined) inner.destroy();
  else inner.resetAndDestroy();
}
