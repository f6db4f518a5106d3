/**
 * Container networks: which there are, who is in them, with which address.
 *
 * This is the truth that is stored; links in guests and the stack's tables follow from it and are made again from it
 * after a crash. Three networks are always there: `bridge`, which containers get that ask for none, `host` (the
 * machine's own network) and `none`; the last two are names for having no endpoint.
 */
import { randomBytes } from 'node:crypto';
import { NetError } from '@arcbox/net/errors';
import { AddressPool, cidrsOverlap, pickSubnet, requireCidr } from '@arcbox/net/ipam';
import { EngineError } from '../errors.ts';
import { ENDPOINTS_MAX, NETWORK_NAME_LENGTH_MAX, VLAN_MAX } from '../limits.ts';
import type { NetworkTable } from '../state/network-table.ts';
import type { EndpointRecord, NetworkRecord } from './network-record.ts';

export const DEFAULT_NETWORK = 'bridge';
/** Names that stand for no network of ours. */
export const PSEUDO_NETWORKS: readonly string[] = ['host', 'none'];

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

export interface CreateNetworkOptions {
  readonly name: string;
  /** Default: one that overlaps no other network. */
  readonly subnet?: string;
  /** Default: the subnet's first address. */
  readonly gateway?: string;
  /** Part of the subnet that addresses are taken from. */
  readonly range?: string;
  readonly internal?: boolean;
  readonly labels?: Readonly<Record<string, string>>;
}

export interface ConnectOptions {
  readonly address?: string;
  readonly mac?: string;
  readonly aliases?: readonly string[];
}

export class NetworkManager {
  readonly #table: NetworkTable;
  readonly #networks = new Map<string, NetworkRecord>();
  readonly #pools = new Map<string, AddressPool>();
  readonly #endpoints = new Map<number, EndpointRecord>();

  /** `defaultSubnet` is what the network `bridge` is made with, the first time. */
  constructor(table: NetworkTable, defaultSubnet: string) {
    this.#table = table;
    for (const record of table.networks()) this.#remember(record);
    for (const endpoint of table.endpoints()) {
      this.#endpoints.set(endpoint.number, endpoint);
      this.#pools.get(endpoint.networkId)?.lease(endpoint.containerId, endpoint.address);
    }
    if (this.#byName(DEFAULT_NETWORK) === undefined)
      this.#create({ name: DEFAULT_NETWORK, subnet: defaultSubnet });
  }

  list(): NetworkRecord[] {
    return [...this.#networks.values()];
  }

  /** By name, ID, or the beginning of an ID. Throws `ERR_ARCBOX_NETWORK_NOT_FOUND`. */
  find(reference: string): NetworkRecord {
    const exact = this.#byName(reference) ?? this.#networks.get(reference);
    if (exact !== undefined) return exact;
    const matches = /^[0-9a-f]+$/.test(reference)
      ? this.list().filter(({ id }) => id.startsWith(reference))
      : [];
    const [only] = matches;
    if (only !== undefined && matches.length === 1) return only;
    throw new EngineError(
      'ERR_ARCBOX_NETWORK_NOT_FOUND',
      matches.length > 1
        ? `${matches.length} networks have an ID that begins with ${reference}; give more of it`
        : `no such network: ${reference}; arcbox network ls lists them`,
    );
  }

  /** Throws `ERR_ARCBOX_INVALID_ARGUMENT`, `ERR_ARCBOX_NETWORK_NAME_IN_USE`, `ERR_ARCBOX_NETWORK`. */
  create(options: CreateNetworkOptions): NetworkRecord {
    const { name } = options;
    if (!NAME.test(name) || name.length > NETWORK_NAME_LENGTH_MAX) {
      throw new EngineError(
        'ERR_ARCBOX_INVALID_ARGUMENT',
        `invalid network name ${JSON.stringify(name)}: it has 1 to ${NETWORK_NAME_LENGTH_MAX} letters, digits, _ . or -, and begins with a letter or digit`,
      );
    }
    if (PSEUDO_NETWORKS.includes(name) || name === 'default' || this.#byName(name) !== undefined) {
      throw new EngineError('ERR_ARCBOX_NETWORK_NAME_IN_USE', `there is a network ${name} already`);
    }
    return { ...this.#create(options) };
  }

  /** Throws `ERR_ARCBOX_NETWORK_IN_USE` while a container is in it, and for `bridge`. */
  remove(reference: string): NetworkRecord {
    const network = this.find(reference);
    if (network.name === DEFAULT_NETWORK) {
      throw new EngineError(
        'ERR_ARCBOX_NETWORK_IN_USE',
        `the network ${DEFAULT_NETWORK} is always there; it cannot be removed`,
      );
    }
    const inside = this.endpointsIn(network.id);
    if (inside.length > 0) {
      throw new EngineError(
        'ERR_ARCBOX_NETWORK_IN_USE',
        `the network ${network.name} has ${inside.length} containers (${inside.map(({ containerId }) => containerId.slice(0, 12)).join(', ')}); disconnect or remove them first`,
      );
    }
    this.#table.deleteNetwork(network.id);
    this.#networks.delete(network.id);
    this.#pools.delete(network.id);
    return network;
  }

  /** Networks that can be removed. */
  unused(): NetworkRecord[] {
    return this.list().filter(
      ({ id, name }) => name !== DEFAULT_NETWORK && this.endpointsIn(id).length === 0,
    );
  }

  endpointsIn(networkId: string): EndpointRecord[] {
    return [...this.#endpoints.values()].filter((endpoint) => endpoint.networkId === networkId);
  }

  /** In order of their interfaces. */
  endpointsOf(containerId: string): EndpointRecord[] {
    return [...this.#endpoints.values()]
      .filter((endpoint) => endpoint.containerId === containerId)
      .sort((a, b) => a.position - b.position);
  }

  /** A container's place in a network. Throws `ERR_ARCBOX_NETWORK_NOT_FOUND` when it has none there. */
  endpointIn(containerId: string, reference: string): EndpointRecord {
    const network = this.find(reference);
    const endpoint = this.endpointsOf(containerId).find(({ networkId }) => networkId === network.id);
    if (endpoint !== undefined) return endpoint;
    throw new EngineError(
      'ERR_ARCBOX_NETWORK_NOT_FOUND',
      `the container ${containerId.slice(0, 12)} is not in the network ${network.name}`,
    );
  }

  /** Gives a container a place in a network, with an address. Throws `ERR_ARCBOX_NETWORK…`. */
  connect(containerId: string, reference: string, options: ConnectOptions = {}): EndpointRecord {
    const network = this.find(reference);
    const own = this.endpointsOf(containerId);
    if (own.some(({ networkId }) => networkId === network.id)) {
      throw new EngineError(
        'ERR_ARCBOX_NETWORK_IN_USE',
        `the container ${containerId.slice(0, 12)} is in the network ${network.name} already`,
      );
    }
    if (this.#endpoints.size >= ENDPOINTS_MAX) {
      throw new EngineError(
        'ERR_ARCBOX_LIMIT',
        `there are ${ENDPOINTS_MAX} connections to networks; remove containers first`,
      );
    }
    const pool = this.#pool(network);
    const mac = options.mac === undefined ? undefined : checkMac(options.mac);
    const address = refused(() => pool.lease(containerId, options.address));
    try {
      const free = own.findIndex(({ position }, at) => position !== at);
      const endpoint = this.#table.insertEndpoint({
        networkId: network.id,
        containerId,
        position: free < 0 ? own.length : free,
        address,
        mac: mac ?? macOf(address),
        aliases: [...new Set(options.aliases ?? [])],
      });
      this.#endpoints.set(endpoint.number, endpoint);
      return endpoint;
    } catch (error) {
      pool.release(containerId);
      throw error;
    }
  }

  /** Takes a container out of a network. Throws `ERR_ARCBOX_NETWORK_NOT_FOUND` when it is not in it. */
  disconnect(containerId: string, reference: string): EndpointRecord {
    const endpoint = this.endpointIn(containerId, reference);
    this.#forget(endpoint);
    return endpoint;
  }

  /** A container that is removed leaves all its networks. */
  release(containerId: string): void {
    for (const endpoint of this.endpointsOf(containerId)) this.#forget(endpoint);
  }

  #forget(endpoint: EndpointRecord): void {
    this.#table.deleteEndpoint(endpoint.number);
    this.#endpoints.delete(endpoint.number);
    this.#pools.get(endpoint.networkId)?.release(endpoint.containerId);
  }

  #byName(name: string): NetworkRecord | undefined {
    return this.list().find((network) => network.name === name);
  }

  #create(options: CreateNetworkOptions): NetworkRecord {
    const taken = this.list().map(({ subnet }) => subnet);
    const subnet = refused(() => options.subnet ?? pickSubnet(taken));
    const overlapping = this.list().find((other) =>
      refused(() => cidrsOverlap(requireCidr(other.subnet), requireCidr(subnet))),
    );
    if (overlapping !== undefined) {
      throw new EngineError(
        'ERR_ARCBOX_NETWORK',
        `the subnet ${subnet} overlaps ${overlapping.subnet} of the network ${overlapping.name}; choose another`,
      );
    }
    const pool = refused(() => new AddressPool(poolOptions(subnet, options)));
    const record: NetworkRecord = {
      id: randomBytes(32).toString('hex'),
      name: options.name,
      vlan: this.#freeVlan(),
      subnet,
      gateway: pool.gateway,
      range: options.range,
      internal: options.internal ?? false,
      labels: options.labels ?? {},
      createdMs: Date.now(),
    };
    this.#table.insertNetwork(record);
    this.#networks.set(record.id, record);
    this.#pools.set(record.id, pool);
    return record;
  }

  #freeVlan(): number {
    const used = new Set(this.list().map(({ vlan }) => vlan));
    for (let vlan = 1; vlan <= VLAN_MAX; vlan += 1) if (!used.has(vlan)) return vlan;
    throw new EngineError('ERR_ARCBOX_LIMIT', `there are ${VLAN_MAX} networks; remove some first`);
  }

  #pool(network: NetworkRecord): AddressPool {
    const pool = this.#pools.get(network.id);
    if (pool === undefined)
      throw new EngineError('ERR_ARCBOX_NETWORK', `the network ${network.name} has no addresses`);
    return pool;
  }

  #remember(record: NetworkRecord): void {
    this.#networks.set(record.id, record);
    this.#pools.set(record.id, new AddressPool(poolOptions(record.subnet, record)));
  }
}

function poolOptions(
  subnet: string,
  more: { readonly gateway?: string | undefined; readonly range?: string | undefined },
): { subnet: string; gateway?: string; range?: string } {
  return {
    subnet,
    ...(more.gateway === undefined ? {} : { gateway: more.gateway }),
    ...(more.range === undefined ? {} : { range: more.range }),
  };
}

/** As docker makes them: locally administered, and of the address, so that they are unique in the network. */
function macOf(address: string): string {
  return ['02', '42', ...address.split('.').map((part) => Number(part).toString(16).padStart(2, '0'))].join(
    ':',
  );
}

function checkMac(mac: string): string {
  const lower = mac.toLowerCase();
  if (/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(lower) && (Number.parseInt(lower.slice(0, 2), 16) & 1) === 0)
    return lower;
  throw new EngineError(
    'ERR_ARCBOX_INVALID_ARGUMENT',
    `${JSON.stringify(mac)} is not the MAC address of one interface, such as 02:42:ac:11:00:02`,
  );
}

/** What the address arithmetic refuses is the caller's argument. */
function refused<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof NetError)) throw error;
    const { code, message } = error;
    const exhausted = code === 'ERR_ARCBOX_NET_EXHAUSTED' || code === 'ERR_ARCBOX_NET_ADDRESS_TAKEN';
    throw new EngineError(exhausted ? 'ERR_ARCBOX_NETWORK' : 'ERR_ARCBOX_INVALID_ARGUMENT', message, {
      cause: error,
    });
  }
}
