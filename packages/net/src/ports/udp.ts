/** One published UDP port: each client has a flow of its own inside, until it is silent for a while. */
import dgram from 'node:dgram';
import { once } from 'node:events';
import type { InsideDatagrams } from './inside.ts';
import { DATAGRAM_CLIENTS_MAX, DATAGRAM_IDLE_MS } from './limits.ts';
import type { Listener, ListenOptions } from './tcp.ts';

interface Client {
  readonly flow: InsideDatagrams;
  lastMs: number;
}

/** Rejects with the error of bind(2). */
export async function listenUdp(options: ListenOptions & { readonly idleMs?: number }): Promise<Listener> {
  const { address, inside, target, counters, idleMs = DATAGRAM_IDLE_MS } = options;
  const socket = address.includes(':')
    ? dgram.createSocket({ type: 'udp6', ipv6Only: true })
    : dgram.createSocket({ type: 'udp4' });
  // In the order of their last packets.
  const clients = new Map<string, Client>();
  let open = true;
  let timer: NodeJS.Timeout | undefined;
  const forget = (key: string, client: Client): void => {
    clients.delete(key);
    client.flow.close();
  };
  const sweep = (): void => {
    timer = undefined;
    const nowMs = performance.now();
    for (const [key, client] of clients) {
      if (nowMs - client.lastMs < idleMs) {
        timer = setTimeout(sweep, client.lastMs + idleMs - nowMs + 1);
        return;
      }
      forget(key, client);
    }
  };
  socket.on('message', (message, remote) => {
    const key = `${remote.address} ${remote.port}`;
    let client = clients.get(key);
    if (client === undefined) {
      const [oldest] = clients;
      if (clients.size >= DATAGRAM_CLIENTS_MAX && oldest !== undefined) forget(...oldest);
      counters.connections++;
      const made: Client = {
        lastMs: 0,
        flow: inside.datagrams(target, { address: remote.address, port: remote.port }, (payload) => {
          if (!open) return;
          counters.bytesOut += payload.length;
          touch(key, made);
          // A copy: the socket sends later. One that cannot be sent is lost, as datagrams are.
          socket.send(Uint8Array.from(payload), remote.port, remote.address, () => {});
        }),
      };
      client = made;
    }
    counters.bytesIn += message.length;
    touch(key, client);
    client.flow.send(message);
  });
  const touch = (key: string, client: Client): void => {
    client.lastMs = performance.now();
    clients.delete(key);
    clients.set(key, client);
    timer ??= setTimeout(sweep, idleMs);
  };
  try {
    socket.bind({ address, port: options.port, exclusive: true });
    await once(socket, 'listening');
  } catch (error) {
    socket.close();
    throw error;
  }
  socket.on('error', () => {}); // of one datagram
  return {
    port: socket.address().port,
    async [Symbol.asyncDispose]() {
      open = false;
      clearTimeout(timer);
      for (const [key, client] of clients) forget(key, client);
      const closed = once(socket, 'close');
      socket.close();
      await closed;
    },
  };
}
