/** Publishes ports of one container: all that were asked for, or none. */
import { isIPv6 } from 'node:net';
import { NetError, reasonOf } from '../errors.ts';
import type { Inside } from './inside.ts';
import { RANDOM_PORT_TRIES_MAX } from './limits.ts';
import type { PortMapping, PortProtocol } from './spec.ts';
import { type Listener, listenTcp, type PortCounters } from './tcp.ts';
import { listenUdp } from './udp.ts';

export interface PublishOptions {
  readonly mappings: readonly PortMapping[];
  /** The container's address inside. */
  readonly address: string;
  readonly inside: Inside;
  /** Where a mapping without an address listens. Default: all addresses of both families. */
  readonly defaultAddresses?: readonly string[];
}

/** A port that is open on the host. */
export interface PublishedPort {
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: PortProtocol;
  readonly counters: Readonly<PortCounters>;
}

const EVERYWHERE: readonly string[] = ['0.0.0.0', '::'];

export class PublishedPorts implements AsyncDisposable {
  readonly ports: readonly PublishedPort[];
  readonly #listeners: readonly Listener[];

  private constructor(ports: readonly PublishedPort[], listeners: readonly Listener[]) {
    this.ports = ports;
    this.#listeners = listeners;
  }

  /**
   * Binds everything. After a restart the mappings to give are {@link fixed} of what was open.
   *
   * @throws {NetError} `ERR_ARCBOX_NET_PORT_TAKEN`, naming the port; nothing is bound then.
   */
  static async publish(options: PublishOptions): Promise<PublishedPorts> {
    const ports: PublishedPort[] = [];
    const listeners: Listener[] = [];
    try {
      for (const mapping of options.mappings) {
        for (const [port, listener] of await bindMapping(options, mapping)) {
          ports.push(port);
          listeners.push(listener);
        }
      }
      return new PublishedPorts(ports, listeners);
    } catch (error) {
      await Promise.all(listeners.map((listener) => listener[Symbol.asyncDispose]()));
      throw error;
    }
  }

  /** The mappings that open the same ports again. */
  fixed(): readonly PortMapping[] {
    return this.ports.map(({ hostAddress, hostPort, containerPort, protocol }) => ({
      hostAddress,
      hostPorts: { first: hostPort, last: hostPort },
      containerPort,
      protocol,
    }));
  }

  /** Closes the ports; connections are reset. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#listeners.map((listener) => listener[Symbol.asyncDispose]()));
  }
}

type Bound = readonly (readonly [PublishedPort, Listener])[];

/** One mapping on all its addresses, with the same port on each. */
async function bindMapping(options: PublishOptions, mapping: PortMapping): Promise<Bound> {
  const wanted = mapping.hostPorts;
  const addresses =
    mapping.hostAddress === undefined ? (options.defaultAddresses ?? EVERYWHERE) : [mapping.hostAddress];
  const tries = wanted === undefined ? RANDOM_PORT_TRIES_MAX : wanted.last - wanted.first + 1;
  let reason: unknown;
  for (let attempt = 0; attempt < tries; attempt++) {
    const port = wanted === undefined ? 0 : wanted.first + attempt;
    try {
      return await bindEverywhere(options, mapping, addresses, port);
    } catch (error) {
      reason = error;
      if (!hasCode(error, 'EADDRINUSE')) break;
    }
  }
  throw taken(mapping, addresses, reason);
}

async function bindEverywhere(
  options: PublishOptions,
  mapping: PortMapping,
  addresses: readonly string[],
  first: number,
): Promise<Bound> {
  const bound: [PublishedPort, Listener][] = [];
  let port = first;
  try {
    for (const address of addresses) {
      const counters: PortCounters = { connections: 0, refused: 0, bytesIn: 0, bytesOut: 0 };
      const { containerPort, protocol } = mapping;
      const listen = protocol === 'tcp' ? listenTcp : listenUdp;
      const target = { address: options.address, port: containerPort };
      let listener: Listener;
      try {
        listener = await listen({ address, port, inside: options.inside, target, counters });
      } catch (error) {
        // A host without IPv6 has one family only.
        const optional = mapping.hostAddress === undefined && isIPv6(address) && bound.length > 0;
        if (optional && (hasCode(error, 'EAFNOSUPPORT') || hasCode(error, 'EADDRNOTAVAIL'))) continue;
        throw error;
      }
      port = listener.port;
      bound.push([{ hostAddress: address, hostPort: port, containerPort, protocol, counters }, listener]);
    }
    return bound;
  } catch (error) {
    await Promise.all(bound.map(([, listener]) => listener[Symbol.asyncDispose]()));
    throw error;
  }
}

function taken(mapping: PortMapping, addresses: readonly string[], cause: unknown): NetError {
  const { hostPorts: wanted, protocol } = mapping;
  const ports =
    wanted === undefined
      ? 'a port'
      : wanted.first === wanted.last
        ? `port ${wanted.first}`
        : `ports ${wanted.first}-${wanted.last}`;
  const where = `${ports}/${protocol} on ${addresses.join(' and ')}`;
  const reason = hasCode(cause, 'EADDRINUSE')
    ? 'it is in use; stop the other program or container, or choose another port'
    : hasCode(cause, 'EACCES')
      ? 'we may not: ports below 1024 need privileges'
      : hasCode(cause, 'EADDRNOTAVAIL')
        ? 'this host has no such address'
        : reasonOf(cause);
  return new NetError('ERR_ARCBOX_NET_PORT_TAKEN', `cannot publish ${where}: ${reason}`, { cause });
}

function hasCode(error: unknown, code: string): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && error.code === code;
}
