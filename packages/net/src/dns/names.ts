/**
 * The names of one host's networks: who is called what, as seen from where the question comes.
 *
 * An endpoint (a container on a network) has names there: its own, its aliases. From an endpoint one sees the names of
 * every network that its owner is on, the one it asks from first. Each name is also known as `NAME.NETWORK`,
 * `NAME.arcbox.local` and `NAME.NETWORK.arcbox.local`. The gateway of the network that one asks from is `gateway`, and
 * the host behind it `host.docker.internal`, `gateway.docker.internal` and `host.arcbox.local`. The host's names have
 * IPv4 addresses only where there are any: most of what listens on a host's loopback listens on 127.0.0.1.
 *
 * What ends in `arcbox.local`, the names that have a meaning of their own everywhere (RFC 6761: `localhost`, `invalid`),
 * and the addresses of our networks backwards are answered here and never asked of anybody else.
 */
import { NetError } from '../errors.ts';
import { type Cidr, cidrContains, formatIp, type IpAddress, parseIp, requireCidr } from '../ipam/index.ts';
import { NAMES_PER_ENDPOINT_MAX } from './limits.ts';

export const LOCAL_DOMAIN = 'arcbox.local';
const HOST_NAMES: readonly string[] = [
  'host.docker.internal',
  'gateway.docker.internal',
  `host.${LOCAL_DOMAIN}`,
];
const GATEWAY_NAME = `gateway.${LOCAL_DOMAIN}`;

/** Who asks. */
export interface DnsSource {
  /** For policy and counters. */
  readonly vm: string;
  /** The network that the question came over; `undefined`: none of ours, nothing local is seen. */
  readonly network?: string;
  /** The address it came from. */
  readonly address?: string;
  /** Of the frame. */
  readonly mac?: string;
}

export type LocalResult =
  /** Addresses of both families; those of the family that was asked for are the answer, if any. */
  | { readonly kind: 'addresses'; readonly addresses: readonly string[] }
  | { readonly kind: 'pointer'; readonly name: string }
  | { readonly kind: 'no-such-name' };

/** Answers names of its own; `undefined`: not one of them, ask somebody else. */
export interface LocalNames {
  /** `name` is lower case, without the dot at the end. */
  resolve(source: DnsSource, name: string): LocalResult | undefined;
}

export interface Endpoint {
  /** Who is at the address: all endpoints of one owner see each other's networks. */
  readonly owner: string;
  readonly network: string;
  readonly addresses: readonly string[];
  /** `02:42:0a:00:00:02`; what comes from the addresses with another one is not from it. Absent: any. */
  readonly mac?: string;
  /** The first is its proper one. */
  readonly names: readonly string[];
}

interface Network {
  readonly gateway: readonly string[];
  /** Of both families, if it has both. */
  readonly subnets: readonly Cidr[];
  readonly byName: Map<string, Endpoint[]>;
  readonly byAddress: Map<string, Endpoint>;
  readonly byMac: Map<string, Endpoint>;
}

export class NameTable implements LocalNames {
  readonly #networks = new Map<string, Network>();
  readonly #byOwner = new Map<string, Endpoint[]>();

  /** @throws {NetError} `ERR_ARCBOX_NET_ADDRESS` when the subnet is none. */
  addNetwork(
    name: string,
    network: { readonly subnet: string; readonly subnet6?: string; readonly gateway: readonly string[] },
  ): void {
    const { subnet, subnet6, gateway } = network;
    const subnets = [subnet, ...(subnet6 === undefined ? [] : [subnet6])].map((block) => requireCidr(block));
    this.#networks.set(name, { gateway, subnets, byName: new Map(), byAddress: new Map(), byMac: new Map() });
  }

  /** Its endpoints go too. */
  removeNetwork(name: string): void {
    for (const endpoint of new Set(this.#networks.get(name)?.byAddress.values())) {
      this.remove(endpoint.owner, name);
    }
    this.#networks.delete(name);
  }

  /** @throws {NetError} `ERR_ARCBOX_NET_DNS` when a name is none, or the network is not known. */
  add(endpoint: Endpoint): void {
    const network = this.#networks.get(endpoint.network);
    if (network === undefined) {
      throw new NetError('ERR_ARCBOX_NET_DNS', `network ${endpoint.network} has no names yet; add it first`);
    }
    if (endpoint.names.length > NAMES_PER_ENDPOINT_MAX) {
      throw new NetError(
        'ERR_ARCBOX_NET_DNS',
        `${endpoint.owner} has more than ${NAMES_PER_ENDPOINT_MAX} names`,
      );
    }
    const names = new Set(endpoint.names.map((name) => requireName(name)));
    this.remove(endpoint.owner, endpoint.network);
    const kept = { ...endpoint, names: [...names] };
    for (const name of names) network.byName.set(name, [...(network.byName.get(name) ?? []), kept]);
    for (const address of endpoint.addresses) network.byAddress.set(address, kept);
    if (endpoint.mac !== undefined) network.byMac.set(endpoint.mac, kept);
    this.#byOwner.set(endpoint.owner, [...(this.#byOwner.get(endpoint.owner) ?? []), kept]);
  }

  /** Takes the owner's names in one network away. False when it had none. */
  remove(owner: string, network: string): boolean {
    const endpoints = this.#byOwner.get(owner) ?? [];
    const gone = endpoints.find((endpoint) => endpoint.network === network);
    const table = this.#networks.get(network);
    if (gone === undefined || table === undefined) return false;
    const rest = endpoints.filter((endpoint) => endpoint !== gone);
    if (rest.length === 0) this.#byOwner.delete(owner);
    else this.#byOwner.set(owner, rest);
    for (const name of gone.names) {
      const others = (table.byName.get(name) ?? []).filter((endpoint) => endpoint !== gone);
      if (others.length === 0) table.byName.delete(name);
      else table.byName.set(name, others);
    }
    // The next one may have it already.
    for (const address of gone.addresses) {
      if (table.byAddress.get(address) === gone) table.byAddress.delete(address);
    }
    if (gone.mac !== undefined && table.byMac.get(gone.mac) === gone) table.byMac.delete(gone.mac);
    return true;
  }

  /** Who is at an address of a network. */
  endpointAt(network: string, address: string): Endpoint | undefined {
    return this.#networks.get(network)?.byAddress.get(address);
  }

  /** Whose card has this hardware address (`02:42:0a:00:00:02`) in a network. */
  endpointOf(network: string, mac: string): Endpoint | undefined {
    return this.#networks.get(network)?.byMac.get(mac);
  }

  resolve(source: DnsSource, name: string): LocalResult | undefined {
    const reserved = reservedName(name);
    if (reserved !== undefined) return reserved;
    const own = source.network === undefined ? undefined : this.#networks.get(source.network);
    const gateway: LocalResult =
      own === undefined ? { kind: 'no-such-name' } : { kind: 'addresses', addresses: own.gateway };
    if (name === GATEWAY_NAME) return gateway;
    if (HOST_NAMES.includes(name)) {
      const fours = own?.gateway.filter((address) => !address.includes(':')) ?? [];
      return fours.length === 0 ? gateway : { kind: 'addresses', addresses: fours };
    }
    const visible = this.#visibleFrom(source);
    const inside = name.endsWith(`.${LOCAL_DOMAIN}`);
    const short = inside ? name.slice(0, -LOCAL_DOMAIN.length - 1) : name;
    for (const network of visible) {
      const found = this.#find(network, short);
      if (found.length > 0) return { kind: 'addresses', addresses: found.flatMap((each) => each.addresses) };
    }
    // A container of this name comes before it.
    if (name === 'gateway') return gateway;
    if (inside || name === LOCAL_DOMAIN) return { kind: 'no-such-name' };
    return name.endsWith('.arpa') ? this.#pointer(name, visible) : undefined;
  }

  #visibleFrom(source: DnsSource): readonly string[] {
    const { network, address } = source;
    if (network === undefined) return [];
    const owner =
      address === undefined ? undefined : this.#networks.get(network)?.byAddress.get(address)?.owner;
    const others = owner === undefined ? [] : (this.#byOwner.get(owner) ?? []).map((each) => each.network);
    return [...new Set([network, ...others])];
  }

  #find(network: string, name: string): readonly Endpoint[] {
    const table = this.#networks.get(network);
    if (table === undefined) return [];
    const direct = table.byName.get(name);
    if (direct !== undefined) return direct;
    const suffix = `.${network.toLowerCase()}`;
    return name.endsWith(suffix) ? (table.byName.get(name.slice(0, -suffix.length)) ?? []) : [];
  }

  /** Who is at an address, for addresses of ours. */
  #pointer(name: string, visible: readonly string[]): LocalResult | undefined {
    const ip = reversedIp(name);
    if (ip === undefined) return undefined;
    const address = formatIp(ip);
    for (const network of visible) {
      const table = this.#networks.get(network);
      if (table === undefined || !table.subnets.some((block) => cidrContains(block, ip))) continue;
      const proper = table.byAddress.get(address)?.names[0];
      if (proper !== undefined) return { kind: 'pointer', name: `${proper}.${network}` };
      if (table.gateway.includes(address)) return { kind: 'pointer', name: GATEWAY_NAME };
      return { kind: 'no-such-name' };
    }
    return undefined;
  }
}

/** The address that a name of `in-addr.arpa` or `ip6.arpa` is of (RFC 1035 section 3.5, RFC 3596 section 2.5). */
function reversedIp(name: string): IpAddress | undefined {
  const four = /^((?:\d{1,3}\.){4})in-addr\.arpa$/.exec(name)?.[1];
  if (four !== undefined) return parseIp(four.split('.').slice(0, -1).reverse().join('.'));
  const six = /^((?:[0-9a-f]\.){32})ip6\.arpa$/.exec(name)?.[1];
  if (six === undefined) return undefined;
  return { family: 6, value: BigInt(`0x${six.split('.').reverse().join('')}`) };
}

function reservedName(name: string): LocalResult | undefined {
  if (name === 'localhost' || name.endsWith('.localhost')) {
    return { kind: 'addresses', addresses: ['127.0.0.1', '::1'] };
  }
  const top = name.slice(name.lastIndexOf('.') + 1);
  return top === 'invalid' || top === 'onion' ? { kind: 'no-such-name' } : undefined;
}

/** Letters, digits, `_`, `-` and dots: what container names have. */
function requireName(name: string): string {
  const lower = name.toLowerCase();
  const labels = lower.split('.');
  if (lower.length > 253 || !labels.every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label))) {
    throw new NetError('ERR_ARCBOX_NET_DNS', `${JSON.stringify(name)} cannot be a host's name`);
  }
  return lower;
}
