/**
 * The connections that pass: columns of numbers rather than objects, so that nothing is allocated for a packet and a
 * connection takes 40 bytes. Two hash tables of chains find a connection from either side.
 *
 * A connection is an endpoint inside (address, port), the port that stands for it outside, and an endpoint of the
 * world. An echo has its identifier for a port inside and outside, and 0 for the world's.
 */
import { PROTOCOL_ICMP, PROTOCOL_TCP } from '../wire/index.ts';
import { EVICT_SEARCH_MAX, SWEEP_ENTRIES, TIMEOUT_S } from './limits.ts';

export const State = {
  free: 0,
  opening: 1,
  established: 2,
  halfClosed: 3,
  closing: 4,
  closed: 5,
  datagram: 6,
  datagrams: 7,
  echo: 8,
} as const;

/** By state. */
const TIMEOUTS_S = Uint32Array.of(
  0,
  TIMEOUT_S.opening,
  TIMEOUT_S.established,
  TIMEOUT_S.halfClosed,
  TIMEOUT_S.closing,
  TIMEOUT_S.closed,
  TIMEOUT_S.datagram,
  TIMEOUT_S.datagrams,
  TIMEOUT_S.echo,
);

/** Seen bits: SYN and FIN of either side. */
export const Seen = { synOut: 1, synIn: 2, finOut: 4, finIn: 8 } as const;

/** Spreads three words over 32 bits; the low bits are good. */
export function mix(a: number, b: number, c: number): number {
  let hash = Math.imul(a ^ Math.imul(b, 0x9e3779b1), 0x85ebca6b) ^ Math.imul(c, 0xc2b2ae35);
  hash ^= hash >>> 15;
  hash = Math.imul(hash, 0x2c1b3c6d);
  return hash ^ (hash >>> 13);
}

export class ConnectionTable {
  readonly size: number;
  /** Signed, as all words here: they are compared, never calculated with. */
  readonly inside: Int32Array;
  readonly remote: Int32Array;
  /** Inside port above, the world's below. */
  readonly ports: Int32Array;
  readonly outsidePort: Uint16Array;
  readonly protocol: Uint8Array;
  readonly state: Uint8Array;
  readonly seen: Uint8Array;
  readonly lastS: Uint32Array;
  /** What going out adds to the one's complement sums of the IP header and of the upper layer. */
  readonly deltaIp: Uint16Array;
  readonly deltaUpper: Uint16Array;
  readonly #outHeads: Int32Array;
  readonly #inHeads: Int32Array;
  readonly #outNext: Int32Array;
  readonly #inNext: Int32Array;
  /** A stack. */
  readonly #free: Int32Array;
  readonly #mask: number;
  readonly #onRemove: (entry: number) => void;
  #freeCount: number;
  #hand = 0;

  /** `size` is a power of two. */
  constructor(size: number, onRemove: (entry: number) => void) {
    this.size = size;
    this.inside = new Int32Array(size);
    this.remote = new Int32Array(size);
    this.ports = new Int32Array(size);
    this.outsidePort = new Uint16Array(size);
    this.protocol = new Uint8Array(size);
    this.state = new Uint8Array(size);
    this.seen = new Uint8Array(size);
    this.lastS = new Uint32Array(size);
    this.deltaIp = new Uint16Array(size);
    this.deltaUpper = new Uint16Array(size);
    this.#mask = size * 2 - 1;
    this.#outHeads = new Int32Array(size * 2).fill(-1);
    this.#inHeads = new Int32Array(size * 2).fill(-1);
    this.#outNext = new Int32Array(size);
    this.#inNext = new Int32Array(size);
    this.#free = Int32Array.from({ length: size }, (_, index) => size - 1 - index);
    this.#freeCount = size;
    this.#onRemove = onRemove;
  }

  get used(): number {
    return this.size - this.#freeCount;
  }

  findOut(protocol: number, inside: number, remote: number, ports: number): number {
    let entry = this.#outHeads[mix(inside, remote, ports ^ protocol) & this.#mask] as number;
    while (entry >= 0) {
      if (
        this.inside[entry] === inside &&
        this.remote[entry] === remote &&
        this.ports[entry] === ports &&
        this.protocol[entry] === protocol
      ) {
        return entry;
      }
      entry = this.#outNext[entry] as number;
    }
    return -1;
  }

  findIn(protocol: number, outsidePort: number, remote: number, remotePort: number): number {
    const ports = (outsidePort << 16) | remotePort;
    let entry = this.#inHeads[mix(0, remote, ports ^ protocol) & this.#mask] as number;
    while (entry >= 0) {
      if (
        this.outsidePort[entry] === outsidePort &&
        this.remote[entry] === remote &&
        ((this.ports[entry] as number) & 0xffff) === remotePort &&
        this.protocol[entry] === protocol
      ) {
        return entry;
      }
      entry = this.#inNext[entry] as number;
    }
    return -1;
  }

  /** A new connection, or -1 when the table is full of those that must stay. */
  add(
    protocol: number,
    inside: number,
    remote: number,
    ports: number,
    outsidePort: number,
    nowS: number,
  ): number {
    if (this.#freeCount === 0 && !this.#evict(nowS)) return -1;
    this.#freeCount--;
    const entry = this.#free[this.#freeCount] as number;
    this.inside[entry] = inside;
    this.remote[entry] = remote;
    this.ports[entry] = ports;
    this.outsidePort[entry] = outsidePort;
    this.protocol[entry] = protocol;
    this.seen[entry] = 0;
    this.lastS[entry] = nowS;
    this.state[entry] =
      protocol === PROTOCOL_TCP ? State.opening : protocol === PROTOCOL_ICMP ? State.echo : State.datagram;
    const out = mix(inside, remote, ports ^ protocol) & this.#mask;
    this.#outNext[entry] = this.#outHeads[out] as number;
    this.#outHeads[out] = entry;
    const back = mix(0, remote, ((outsidePort << 16) | (ports & 0xffff)) ^ protocol) & this.#mask;
    this.#inNext[entry] = this.#inHeads[back] as number;
    this.#inHeads[back] = entry;
    return entry;
  }

  remove(entry: number): void {
    const protocol = this.protocol[entry] as number;
    const remote = this.remote[entry] as number;
    const ports = this.ports[entry] as number;
    const outsidePort = this.outsidePort[entry] as number;
    unlink(
      this.#outHeads,
      this.#outNext,
      mix(this.inside[entry] as number, remote, ports ^ protocol) & this.#mask,
      entry,
    );
    const back = mix(0, remote, ((outsidePort << 16) | (ports & 0xffff)) ^ protocol) & this.#mask;
    unlink(this.#inHeads, this.#inNext, back, entry);
    this.#onRemove(entry);
    // No protocol has this number on our paths: whoever still points here does not find what it looks for.
    this.protocol[entry] = 0;
    this.state[entry] = State.free;
    this.#free[this.#freeCount] = entry;
    this.#freeCount++;
  }

  /** Looks at a part of the table and forgets what has expired. To be called once a second. */
  sweep(nowS: number): void {
    const end = this.#hand + Math.min(SWEEP_ENTRIES, this.size);
    for (; this.#hand < end; this.#hand++) {
      const entry = this.#hand & (this.size - 1);
      if (this.state[entry] !== State.free && this.#expired(entry, nowS)) this.remove(entry);
    }
    this.#hand &= this.size - 1;
  }

  #expired(entry: number, nowS: number): boolean {
    return nowS - (this.lastS[entry] as number) >= (TIMEOUTS_S[this.state[entry] as number] as number);
  }

  /** Makes room: one that has expired, else the one that is nearest to it of those seen. Never one that is established. */
  #evict(nowS: number): boolean {
    let best = -1;
    let bestLeftS = Infinity;
    for (let i = 0; i < EVICT_SEARCH_MAX; i++) {
      this.#hand = (this.#hand + 1) & (this.size - 1);
      const entry = this.#hand;
      const state = this.state[entry] as number;
      if (state === State.established) continue;
      const leftS = (TIMEOUTS_S[state] as number) - (nowS - (this.lastS[entry] as number));
      if (leftS < bestLeftS) {
        best = entry;
        bestLeftS = leftS;
      }
      if (leftS <= 0) break;
    }
    if (best < 0) return false;
    this.remove(best);
    return true;
  }
}

function unlink(heads: Int32Array, next: Int32Array, slot: number, entry: number): void {
  if (heads[slot] === entry) {
    heads[slot] = next[entry] as number;
    return;
  }
  for (let at = heads[slot] as number; at >= 0; at = next[at] as number) {
    if (next[at] === entry) {
      next[at] = next[entry] as number;
      return;
    }
  }
}
