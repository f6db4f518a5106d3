/** A {@link DhcpServer} on a UDP socket of this host, for those who have an interface rather than our stack. */
import dgram from 'node:dgram';
import { once } from 'node:events';
import { DHCP_SERVER_PORT, type DhcpServer } from './server.ts';

export interface DhcpUdpOptions {
  readonly server: DhcpServer;
  /** Where to listen; default `0.0.0.0`, since clients without an address send to everybody. */
  readonly address?: string;
  readonly port?: number;
  /** Where answers go to a client that has no address yet; default `255.255.255.255`. */
  readonly broadcastAddress?: string;
  /** A reply that could not be sent. */
  readonly onError: (error: Error) => void;
  /** Wall clock. */
  readonly nowMs?: () => number;
}

/** Serves until it is disposed of. Rejects when the port cannot be bound. */
export async function serveDhcpUdp(options: DhcpUdpOptions): Promise<AsyncDisposable> {
  const { server, nowMs = Date.now, broadcastAddress = '255.255.255.255' } = options;
  const socket = dgram.createSocket({ type: 'udp4', reuseAddr: true });
  socket.bind(options.port ?? DHCP_SERVER_PORT, options.address);
  await once(socket, 'listening');
  socket.setBroadcast(true);
  socket.on('error', options.onError);
  socket.on('message', (packet, remote) => {
    const reply = server.handle(packet, nowMs());
    if (reply === undefined) return;
    // A socket cannot send to a hardware address: a client that is not at its address yet hears everything.
    const reachable = remote.address === reply.address || reply.port === DHCP_SERVER_PORT;
    socket.send(reply.payload, reply.port, reachable ? reply.address : broadcastAddress, (error) => {
      if (error !== null) options.onError(error);
    });
  });
  return {
    async [Symbol.asyncDispose]() {
      const closed = once(socket, 'close');
      socket.close();
      await closed;
    },
  };
}
