/**
 * The addresses of one IPv4 network: who has which, as plain data that the caller stores.
 *
 * A lease belongs to an owner (any stable text: a container and its network, a client's hardware address) and stays
 * until it is given back. What is free is a bitmap; the search goes on after the last address handed out, so that an
 * address that was just given back, and may still be in somebody's caches, is used again as late as possible.
 */
import { NetError } from '../errors.ts';
import { formatIpv4 } from '../wire/index.ts';
import { cidrSize, requireIp } from './cidr.ts';
import {
  checkOwner,
  exhausted,
  hasAnother,
  requirePoolRange,
  requirePoolSubnet,
  taken,
} from './pool-checks.ts';

/** Largest subnet; its bitmap takes 2 MiB. */
export const PREFIX_MIN = 8;
/** Smallest subnet: two addresses besides the network's and the broadcast one. */
export const PREFIX_MAX = 30;

export interface AddressPoolOptions {
  /** For example `10.88.0.0/16`. */
  readonly subnet: string;
  /** Never leased. Default: the first address after the network's own. */
  readonly gateway?: string;
  /** The part of the subnet that is handed out without being asked for; default: all of it. */
  readonly range?: string;
  /** Never leased either. */
  readonly reserved?: readonly string[];
}

/** What {@link AddressPool.toState} gives and {@link AddressPool.restore} takes; survives JSON. */
export interface AddressPoolState extends AddressPoolOptions {
  readonly version: 1;
  readonly gateway: string;
  /** Owner and address. */
  readonly leases: readonly (readonly [string, string])[];
  /** The address that the next search begins with. */
  readonly next: string;
}

export class AddressPool {
  readonly subnet: string;
  readonly gateway: string;
  readonly prefix: number;
  readonly broadcast: string;
  readonly #options: AddressPoolOptions;
  readonly #base: number;
  readonly #size: number;
  /** A set bit is an address that cannot be handed out. */
  readonly #used: Uint32Array;
  readonly #rangeFirst: number;
  readonly #rangeEnd: number;
  readonly #byOwner = new Map<string, number>();
  readonly #byOffset = new Map<number, string>();
  #next: number;
  #free: number;

  /** @throws {NetError} `ERR_ARCBOX_NET_ADDRESS` when the options do not fit together. */
  constructor(options: AddressPoolOptions) {
    const cidr = requirePoolSubnet(options.subnet, 4, PREFIX_MIN, PREFIX_MAX);
    this.#options = options;
    this.#base = Number(cidr.base);
    this.#size = Number(cidrSize(cidr));
    this.prefix = cidr.prefix;
    this.subnet = options.subnet;
    this.broadcast = formatIpv4(this.#base + this.#size - 1);
    this.gateway = options.gateway ?? formatIpv4(this.#base + 1);
    this.#used = new Uint32Array(Math.ceil(this.#size / 32));
    const range = requirePoolRange(cidr, options.subnet, options.range);
    this.#rangeFirst = Number(range.base) - this.#base;
    this.#rangeEnd = this.#rangeFirst + Number(cidrSize(range));
    this.#next = this.#rangeFirst;
    this.#free = this.#rangeEnd - this.#rangeFirst;
    this.#mark(0);
    this.#mark(this.#size - 1);
    this.#mark(this.#offsetOf(this.gateway, 'gateway'));
    for (const address of options.reserved ?? []) this.#mark(this.#offsetOf(address, 'reserved address'));
  }

  /**
   * The pool as it was.
   *
   * @throws {NetError} `ERR_ARCBOX_NET_STATE` when two leases collide or one is outside.
   */
  static restore(state: AddressPoolState): AddressPool {
    if (state.version !== 1) {
      throw new NetError('ERR_ARCBOX_NET_STATE', `address pool state has version ${state.version}, not 1`);
    }
    const { version: _, leases, next, ...options } = state;
    const pool = new AddressPool(options);
    try {
      for (const [owner, address] of leases) {
        if (pool.#byOwner.has(owner)) throw new Error(`${owner} has two addresses`);
        pool.#take(owner, pool.#offsetOf(address, 'leased address'));
      }
      pool.#next = pool.#offsetOf(next, 'next address');
    } catch (error) {
      throw new NetError(
        'ERR_ARCBOX_NET_STATE',
        `the stored leases of ${state.subnet} contradict each other: ${error instanceof Error ? error.message : error}`,
        { cause: error },
      );
    }
    return pool;
  }

  /** Addresses that can still be leased without being asked for by value. */
  get free(): number {
    return this.#free;
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
    if (wanted === undefined) {
      const offset = held ?? this.#findFree();
      if (held === undefined) this.#take(owner, offset);
      return this.#format(offset);
    }
    const offset = this.#offsetOf(wanted, 'address');
    if (held === offset) return wanted;
    if (held !== undefined) throw hasAnother(owner, this.#format(held), this.subnet, wanted);
    this.#take(owner, offset);
    return wanted;
  }

  /** Gives the owner's address back. False when it had none. */
  release(owner: string): boolean {
    const offset = this.#byOwner.get(owner);
    if (offset === undefined) return false;
    this.#byOwner.delete(owner);
    this.#byOffset.delete(offset);
    this.#used[offset >>> 5] = (this.#used[offset >>> 5] ?? 0) & ~(1 << (offset & 31));
    if (this.#inRange(offset)) this.#free++;
    return true;
  }

  addressOf(owner: string): string | undefined {
    const offset = this.#byOwner.get(owner);
    return offset === undefined ? undefined : this.#format(offset);
  }

  ownerOf(address: string): string | undefined {
    return this.#byOffset.get(this.#offsetOf(address, 'address'));
  }

  /** True when the address can be leased by value. */
  isFree(address: string): boolean {
    return !this.#isUsed(this.#offsetOf(address, 'address'));
  }

  contains(address: string): boolean {
    const offset = Number(requireIp(address).value) - this.#base;
    return !address.includes(':') && offset >= 0 && offset < this.#size;
  }

  /** Owner and address of every lease, in the order they were made. */
  *leases(): IterableIterator<readonly [owner: string, address: string]> {
    for (const [owner, offset] of this.#byOwner) yield [owner, this.#format(offset)];
  }

  toState(): AddressPoolState {
    return {
      ...this.#options,
      version: 1,
      gateway: this.gateway,
      leases: [...this.leases()],
      next: this.#format(this.#next),
    };
  }

  #findFree(): number {
    if (this.#free === 0) throw exhausted(this.#options.range ?? this.subnet, this.size);
    for (let offset = this.#next; ; ) {
      if (offset >= this.#rangeEnd) offset = this.#rangeFirst;
      // A full word is passed in one step.
      if ((offset & 31) === 0 && this.#used[offset >>> 5] === 0xffffffff && offset + 32 <= this.#rangeEnd) {
        offset += 32;
      } else if (this.#isUsed(offset)) {
        offset++;
      } else {
        this.#next = offset + 1 >= this.#rangeEnd ? this.#rangeFirst : offset + 1;
        return offset;
      }
    }
  }

  #take(owner: string, offset: number): void {
    if (this.#isUsed(offset)) throw taken(this.#format(offset), this.#byOffset.get(offset), this.subnet);
    this.#mark(offset);
    this.#byOwner.set(owner, offset);
    this.#byOffset.set(offset, owner);
  }

  #mark(offset: number): void {
    if (this.#isUsed(offset)) return;
    this.#used[offset >>> 5] = (this.#used[offset >>> 5] ?? 0) | (1 << (offset & 31));
    if (this.#inRange(offset)) this.#free--;
  }

  #isUsed(offset: number): boolean {
    return (((this.#used[offset >>> 5] ?? 0) >>> (offset & 31)) & 1) === 1;
  }

  #inRange(offset: number): boolean {
    return offset >= this.#rangeFirst && offset < this.#rangeEnd;
  }

  #offsetOf(address: string, what: string): number {
    const ip = requireIp(address, what);
    const offset = Number(ip.value) - this.#base;
    if (ip.family !== 4 || offset < 0 || offset >= this.#size) {
      throw new NetError(
        'ERR_ARCBOX_NET_ADDRESS',
        `${what} ${address} is not in subnet ${this.#options.subnet}`,
      );
    }
    return offset;
  }

  #format(offset: number): string {
    return formatIpv4(this.#base + offset);
  }
}
