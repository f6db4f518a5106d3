/**
 * Container networks: which there are, who is in them, with which address.
 *
 * This is the truth that is stored; links in guests and the stack's tables follow from it and are made again from it
 * after a crash. Three networks are always there: `bridge`, which containers get that ask for none, `host` (the
 * machine's own network) and `none`; the last two are names for having no endpoint.
 */
import { randomBytes } from 'node:crypto';
import { NetError } from '@arcbox/net/errors';
import {
  AddressPool,
  AddressPool6,
  cidrsOverlap,
  formatCidr,
  pickSubnet,
  requireCidr,
} from '@arcbox/net/ipam';
import { faultPoint } from '@arcbox/sys';
import { EngineError } from '../errors.ts';
import { ENDPOINTS_MAX, NETWORK_NAME_LENGTH_MAX, VLAN_MAX } from '../limits.ts';
import type { NetworkTable } from '../state/network-table.ts';
import type { EndpointRecord, NetworkRecord } from './network-record.ts';

export const DEFAULT_NETWORK = 'bridge';
/** Names that stand for no network of ours. */
export const PSEUDO_NETWORKS: readonly string[] = ['host', 'none'];

const GLOBAL_ID_BYTES = 5;
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

export interface CreateNetworkOptions {
  readonly name: string;
  /** Default: one that overlaps no other network. */
  readonly subnet?: string;
  /** Default: the subnet's first address. */
  readonly gateway?: string;
  /** Part of the subnet that addresses are taken from. */
  readonly range?: string;
  /** Beside IPv4. */
  readonly ipv6?: boolean;
  /** With `ipv6`; default: a private one of its own (RFC 4193), its first address, all of it. */
  readonly subnet6?: string;
  readonly gateway6?: string;
  readonly range6?: string;
  readonly internal?: boolean;
  readonly labels?: Readonly<Record<string, string>>;
}

export interface ConnectOptions {
  readonly address?: string;
  readonly address6?: string;
  readonly mac?: string;
  readonly aliases?: readonly string[];
}

export class NetworkManager {
  readonly #table: NetworkTable;
  readonly #networks = new Map<string, NetworkRecord>();
  readonly #pools = new Map<string, AddressPool>();
  /** Of the networks that have IPv6. */
  readonly #pools6 = new Map<string, AddressPool6>();
  readonly #endpoints = new Map<number, EndpointRecord>();

  /** `defaultSubnet` is what the network `bridge` is made with, the first time. */
  constructor(table: NetworkTable, defaultSubnet: string) {
    this.#table = table;
    for (const record of table.networks()) this.#remember(record);
    for (const endpoint of table.endpoints()) {
      this.#endpoints.set(endpoint.number, endpoint);
      this.#pools.get(endpoint.networkId)?.lease(endpoint.containerId, endpoint.address);
      if (endpoint.address6 !== undefined)
        this.#pools6.get(endpoint.networkId)?.lease(endpoint.containerId, endpoint.address6);
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
    faultPoint('network.delete');
    this.#table.deleteNetwork(network.id);
    this.#networks.delete(network.id);
    this.#pools.delete(network.id);
    this.#pools6.delete(network.id);
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
    const pool6 = this.#pools6.get(network.id);
    if (pool6 === undefined && options.address6 !== undefined) {
      throw new EngineError(
        'ERR_ARCBOX_INVALID_ARGUMENT',
        `the network ${network.name} has no IPv6, so ${options.address6} is not in it; make one with --ipv6`,
      );
    }
    const address = refused(() => pool.lease(containerId, options.address));
    try {
      const address6 = refused(() => pool6?.lease(containerId, options.address6));
      const free = own.findIndex(({ position }, at) => position !== at);
      faultPoint('network.lease');
      const endpoint = this.#table.insertEndpoint({
        networkId: network.id,
        containerId,
        position: free < 0 ? own.length : free,
        address,
        address6,
        mac: mac ?? macOf(address),
        aliases: [...new Set(options.aliases ?? [])],
      });
      this.#endpoints.set(endpoint.number, endpoint);
      return endpoint;
    } catch (error) {
      pool.release(containerId);
      pool6?.release(containerId);
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
    faultPoint('network.release');
    this.#table.deleteEndpoint(endpoint.number);
    this.#endpoints.delete(endpoint.number);
    this.#pools.get(endpoint.networkId)?.release(endpoint.containerId);
    this.#pools6.get(endpoint.networkId)?.release(endpoint.containerId);
  }

  #byName(name: string): NetworkRecord | undefined {
    return this.list().find((network) => network.name === name);
  }

  #create(options: CreateNetworkOptions): NetworkRecord {
    const taken = this.list().map(({ subnet }) => subnet);
    const subnet = refused(() => options.subnet ?? pickSubnet(taken));
    this.#requireFree(subnet);
    const pool = refused(() => new AddressPool(poolOptions(subnet, options)));
    const pool6 = this.#pool6Of(options);
    if (pool6 !== undefined) this.#requireFree(pool6.subnet);
    const record: NetworkRecord = {
      id: randomBytes(32).toString('hex'),
      name: options.name,
      vlan: this.#freeVlan(),
      subnet,
      gateway: pool.gateway,
      range: options.range,
      subnet6: pool6?.subnet,
      gateway6: pool6?.gateway,
      range6: options.range6,
      internal: options.internal ?? false,
      labels: options.labels ?? {},
      createdMs: Date.now(),
    };
    faultPoint('network.create');
    this.#table.insertNetwork(record);
    this.#networks.set(record.id, record);
    this.#pools.set(record.id, pool);
    if (pool6 !== undefined) this.#pools6.set(record.id, pool6);
    return record;
  }

  #pool6Of({ ipv6, subnet6, gateway6, range6 }: CreateNetworkOptions): AddressPool6 | undefined {
    const given = subnet6 ?? gateway6 ?? range6;
    if (ipv6 !== true) {
      if (given === undefined) return undefined;
      throw new EngineError(
        'ERR_ARCBOX_INVALID_ARGUMENT',
        `${given} is IPv6, which a network has only when it is made with --ipv6`,
      );
    }
    return refused(
      () => new AddressPool6(poolOptions(subnet6 ?? privateSubnet6(), { gateway: gateway6, range: range6 })),
    );
  }

  /** Throws `ERR_ARCBOX_NETWORK` when the subnet overlaps a network's. */
  #requireFree(subnet: string): void {
    const wanted = refused(() => requireCidr(subnet));
    for (const other of this.list()) {
      for (const taken of [other.subnet, other.subnet6]) {
        if (taken === undefined || !cidrsOverlap(requireCidr(taken), wanted)) continue;
        throw new EngineError(
          'ERR_ARCBOX_NETWORK',
          `the subnet ${subnet} overlaps ${taken} of the network ${other.name}; choose another`,
        );
      }
    }
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
    if (record.subnet6 === undefined) return;
    const more = { gateway: record.gateway6, range: record.range6 };
    this.#pools6.set(record.id, new AddressPool6(poolOptions(record.subnet6, more)));
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

/** A unique local subnet: 40 random bits make that nobody else has it (RFC 4193 section 3.2). */
function privateSubnet6(): string {
  const base = Buffer.concat([Buffer.of(0xfd), randomBytes(GLOBAL_ID_BYTES), Buffer.alloc(10)]);
  return formatCidr({ family: 6, base: BigInt(`0x${base.toString('hex')}`), prefix: 64 });
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
