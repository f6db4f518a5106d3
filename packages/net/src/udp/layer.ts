/**
 * UDP of a network: services on the gateway's addresses, and flows that are relayed to the host, one connected socket
 * each, so that an answer comes only from whom was asked and a refusal is heard. A flow ends when it has been idle.
 */
import {
  UDP_FLOWS_MAX,
  UDP_FLOWS_PER_MAC_MAX,
  UDP_IDLE_MS,
  UDP_PENDING_MAX,
  UDP_UNANSWERED_IDLE_MS,
} from '../limits.ts';
import type { Port } from '../link/port.ts';
import type { Arena } from '../memory/arena.ts';
import type { Clock, Randomness } from '../stack/clock.ts';
import { FlowTable } from '../stack/flow-table.ts';
import { type AddressPair, beginPacket, commitPacket, draft, type Hop } from '../stack/hop.ts';
import type { HostDatagramEvents, HostDatagrams } from '../stack/host-network.ts';
import { addressOf, FlowKey, hopOf, KEY_WORDS, type Packet, pseudoSum } from '../stack/packet.ts';
import { macKey, Quota } from '../stack/quota.ts';
import { Timed, type TimerWheel } from '../stack/timer-wheel.ts';
import { i32, putU16, u16 } from '../wire/bytes.ts';
import { finish, fold } from '../wire/checksum.ts';
import { ETH_SOURCE } from '../wire/ethernet.ts';
import { IPV4_HEADER_BYTES, IPV4_MORE_FRAGMENTS, PROTOCOL_UDP } from '../wire/ipv4.ts';
import { IPV6_FRAGMENT_BYTES, IPV6_HEADER_BYTES, NEXT_FRAGMENT } from '../wire/ipv6.ts';
import { isUdp, UDP_CHECKSUM, UDP_HEADER_BYTES, UDP_LENGTH, writeUdp } from '../wire/udp.ts';

/** Ports that flows of ours begin at. */
const EPHEMERAL_FIRST = 32_768;
const EPHEMERAL_COUNT = 28_232;
const EPHEMERAL_TRIES = 64;

/** A datagram for a service. */
export interface Datagram {
  /** Where it came from, and where an answer goes as a rule. */
  readonly hop: Hop;
  readonly version: 4 | 6;
  /** 16 bytes, IPv4 mapped; as it came, so `destination` may be a broadcast. */
  readonly source: Uint8Array;
  readonly sourcePort: number;
  readonly destination: Uint8Array;
  readonly destinationPort: number;
  /** Good for this call only. */
  readonly payload: Uint8Array;
}

export type DatagramHandler = (datagram: Datagram) => void;

/** Where a relayed flow goes: asked once. */
export interface UdpOpener {
  /** Calls `open` with what makes the host's end, at once or later; or `drop`. `packet` is good for the call only. */
  incomingUdp(flow: UdpFlow, packet: Packet): void;
  /** Nobody listens at the flow's destination. */
  refused(flow: UdpFlow): void;
}

export interface UdpLayerOptions {
  readonly arena: Arena;
  readonly clock: Clock;
  readonly random: Randomness;
  readonly wheel: TimerWheel;
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly opener: UdpOpener;
}

/** A machine's address and port, and a peer's. */
export class UdpFlow extends Timed implements HostDatagramEvents {
  readonly layer: UdpLayer;
  readonly key: Int32Array = new Int32Array(KEY_WORDS);
  readonly hop: Hop;
  /** From the peer to the machine. */
  readonly pair: AddressPair;
  readonly peerPort: number;
  readonly machinePort: number;
  #host: HostDatagrams | undefined;
  #pending: Uint8Array[] | undefined = [];
  #idleMs = UDP_UNANSWERED_IDLE_MS;
  #closed = false;
  /** The MAC address that it counts for; undefined: we began it. */
  openedBy: number | undefined;
  /** Payload from the machine, and to it. */
  bytesIn = 0;
  bytesOut = 0;
  readonly beganMs: number;

  constructor(layer: UdpLayer, hop: Hop, pair: AddressPair, ports: number) {
    super();
    this.layer = layer;
    this.hop = hop;
    this.pair = pair;
    this.machinePort = ports >>> 16;
    this.peerPort = ports & 0xffff;
    this.beganMs = layer.nowMs();
  }

  get state(): 'dialing' | 'open' | 'denied' {
    if (this.#host !== undefined) return 'open';
    return this.#pending === undefined ? 'denied' : 'dialing';
  }

  /** Idle for so long after `nowMs`, it ends. */
  idleAt(nowMs: number): number {
    return nowMs + this.#idleMs;
  }

  /** From the machine. */
  send(payload: Uint8Array): void {
    this.bytesIn += payload.length;
    if (this.#host !== undefined) this.#host.send(payload);
    else if (this.#pending !== undefined && this.#pending.length < UDP_PENDING_MAX) {
      this.#pending.push(payload.slice());
    }
  }

  open(connect: (events: HostDatagramEvents) => HostDatagrams): void {
    if (this.#closed) return;
    this.#host = connect(this);
    const pending = this.#pending ?? [];
    this.#pending = undefined;
    for (const payload of pending) this.#host.send(payload);
  }

  /** Denied: the flow stays for its idle time, so that the question is not asked again for every datagram. */
  drop(): void {
    this.#pending = undefined;
  }

  datagram(payload: Uint8Array): void {
    if (this.#closed) return;
    this.#idleMs = UDP_IDLE_MS;
    this.bytesOut += payload.length;
    this.layer.flowActive(this);
    this.layer.send(this.hop, this.pair, this.peerPort, this.machinePort, payload);
    this.hop.port.flush();
  }

  refused(): void {
    if (!this.#closed) this.layer.flowRefused(this);
  }

  failed(): void {
    if (!this.#closed) this.layer.remove(this);
  }

  expired(): void {
    this.layer.remove(this);
  }

  close(): void {
    this.#closed = true;
    this.#host?.close();
    this.#host = undefined;
    this.#pending = undefined;
  }
}

export class UdpLayer {
  readonly counters = { malformed: 0, badChecksums: 0, flows: 0, dropped: 0 };
  readonly #options: UdpLayerOptions;
  readonly #services = new Map<number, DatagramHandler>();
  readonly #flows: FlowTable<UdpFlow>;
  readonly #flowsOf = new Quota(UDP_FLOWS_PER_MAC_MAX);
  readonly #key = new FlowKey();
  #id: number;

  constructor(options: UdpLayerOptions) {
    this.#options = options;
    this.#flows = new FlowTable(UDP_FLOWS_MAX, options.random.u32());
    this.#id = options.random.u32();
  }

  get size(): number {
    return this.#flows.size;
  }

  nowMs(): number {
    return this.#options.clock.nowMs();
  }

  flows(): IterableIterator<UdpFlow> {
    return this.#flows.values();
  }

  /** Handles datagrams to `port` of the gateway, and broadcasts to it. The latest one counts. */
  bind(port: number, handler: DatagramHandler): Disposable {
    this.#services.set(port, handler);
    return {
      [Symbol.dispose]: () => {
        if (this.#services.get(port) === handler) this.#services.delete(port);
      },
    };
  }

  /** `toUs`: the destination is the gateway or everybody. `relayed`: it may be handed to the host. */
  input(packet: Packet, toUs: boolean, relayed: boolean): void {
    const { bytes, kernels } = this.#options.arena;
    const udp = packet.upper;
    if (!isUdp(bytes, udp, packet.end)) {
      this.counters.malformed += 1;
      return;
    }
    const length = u16(bytes, udp + UDP_LENGTH);
    const given = u16(bytes, udp + UDP_CHECKSUM);
    // Zero means that there is none, in IPv4 only (RFC 8200 section 8.1).
    const summed = given === 0 ? -1 : fold(pseudoSum(bytes, packet, length) + kernels.sum(udp, length));
    if (summed !== 0xffff && (given !== 0 || packet.version === 6)) {
      this.counters.badChecksums += 1;
      return;
    }
    const payload = bytes.subarray(udp + UDP_HEADER_BYTES, udp + length);
    const ports = i32(bytes, udp);
    if ((ports & 0xffff) === 0) {
      // Nobody can be there, and the host's sockets take no such port.
      this.counters.malformed += 1;
      return;
    }
    if (toUs) {
      const service = this.#services.get(ports & 0xffff);
      if (service !== undefined) {
        service({
          hop: hopOf(bytes, packet),
          version: packet.version,
          source: addressOf(bytes, packet, 0),
          sourcePort: ports >>> 16,
          destination: addressOf(bytes, packet, 1),
          destinationPort: ports & 0xffff,
          payload,
        });
        return;
      }
    }
    if (!relayed) return;
    let flow = this.#flows.find(packet, ports);
    if (flow === undefined) {
      flow = this.#open(packet, ports);
      if (flow === undefined) return;
    }
    this.flowActive(flow);
    flow.send(payload);
  }

  /** Sends a datagram, in fragments when it is larger than the link takes. False when the machine reads too slowly. */
  send(
    hop: Hop,
    pair: AddressPair,
    sourcePort: number,
    destinationPort: number,
    payload: Uint8Array,
  ): boolean {
    const { arena, mac, mtu } = this.#options;
    const length = UDP_HEADER_BYTES + payload.length;
    const header = pair.version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    if (header + length > mtu) return this.#sendFragments(hop, pair, sourcePort, destinationPort, payload);
    if (!beginPacket(hop, mac, pair, PROTOCOL_UDP, length)) return false;
    const { upper, pseudo } = draft;
    arena.bytes.set(payload, writeUdp(arena.bytes, upper, sourcePort, destinationPort, payload.length));
    const check = finish(pseudo + arena.kernels.sum(upper, length));
    putU16(arena.bytes, upper + UDP_CHECKSUM, check === 0 ? 0xffff : check);
    commitPacket(hop, length);
    return true;
  }

  /**
   * Begins a flow with a machine: from `ours` (and a port of ours) to `port` of `theirs`, 16 bytes each. What the machine
   * answers goes to what `open` of the flow makes. `undefined` when no port is free, or no room.
   */
  connect(hop: Hop, version: 4 | 6, ours: Uint8Array, theirs: Uint8Array, port: number): UdpFlow | undefined {
    const { random } = this.#options;
    const key = this.#key.setAddresses(version, theirs, ours);
    for (let i = 0; i < EPHEMERAL_TRIES && !this.#flows.full; i += 1) {
      const own = EPHEMERAL_FIRST + (random.u32() % EPHEMERAL_COUNT);
      const ports = (port << 16) | own;
      if (this.#flows.find(key, ports) !== undefined) continue;
      const flow = new UdpFlow(this, hop, { version, source: ours, destination: theirs }, ports);
      key.save(flow.key, ports);
      this.#flows.add(key, ports, flow);
      this.counters.flows += 1;
      this.flowActive(flow);
      return flow;
    }
    return undefined;
  }

  flowActive(flow: UdpFlow): void {
    this.#options.wheel.set(flow, flow.idleAt(this.nowMs()));
  }

  flowRefused(flow: UdpFlow): void {
    this.#options.opener.refused(flow);
    this.remove(flow);
  }

  remove(flow: UdpFlow): void {
    if (flow.openedBy !== undefined) {
      this.#flowsOf.give(flow.openedBy);
      flow.openedBy = undefined;
    }
    this.#options.wheel.clear(flow);
    this.#flows.remove(this.#key.restore(flow.pair.version, flow.key), flow.key[8] as number);
    flow.close();
  }

  unplug(port: Port): void {
    for (const flow of [...this.#flows.values()]) if (flow.hop.port === port) this.remove(flow);
  }

  #open(packet: Packet, ports: number): UdpFlow | undefined {
    const { bytes } = this.#options.arena;
    const mac = macKey(bytes, packet.frame + ETH_SOURCE);
    if (this.#flows.full || !this.#flowsOf.take(mac)) {
      this.counters.dropped += 1;
      return undefined;
    }
    const pair = {
      version: packet.version,
      source: addressOf(bytes, packet, 1),
      destination: addressOf(bytes, packet, 0),
    };
    const flow = new UdpFlow(this, hopOf(bytes, packet), pair, ports);
    flow.openedBy = mac;
    packet.save(flow.key, ports);
    this.#flows.add(packet, ports, flow);
    this.counters.flows += 1;
    this.#options.opener.incomingUdp(flow, packet);
    return flow;
  }

  #sendFragments(
    hop: Hop,
    pair: AddressPair,
    sourcePort: number,
    destinationPort: number,
    payload: Uint8Array,
  ): boolean {
    const { arena, mac, mtu } = this.#options;
    const { bytes, kernels, scratch } = arena;
    const length = UDP_HEADER_BYTES + payload.length;
    bytes.set(payload, writeUdp(bytes, scratch, sourcePort, destinationPort, payload.length));
    const id = this.#id++ >>> 0;
    const extra = pair.version === 6 ? IPV6_FRAGMENT_BYTES : 0;
    const most = (mtu - (pair.version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) - extra) & ~7;
    // The pseudo-header's sum does not depend on what a packet carries: that of an empty one, and the length.
    for (let offset = 0; offset < length; offset += most) {
      const part = Math.min(most, length - offset);
      const more = offset + part < length;
      const protocol = extra === 0 ? PROTOCOL_UDP : NEXT_FRAGMENT;
      const fragment = (offset >>> 3) | (more ? IPV4_MORE_FRAGMENTS : 0);
      if (!beginPacket(hop, mac, pair, protocol, part + extra, id & 0xffff, fragment)) return false;
      let at = draft.upper;
      if (offset === 0) {
        const pseudo = draft.pseudo - protocol - (part + extra) + PROTOCOL_UDP + length;
        const check = finish(pseudo + kernels.sum(scratch, length));
        putU16(bytes, scratch + UDP_CHECKSUM, check === 0 ? 0xffff : check);
      }
      if (extra > 0) {
        bytes[at] = PROTOCOL_UDP;
        bytes[at + 1] = 0;
        putU16(bytes, at + 2, offset | (more ? 1 : 0));
        putU16(bytes, at + 4, id >>> 16);
        putU16(bytes, at + 6, id & 0xffff);
        at += extra;
      }
      kernels.copy(at, scratch + offset, part);
      commitPacket(hop, part + extra);
    }
    return true;
  }
}
