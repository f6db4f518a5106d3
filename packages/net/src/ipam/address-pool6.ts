/**
 * The addresses of one IPv6 network. Such a subnet has more addresses than anybody can count, so what is kept is who
 * has which, and the search goes on after the last address that was handed out, round the range: it ends as soon as it
 * has passed as many addresses as are taken.
 */
import { NetError } from '../errors.ts';
import { cidrSize, formatIp, requireIp } from './cidr.ts';
import {
  checkOwner,
  exhausted,
  hasAnother,
  requirePoolRange,
  requirePoolSubnet,
  taken,
} from './pool-checks.ts';

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
  /** The range, as it was given. */
  readonly #handedOut: string;
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
    const cidr = requirePoolSubnet(options.subnet, 6, PREFIX6_MIN, PREFIX6_MAX);
    this.subnet = options.subnet;
    this.#handedOut = options.range ?? options.subnet;
    this.prefix = cidr.prefix;
    this.#base = cidr.base;
    this.#end = cidr.base + cidrSize(cidr);
    const gateway =
      options.gateway === undefined ? cidr.base + 1n : this.#valueOf(options.gateway, 'gateway');
    this.gateway = formatIp({ family: 6, value: gateway });
    const range = requirePoolRange(cidr, options.subnet, options.range);
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
    checkOwner(owner);
    const held = this.#byOwner.get(owner);
    const value = wanted === undefined ? (held ?? this.#findFree()) : this.#valueOf(wanted, 'address');
    const text = formatIp({ family: 6, value });
    if (held === value) return text;
    if (held !== undefined) throw hasAnother(owner, formatIp({ family: 6, value: held }), this.subnet, text);
    if (this.#byAddress.has(value)) throw taken(text, this.#byAddress.get(value), this.subnet);
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
    throw exhausted(this.#handedOut, this.size);
  }

  #valueOf(address: string, what: string): bigint {
    const { family, value } = requireIp(address, what);
    if (family !== 6 || value < this.#base || value >= this.#end) {
      throw new NetError('ERR_ARCBOX_NET_ADDRESS', `${what} ${address} is not in subnet ${this.subnet}`);
    }
    return value;
  }
}
