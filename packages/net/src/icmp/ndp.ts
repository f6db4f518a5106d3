/** Neighbour discovery (RFC 4861) as a router: advertisements of the network and of our own addresses. */
import { ROUTER_LIFETIME_S } from '../limits.ts';
import type { Arena } from '../memory/arena.ts';
import { type AddressPair, beginPacket, commitPacket, draft, type Hop } from '../stack/hop.ts';
import { putU16, putU32 } from '../wire/bytes.ts';
import { finish } from '../wire/checksum.ts';
import {
  ICMP_CHECKSUM,
  ICMPV6_NEIGHBOUR_ADVERTISEMENT,
  ICMPV6_NEIGHBOUR_SOLICITATION,
  ICMPV6_ROUTER_ADVERTISEMENT,
  NDP_FLAG_OVERRIDE,
  NDP_FLAG_ROUTER,
  NDP_FLAG_SOLICITED,
  NDP_MTU,
  NDP_PREFIX,
  NDP_RDNSS,
  NDP_SOURCE_MAC,
  NDP_TARGET_MAC,
  writeIcmp,
} from '../wire/icmp.ts';
import { PROTOCOL_ICMPV6 } from '../wire/ipv6.ts';

/** Neighbour messages that crossed a router are forged: their hop limit must be this. */
export const NDP_HOP_LIMIT = 255;
const NEIGHBOUR_BYTES = 32;
const ADVERTISEMENT_BYTES: number = 16 + 8 + 8 + 32 + 24;
const INFINITE = 0xffffffff;
/** On-link, and good for making addresses of it (RFC 4862). */
const PREFIX_FLAGS = 0xc0;

export const ALL_NODES: Uint8Array = multicast('ff02', 1);
export const ALL_NODES_MAC: Uint8Array = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);

function multicast(prefix: string, last: number): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes[0] = Number.parseInt(prefix.slice(0, 2), 16);
  bytes[1] = Number.parseInt(prefix.slice(2), 16);
  bytes[15] = last;
  return bytes;
}

/** The link-local address that belongs to a MAC address (RFC 4291 appendix A). */
export function linkLocal(mac: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes[0] = 0xfe;
  bytes[1] = 0x80;
  bytes.set(mac.subarray(0, 3), 8);
  bytes[8] = (bytes[8] as number) ^ 2;
  bytes[11] = 0xff;
  bytes[12] = 0xfe;
  bytes.set(mac.subarray(3, 6), 13);
  return bytes;
}

/** Where solicitations for an address go. */
export function solicitedNode(address: Uint8Array): { address: Uint8Array; mac: Uint8Array } {
  const group = new Uint8Array(16);
  group.set([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]);
  group.set(address.subarray(13, 16), 13);
  return { address: group, mac: Uint8Array.of(0x33, 0x33, 0xff, ...address.subarray(13, 16)) };
}

export class NeighbourDiscovery {
  readonly #arena: Arena;
  readonly #mac: Uint8Array;

  constructor(arena: Arena, mac: Uint8Array) {
    this.#arena = arena;
    this.#mac = mac;
  }

  /** "I have `target`." `solicited`: somebody asked. */
  advertise(hop: Hop, pair: AddressPair, target: Uint8Array, solicited: boolean): void {
    const flags = NDP_FLAG_ROUTER | NDP_FLAG_OVERRIDE | (solicited ? NDP_FLAG_SOLICITED : 0);
    this.#neighbour(hop, pair, ICMPV6_NEIGHBOUR_ADVERTISEMENT, (flags << 24) >>> 0, target, NDP_TARGET_MAC);
  }

  /** "Who has `target`?" */
  solicit(hop: Hop, pair: AddressPair, target: Uint8Array): void {
    this.#neighbour(hop, pair, ICMPV6_NEIGHBOUR_SOLICITATION, 0, target, NDP_SOURCE_MAC);
  }

  /** The router, its network, its MTU and its name server. */
  advertiseRouter(
    hop: Hop,
    pair: AddressPair,
    prefix: Uint8Array,
    prefixLength: number,
    dns: Uint8Array,
    mtu: number,
  ): void {
    const { bytes } = this.#arena;
    if (!beginPacket(hop, this.#mac, pair, PROTOCOL_ICMPV6, ADVERTISEMENT_BYTES, 0, 0, NDP_HOP_LIMIT)) return;
    const { upper } = draft;
    let at = writeIcmp(bytes, upper, ICMPV6_ROUTER_ADVERTISEMENT, 0, (64 << 24) | ROUTER_LIFETIME_S);
    putU32(bytes, at, 0); // reachable time: unspecified
    putU32(bytes, at + 4, 0);
    at += 8;
    at = this.#macOption(at, NDP_SOURCE_MAC);
    bytes[at] = NDP_MTU;
    bytes[at + 1] = 1;
    putU16(bytes, at + 2, 0);
    putU32(bytes, at + 4, mtu);
    at += 8;
    bytes[at] = NDP_PREFIX;
    bytes[at + 1] = 4;
    bytes[at + 2] = prefixLength;
    bytes[at + 3] = PREFIX_FLAGS;
    putU32(bytes, at + 4, INFINITE);
    putU32(bytes, at + 8, INFINITE);
    putU32(bytes, at + 12, 0);
    bytes.set(prefix, at + 16);
    at += 32;
    bytes[at] = NDP_RDNSS;
    bytes[at + 1] = 3;
    putU16(bytes, at + 2, 0);
    putU32(bytes, at + 4, ROUTER_LIFETIME_S);
    bytes.set(dns, at + 8);
    this.#seal(hop, ADVERTISEMENT_BYTES);
  }

  #neighbour(
    hop: Hop,
    pair: AddressPair,
    type: number,
    flags: number,
    target: Uint8Array,
    option: number,
  ): void {
    const { bytes } = this.#arena;
    if (!beginPacket(hop, this.#mac, pair, PROTOCOL_ICMPV6, NEIGHBOUR_BYTES, 0, 0, NDP_HOP_LIMIT)) return;
    const at = writeIcmp(bytes, draft.upper, type, 0, flags);
    bytes.set(target, at);
    this.#macOption(at + 16, option);
    this.#seal(hop, NEIGHBOUR_BYTES);
  }

  #macOption(at: number, option: number): number {
    const { bytes } = this.#arena;
    bytes[at] = option;
    bytes[at + 1] = 1;
    bytes.set(this.#mac, at + 2);
    return at + 8;
  }

  #seal(hop: Hop, length: number): void {
    const { bytes, kernels } = this.#arena;
    putU16(bytes, draft.upper + ICMP_CHECKSUM, finish(draft.pseudo + kernels.sum(draft.upper, length)));
    commitPacket(hop, length);
  }
}
