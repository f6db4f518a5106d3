/**
 * How machines of a network and its gateway find each other: ARP, neighbour discovery and router advertisements, both
 * asking and answering.
 */
import { ALL_NODES, ALL_NODES_MAC, NDP_HOP_LIMIT, NeighbourDiscovery, solicitedNode } from '../icmp/ndp.ts';
import { ROUTER_ADVERTISEMENT_INTERVAL_MS } from '../limits.ts';
import { ipBytes, ipText, isMapped4 } from '../wire/address.ts';
import {
  ARP_BYTES,
  ARP_OPERATION,
  ARP_REPLY,
  ARP_REQUEST,
  ARP_SENDER_IP,
  ARP_SENDER_MAC,
  ARP_TARGET_IP,
  isArp,
  writeArp,
} from '../wire/arp.ts';
import { u16, u32 } from '../wire/bytes.ts';
import { ETH_HEADER_BYTES, ETHERTYPE_ARP, VLAN_TAG_BYTES, writeEthernet } from '../wire/ethernet.ts';
import {
  ICMPV6_NEIGHBOUR_ADVERTISEMENT,
  ICMPV6_NEIGHBOUR_SOLICITATION,
  ICMPV6_ROUTER_SOLICITATION,
  NDP_NEIGHBOUR_BYTES,
  NDP_TARGET,
} from '../wire/icmp.ts';
import { IPV6_HOP_LIMIT } from '../wire/ipv6.ts';
import type { Attachment, StackEnvironment } from './environment.ts';
import type { Hop } from './hop.ts';
import { Neighbours } from './neighbours.ts';
import type { OwnAddresses } from './own-addresses.ts';
import { addressOf, hopOf, type Packet } from './packet.ts';
import { Timed } from './timer-wheel.ts';

const BROADCAST_MAC = new Uint8Array(6).fill(0xff);

export interface NeighbourhoodOptions {
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly own: OwnAddresses;
  /** Where the machines are; it changes. */
  readonly attachments: readonly Attachment[];
  /** Whether machines are told to make themselves IPv6 addresses. */
  readonly advertises: boolean;
  readonly environment: StackEnvironment;
}

export class Neighbourhood {
  readonly neighbours: Neighbours;
  readonly #mac: Uint8Array;
  readonly #mtu: number;
  readonly #own: OwnAddresses;
  readonly #attachments: readonly Attachment[];
  readonly #environment: StackEnvironment;
  readonly #discovery: NeighbourDiscovery;
  readonly #advertises: boolean;
  readonly #advertisements: Timed | undefined;

  constructor({ mac, mtu, own, attachments, advertises, environment }: NeighbourhoodOptions) {
    const { arena, clock, wheel } = environment;
    this.#mac = mac;
    this.#mtu = mtu;
    this.#own = own;
    this.#attachments = attachments;
    this.#environment = environment;
    this.#discovery = new NeighbourDiscovery(arena, mac);
    this.neighbours = new Neighbours(
      wheel,
      () => clock.nowMs(),
      (address) => this.#ask(address),
    );
    this.#advertises = advertises;
    if (advertises && own.gateway(6) !== undefined) {
      this.#advertisements = new Advertiser(() => this.#advertiseToAll());
      wheel.set(this.#advertisements, clock.nowMs() + ROUTER_ADVERTISEMENT_INTERVAL_MS);
    }
  }

  /** False: it is malformed. */
  arp(packet: Packet, end: number): boolean {
    const { bytes } = this.#environment.arena;
    const at = packet.ip;
    if (!isArp(bytes, at, end)) return false;
    const sender = u32(bytes, at + ARP_SENDER_IP);
    const target = u32(bytes, at + ARP_TARGET_IP);
    const hop: Hop = {
      port: packet.port,
      vlan: packet.vlan,
      mac: bytes.slice(at + ARP_SENDER_MAC, at + ARP_SENDER_MAC + 6),
    };
    packet.readAddresses(4, bytes, at + ARP_SENDER_IP);
    packet.destination3 = sender | 0;
    if (sender !== 0 && this.#own.isLocal(packet)) {
      this.neighbours.learn(
        `${sender >>> 24}.${(sender >>> 16) & 255}.${(sender >>> 8) & 255}.${sender & 255}`,
        hop,
      );
    }
    if (u16(bytes, at + ARP_OPERATION) !== ARP_REQUEST) return true;
    if (!this.#own.ours.some((own) => isMapped4(own) && u32(own, 12) === target)) return true;
    this.#sendArp(hop, ARP_REPLY, target, hop.mac, sender);
    return true;
  }

  /** Neighbour discovery: a message whose checksum is right. */
  ndp(packet: Packet): void {
    const { bytes } = this.#environment.arena;
    const { upper, end, ip } = packet;
    if (bytes[ip + IPV6_HOP_LIMIT] !== NDP_HOP_LIMIT) return;
    const type = bytes[upper] as number;
    const length = end - upper;
    const hop = hopOf(bytes, packet);
    const asker = addressOf(bytes, packet, 0);
    const anonymous = asker.every((byte) => byte === 0);
    // Who has no address yet (duplicate address detection) is answered together with all.
    const back = { version: 6 as const, destination: anonymous ? ALL_NODES : asker };
    if (type === ICMPV6_ROUTER_SOLICITATION) {
      if (!this.#advertises) return;
      this.#advertise(anonymous ? { ...hop, mac: ALL_NODES_MAC } : hop, back.destination);
    } else if (type === ICMPV6_NEIGHBOUR_SOLICITATION && length >= NDP_NEIGHBOUR_BYTES) {
      const target = bytes.slice(upper + NDP_TARGET, upper + NDP_NEIGHBOUR_BYTES);
      if (!anonymous) this.learn(packet);
      if (!this.#own.has(target)) return;
      this.#discovery.advertise(hop, { ...back, source: target }, target, !anonymous);
    } else if (type === ICMPV6_NEIGHBOUR_ADVERTISEMENT && length >= NDP_NEIGHBOUR_BYTES) {
      if (!isMapped4(bytes, upper + NDP_TARGET))
        this.neighbours.learn(ipText(bytes, upper + NDP_TARGET), hop);
    }
  }

  /** Where the packet comes from is where its sender is, if that is in the network. */
  learn(packet: Packet): void {
    const { bytes } = this.#environment.arena;
    const source = addressOf(bytes, packet, 0);
    if (this.#own.covers(packet.version, source)) this.neighbours.learn(ipText(source), hopOf(bytes, packet));
  }

  /** Advertises no more. */
  close(): void {
    if (this.#advertisements !== undefined) this.#environment.wheel.clear(this.#advertisements);
  }

  #sendArp(hop: Hop, operation: number, from: number, mac: Uint8Array, to: number): void {
    const size = ETH_HEADER_BYTES + VLAN_TAG_BYTES + ARP_BYTES;
    const frame = hop.port.reserve(size);
    if (frame < 0) return;
    const { bytes } = this.#environment.arena;
    const at = writeEthernet(bytes, frame, hop.mac, this.#mac, hop.vlan, ETHERTYPE_ARP);
    hop.port.commit(writeArp(bytes, at, operation, this.#mac, from, mac, to) - frame);
  }

  #ask(address: string): void {
    const target = ipBytes(address);
    const version = isMapped4(target) ? 4 : 6;
    const own = this.#own.gateway(version);
    if (own === undefined) return;
    for (const { port, vlan } of this.#attachments) {
      if (version === 4) {
        const hop = { port, vlan, mac: BROADCAST_MAC };
        this.#sendArp(hop, ARP_REQUEST, u32(own.address, 12), new Uint8Array(6), u32(target, 12));
      } else {
        const group = solicitedNode(target);
        const pair = { version, source: this.#own.linkLocal, destination: group.address } as const;
        this.#discovery.solicit({ port, vlan, mac: group.mac }, pair, target);
      }
      port.flush();
    }
  }

  #advertise(hop: Hop, destination: Uint8Array): void {
    for (const { version, address, prefixLength } of this.#own.gateways) {
      if (version === 4) continue;
      const prefix = address.map(
        (byte, i) => byte & (0xff00 >>> Math.max(0, Math.min(8, prefixLength - 8 * i))) & 0xff,
      );
      const pair = { version, source: this.#own.linkLocal, destination };
      this.#discovery.advertiseRouter(hop, pair, prefix, prefixLength, address, this.#mtu);
    }
  }

  #advertiseToAll(): void {
    const { wheel, clock } = this.#environment;
    for (const { port, vlan } of this.#attachments) {
      this.#advertise({ port, vlan, mac: ALL_NODES_MAC }, ALL_NODES);
      port.flush();
    }
    if (this.#advertisements !== undefined) {
      wheel.set(this.#advertisements, clock.nowMs() + ROUTER_ADVERTISEMENT_INTERVAL_MS);
    }
  }
}

class Advertiser extends Timed {
  readonly #then: () => void;

  constructor(then: () => void) {
    super();
    this.#then = then;
  }

  expired(): void {
    this.#then();
  }
}
