/**
 * Ports of the host that lead into a network. A client's connection is accepted and then dialled inside; when nobody
 * listens there the client gets a reset at once. Half-close and reset pass through.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import net, { type AddressInfo, type Socket } from 'node:net';
import { NetError } from '../errors.ts';
import { DuplexStream } from '../relay/duplex-stream.ts';
import { TcpRelay } from '../relay/tcp-relay.ts';
import type { NetworkStack } from '../stack/network-stack.ts';
import type { Switch } from '../stack/switch.ts';
import type { UdpFlow } from '../udp/layer.ts';
import { ipBytes, ipText, isMapped4 } from '../wire/address.ts';
import type { Publication } from './protocol.ts';

/** The host has not got the address, or nothing of its family. */
const NO_ADDRESS = new Set(['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EPROTONOSUPPORT']);

/** Clients of one UDP port; one more forgets nobody, but is not served until another has gone. */
const UDP_CLIENTS_MAX = 1024;

interface Published {
  close(): void;
}

export class PublishedPorts {
  readonly #switch: Switch;
  readonly #published = new Map<string, Published>();

  constructor(hub: Switch) {
    this.#switch = hub;
  }

  /** Answers with the port of the host. @throws {NetError} ERR_ARCBOX_NET_PORT_TAKEN, ERR_ARCBOX_NET_NO_ADDRESS, ERR_ARCBOX_NET_CONFIG */
  async open(publication: Publication): Promise<number> {
    const { id, network, protocol } = publication;
    const stack = this.#switch.network(network);
    if (stack === undefined || this.#published.has(id)) {
      throw new NetError('ERR_ARCBOX_NET_CONFIG', `The port ${id} of network ${network} cannot be published`);
    }
    const opened =
      protocol === 'tcp' ? await this.#tcp(stack, publication) : await this.#udp(stack, publication);
    this.#published.set(id, opened);
    return opened.port;
  }

  close(id: string): void {
    this.#published.get(id)?.close();
    this.#published.delete(id);
  }

  closeAll(): void {
    for (const id of [...this.#published.keys()]) this.close(id);
  }

  async #tcp(stack: NetworkStack, publication: Publication): Promise<Published & { port: number }> {
    const clients = new Set<Socket>();
    const server = net.createServer(
      { allowHalfOpen: true, pauseOnConnect: true, noDelay: true },
      (socket) => {
        clients.add(socket);
        socket.once('close', () => clients.delete(socket));
        // Until the other side is there nobody listens.
        socket.on('error', () => {});
        this.#dial(stack, publication, socket);
      },
    );
    await listening(publication, (then, failed) => {
      server.once('error', failed);
      server.listen(
        {
          port: publication.hostPort,
          host: publication.hostAddress,
          ipv6Only: isV6(publication.hostAddress),
        },
        then,
      );
    });
    const { port } = server.address() as AddressInfo;
    return {
      port,
      close: () => {
        server.close();
        for (const socket of clients) socket.resetAndDestroy();
      },
    };
  }

  #dial(stack: NetworkStack, publication: Publication, socket: Socket): void {
    const theirs = ipBytes(publication.address);
    const version = isMapped4(theirs) ? 4 : 6;
    const gateway = stack.gateway(version);
    stack.neighbours.find(ipText(theirs), (hop) => {
      if (hop === undefined || gateway === undefined || socket.destroyed) {
        socket.resetAndDestroy();
        return;
      }
      const connection = stack.tcp.connect(hop, version, ipBytes(gateway), theirs, publication.port);
      if (connection === undefined) {
        socket.resetAndDestroy();
        return;
      }
      const relay = new TcpRelay(connection, {
        gate: this.#switch.environment.gate,
        opened: () => {
          relay.connected();
          stream.resume();
        },
      });
      const stream = new DuplexStream(socket, relay);
      relay.attach(stream);
    });
  }

  async #udp(stack: NetworkStack, publication: Publication): Promise<Published & { port: number }> {
    const theirs = ipBytes(publication.address);
    const version = isMapped4(theirs) ? 4 : 6;
    const v6 = isV6(publication.hostAddress);
    const socket: UdpSocket = createSocket({ type: v6 ? 'udp6' : 'udp4', ipv6Only: v6 });
    const flows = new Map<string, UdpFlow>();
    let closed = false;
    await listening(publication, (then, failed) => {
      socket.once('error', failed);
      socket.bind(publication.hostPort, publication.hostAddress, then);
    });
    socket.on('error', () => {});
    socket.on('message', (message, remote) => {
      const client = `${remote.address} ${remote.port}`;
      const known = flows.get(client);
      if (known !== undefined) {
        known.datagram(message);
        return;
      }
      const gateway = stack.gateway(version);
      if (flows.size >= UDP_CLIENTS_MAX || gateway === undefined) return;
      stack.neighbours.find(ipText(theirs), (hop) => {
        // It may have been withdrawn while the machine was looked for.
        if (hop === undefined || closed) return;
        const raced = flows.get(client);
        const flow = raced ?? stack.udp.connect(hop, version, ipBytes(gateway), theirs, publication.port);
        if (flow === undefined) return;
        if (raced === undefined) {
          flows.set(client, flow);
          flow.open(() => ({
            send: (payload) => socket.send(Buffer.from(payload), remote.port, remote.address, () => {}),
            close: () => flows.delete(client),
          }));
        }
        flow.datagram(message);
      });
    });
    return {
      port: socket.address().port,
      close: () => {
        closed = true;
        socket.close();
        for (const flow of [...flows.values()]) stack.udp.remove(flow);
      },
    };
  }
}

/** Waits until a port is bound, and says in words why it is not. */
async function listening(
  { hostAddress, hostPort, protocol }: Publication,
  bind: (then: () => void, failed: (error: Error) => void) => void,
): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => bind(resolve, reject));
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    const what = `the port ${isV6(hostAddress) ? `[${hostAddress}]` : hostAddress}:${hostPort}/${protocol}`;
    if (NO_ADDRESS.has(code)) {
      throw new NetError(
        'ERR_ARCBOX_NET_NO_ADDRESS',
        `${what} cannot be bound: ${hostAddress} is no address of this host (${code}); publish on another`,
        { cause: error },
      );
    }
    if (code === 'EADDRINUSE') {
      throw new NetError('ERR_ARCBOX_NET_PORT_TAKEN', `${what} is in use; choose another, or 0 for any`, {
        cause: error,
      });
    }
    throw new NetError('ERR_ARCBOX_NET_PORT_TAKEN', `${what} cannot be bound (${code}); choose another`, {
      cause: error,
    });
  }
}

function isV6(address: string): boolean {
  return address.includes(':');
}
