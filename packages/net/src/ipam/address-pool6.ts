/**
 * The addresses of one IPv6 network. Such a subnet has more addresses than anybody can count, so what is kept is who
 * has which, and the search goes on after the last address that was handed out, round the range: it ends as soon as it
 * has passed as many addresses as are taken.
 */
import { NetError } from '../errors.ts';
import { OWNER_LENGTH_MAX } from './address-pool.ts';
import { cidrContains, cidrSize, formatIp, requireCidr, requireIp } from './cidr.ts';

/** Largest and smallest subnet. */
export const PREFIX6_MIN = 8;
export const PREFIX6_MAX = 126;

export interface AddressPool6Options {
  /** For example `fd00:1::/64`. */
  readonly subnet: string;
  /** Never leased. Default: the first address after the subnet's own, which belongs to its routers (RFC 4291, 2.6.1). */
  readonly gateway?: string;
  /** The part of the subnet that is handed out without being asked for; default: all of it. */
  readonly range?: string;
}

export class AddressPool6 {
  readonly subnet: string;
  readonly gateway: string;
  readonly prefix: number;
  readonly #base: bigint;
  readonly #end: bigint;
  readonly #rangeFirst: bigint;
  readonly #rangeEnd: bigint;
  readonly #byOwner = new Map<string, bigint>();
  /** Undefined: nobody's for ever. */
  readonly #byAddress = new Map<bigint, string | undefined>();
  #next: bigint;

  /** @throws {NetError} `ERR_ARCBOX_NET_ADDRESS` when the options do not fit together. */
  constructor(options: AddressPool6Options) {
    const cidr = requireCidr(options.subnet);
    if (cidr.family !== 6 || cidr.prefix < PREFIX6_MIN || cidr.prefix > PREFIX6_MAX) {
      throw new NetError(
        'ERR_ARCBOX_NET_ADDRESS',
        `subnet ${options.subnet} cannot be a pool; it must be IPv6 with a prefix of ${PREFIX6_MIN} to ${PREFIX6_MAX}`,
      );
    }
    this.subnet = options.subnet;
    this.prefix = cidr.prefix;
    this.#base = cidr.base;
    this.#end = cidr.base + cidrSize(cidr);
    const gateway =
      options.gateway === undefined ? cidr.base + 1n : this.#valueOf(options.gateway, 'gateway');
    this.gateway = formatIp({ family: 6, value: gateway });
    const range = requireCidr(options.range ?? options.subnet, 'range');
    if (range.prefix < cidr.prefix || !cidrContains(cidr, { family: range.family, value: range.base })) {
      throw new NetError(
        'ERR_ARCBOX_NET_ADDRESS',
        `range ${options.range} is not in subnet ${options.subnet}`,
      );
    }
    this.#rangeFirst = range.base;
    this.#rangeEnd = range.base + cidrSize(range);
    this.#next = range.base;
    this.#byAddress.set(cidr.base, undefined);
    this.#byAddress.set(gateway, undefined);
  }

  get size(): number {
    return this.#byOwner.size;
  }

  /**
   * The owner's address: the one it has, else `wanted`, else the next free one.
   *
   * @throws {NetError} `…_EXHAUSTED`; `…_ADDRESS_TAKEN` when another owner has `wanted`, or the pool keeps it;
   *   `…_ADDRESS` when `wanted` is not in the subnet, or the owner has another one.
   */
  lease(owner: string, wanted?: string): string {
    if (owner.length === 0 || owner.length > OWNER_LENGTH_MAX) {
      throw new NetError('ERR_ARCBOX_NET_ADDRESS', `an owner's name has 1 to ${OWNER_LENGTH_MAX} characters`);
    }
    const held = this.#byOwner.get(owner);
    const value = wanted === undefined ? (held ?? this.#findFree()) : this.#valueOf(wanted, 'address');
    const text = formatIp({ family: 6, value });
    if (held === value) return text;
    if (held !== undefined) {
      throw new NetError(
        'ERR_ARCBOX_NET_ADDRESS',
        `${owner} has ${formatIp({ family: 6, value: held })} in ${this.subnet}; give it back before asking for ${text}`,
      );
    }
    if (this.#byAddress.has(value)) {
      const holder = this.#byAddress.get(value);
      throw new NetError(
        'ERR_ARCBOX_NET_ADDRESS_TAKEN',
        `${text} is ${holder === undefined ? `reserved in ${this.subnet}` : `leased to ${holder}`}`,
      );
    }
    this.#byOwner.set(owner, value);
    this.#byAddress.set(value, owner);
    return text;
  }

  /** Gives the owner's address back. False when it had none. */
  release(owner: string): boolean {
    const value = this.#byOwner.get(owner);
    if (value === undefined) return false;
    this.#byOwner.delete(owner);
    this.#byAddress.delete(value);
    return true;
  }

  #findFree(): bigint {
    let value = this.#next;
    // One more than can be taken of the range.
    for (let passed = 0; passed <= this.#byAddress.size; passed += 1) {
      if (value >= this.#rangeEnd) value = this.#rangeFirst;
      if (!this.#byAddress.has(value)) {
        this.#next = value + 1n;
        return value;
      }
      value += 1n;
    }
    throw new NetError(
      'ERR_ARCBOX_NET_EXHAUSTED',
      `no address is left in ${this.subnet} (${this.size} are leased); remove what is not needed, or make a network with a larger subnet`,
    );
  }

  #valueOf(address: string, what: string): bigint {
    const { family, value } = requireIp(address, what);
    if (family !== 6 || value < this.#base || value >= this.#end) {
      throw new NetError('ERR_ARCBOX_NET_ADDRESS', `${what} ${address} is not in subnet ${this.subnet}`);
    }
    return value;
  }
}
