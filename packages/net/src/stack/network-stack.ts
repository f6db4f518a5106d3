/**
 * One network as its machines see it: a gateway that answers ARP and neighbour discovery, routes everything to the
 * host's sockets, and offers services on its own addresses.
 *
 * Frames come from a `Switch`, which has found out that they are for us. Nothing leaves for the host before the flow's
 * policy has been asked, once; `hostAddresses` are those addresses of the network that stand for the host's loopback.
 */
import { NetError } from '../errors.ts';
import { EchoLayer } from '../icmp/echo.ts';
import { IcmpErrors, type Refusal } from '../icmp/messages.ts';
import {
  ALL_NODES,
  ALL_NODES_MAC,
  linkLocal,
  NDP_HOP_LIMIT,
  NeighbourDiscovery,
  solicitedNode,
} from '../icmp/ndp.ts';
import { MTU_MAX, MTU_MIN, ROUTER_ADVERTISEMENT_INTERVAL_MS } from '../limits.ts';
import type { Port } from '../link/port.ts';
import type { Arena } from '../memory/arena.ts';
import type { ReadGate } from '../relay/read-gate.ts';
import { TcpLayer } from '../tcp/layer.ts';
import { UdpLayer } from '../udp/layer.ts';
import { formatIpv4, ipBytes, ipText, isMapped4 } from '../wire/address.ts';
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
import { i32, u16, u32 } from '../wire/bytes.ts';
import { fold } from '../wire/checksum.ts';
import {
  ETH_HEADER_BYTES,
  ETH_TYPE,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_VLAN,
  VLAN_TAG_BYTES,
  writeEthernet,
} from '../wire/ethernet.ts';
import {
  ICMP_ECHO_REQUEST,
  ICMP_HEADER_BYTES,
  ICMPV6_ECHO_REQUEST,
  ICMPV6_NEIGHBOUR_ADVERTISEMENT,
  ICMPV6_NEIGHBOUR_SOLICITATION,
  ICMPV6_ROUTER_SOLICITATION,
  NDP_NEIGHBOUR_BYTES,
  NDP_TARGET,
} from '../wire/icmp.ts';
import {
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_ID,
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
  ipv4HeaderLength,
  isFragment4,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../wire/ipv4.ts';
import {
  IPV6_DESTINATION,
  IPV6_FRAGMENT_BYTES,
  IPV6_HEADER_BYTES,
  IPV6_HOP_LIMIT,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  isIpv6,
  NEXT_FRAGMENT,
  PROTOCOL_ICMPV6,
  upperLayer6,
} from '../wire/ipv6.ts';
import type { Clock, Randomness } from './clock.ts';
import { FlowOpener, type TcpService } from './flow-opener.ts';
import { type AddressPair, ethernetBytes, type Hop } from './hop.ts';
import type { HostNetwork } from './host-network.ts';
import { Neighbours } from './neighbours.ts';
import { addressOf, hopOf, Packet } from './packet.ts';
import type { FlowPolicy } from './policy.ts';
import { Reassembly } from './reassembly.ts';
import { Timed, type TimerWheel } from './timer-wheel.ts';

export interface NetworkOptions {
  /** Names the network in flows and messages. */
  readonly name: string;
  /** Of the gateway; a locally administered one. */
  readonly mac: Uint8Array;
  readonly mtu: number;
  /** The gateway's address and the length of the network's prefix: one for IPv4, one for IPv6, or both. */
  readonly gateways: readonly { readonly address: string; readonly prefixLength: number }[];
  /** Addresses that stand for the host's loopback; the gateway's may be among them. */
  readonly hostAddresses: readonly string[];
  readonly policy?: FlowPolicy;
  /** Whether machines are told to make themselves IPv6 addresses (router advertisements); default: yes. */
  readonly advertises?: boolean;
}

/**
 * Routed mode: takes the IPv4 packets of machines to the world, instead of the host's sockets. `bytes[at, end)` is the
 * packet, fragments as they came; it may be changed.
 */
export type Uplink = (network: NetworkStack, bytes: Uint8Array, at: number, end: number) => void;

/** A connection as the machine has it. */
export interface HalfOpen {
  readonly address: string;
  readonly port: number;
  readonly peer: string;
  readonly peerPort: number;
}

/** What all networks of a worker share. */
export interface StackEnvironment {
  readonly arena: Arena;
  readonly clock: Clock;
  readonly random: Randomness;
  readonly wheel: TimerWheel;
  readonly gate: ReadGate;
  readonly host: HostNetwork;
}

/** Where the machines of a network are. */
export interface Attachment {
  readonly port: Port;
  readonly vlan: number;
}

interface Gateway {
  readonly version: 4 | 6;
  /** 16 bytes. */
  readonly address: Uint8Array;
  readonly text: string;
  readonly prefixLength: number;
}

const BROADCAST_MAC = new Uint8Array(6).fill(0xff);
const FRAGMENTS_SCRATCH = 65_536;

export class NetworkStack {
  readonly name: string;
  readonly mac: Uint8Array;
  readonly tcp: TcpLayer;
  readonly udp: UdpLayer;
  readonly echo: EchoLayer;
  readonly neighbours: Neighbours;
  readonly attachments: Attachment[] = [];
  readonly counters = { malformed: 0, unroutable: 0, denied: 0, fragments: 0 };
  /** Undefined: flows to the world are relayed by sockets of the host. */
  uplink: Uplink | undefined;
  readonly #environment: StackEnvironment;
  readonly #gateways: readonly Gateway[];
  /** Addresses of ours, the gateway's and those that stand for the host. */
  readonly #ours: readonly Uint8Array[];
  readonly #linkLocal: Uint8Array;
  readonly #mtu: number;
  readonly #advertises: boolean;
  readonly #reassembly = new Reassembly();
  readonly #errors: IcmpErrors;
  readonly #discovery: NeighbourDiscovery;
  readonly #opener: FlowOpener;
  readonly #advertisements: Timed | undefined;
  #packet: Packet | undefined;

  /** @throws {NetError} ERR_ARCBOX_NET_CONFIG, ERR_ARCBOX_NET_ADDRESS */
  constructor(options: NetworkOptions, environment: StackEnvironment) {
    const { arena, clock, random, wheel } = environment;
    if (options.mtu < MTU_MIN || options.mtu > MTU_MAX) {
      throw new NetError(
        'ERR_ARCBOX_NET_CONFIG',
        `The MTU of network ${options.name} is ${options.mtu}; choose one from ${MTU_MIN} to ${MTU_MAX}`,
      );
    }
    this.name = options.name;
    this.mac = options.mac;
    this.#mtu = options.mtu;
    this.#environment = environment;
    this.#gateways = options.gateways.map(({ address, prefixLength }) => {
      const bytes = ipBytes(address);
      return { version: isMapped4(bytes) ? 4 : 6, address: bytes, text: ipText(bytes), prefixLength };
    });
    this.#linkLocal = linkLocal(options.mac);
    const hosts = options.hostAddresses.map(ipBytes);
    this.#ours = [...this.#gateways.map((gateway) => gateway.address), ...hosts, this.#linkLocal];
    this.#errors = new IcmpErrors(arena, clock, options.mac);
    this.#discovery = new NeighbourDiscovery(arena, options.mac);
    this.neighbours = new Neighbours(
      wheel,
      () => clock.nowMs(),
      (address) => this.#askNeighbour(address),
    );
    this.#opener = new FlowOpener({
      network: options.name,
      hosts,
      policy: options.policy,
      environment,
      learn: (packet) => this.#learn(packet),
      refuse: (hop, pair, why, protocol, upper) => {
        this.counters.denied += why === 'prohibited' ? 1 : 0;
        this.#errors.sendFor(hop, pair, why, protocol, upper);
        hop.port.flush();
      },
      isOurs: (address) => this.#ours.some((own) => Buffer.compare(own, address) === 0),
    });
    const layer = { arena, clock, random, wheel, mac: options.mac, mtu: options.mtu };
    this.tcp = new TcpLayer({ ...layer, opener: this.#opener });
    this.udp = new UdpLayer({ ...layer, opener: this.#opener });
    this.echo = new EchoLayer({ ...layer, incoming: (flow, packet) => this.#opener.ping(flow, packet) });
    this.#advertises = options.advertises ?? true;
    if (this.#advertises && this.#gateways.some((gateway) => gateway.version === 6)) {
      this.#advertisements = new Advertiser(() => this.#advertiseToAll());
      wheel.set(this.#advertisements, clock.nowMs() + ROUTER_ADVERTISEMENT_INTERVAL_MS);
    }
  }

  get mtu(): number {
    return this.#mtu;
  }

  /** The text of the gateway's address of a family. */
  gateway(version: 4 | 6): string | undefined {
    return this.#gateways.find((gateway) => gateway.version === version)?.text;
  }

  /** Asked for flows from now on. */
  setPolicy(policy: FlowPolicy | undefined): void {
    this.#opener.policy = policy;
  }

  /** Serves connections to `port` of the gateway's addresses. */
  listen(port: number, service: TcpService): Disposable {
    return this.#opener.listen(port, service);
  }

  /** Ends a connection of a machine that nobody is at the other end of any more, unless it is one of ours. */
  resetHalfOpen({ address, port, peer, peerPort }: HalfOpen): void {
    const machine = ipBytes(address);
    const pair = {
      version: isMapped4(machine) ? (4 as const) : (6 as const),
      source: ipBytes(peer),
      destination: machine,
    };
    this.neighbours.find(ipText(machine), (hop) => {
      if (hop === undefined) return;
      this.tcp.resetHalfOpen(hop, pair, peerPort, port);
      hop.port.flush();
    });
  }

  /** A frame for us, or for everybody. */
  input(port: Port, vlan: number, frame: number, end: number): void {
    const { bytes } = this.#environment.arena;
    this.#packet ??= new Packet(port);
    const packet = this.#packet;
    let at = frame + ETH_HEADER_BYTES;
    let type = u16(bytes, frame + ETH_TYPE);
    if (type === ETHERTYPE_VLAN) {
      type = u16(bytes, at + 2);
      at += VLAN_TAG_BYTES;
    }
    packet.port = port;
    packet.vlan = vlan;
    packet.frame = frame;
    packet.ip = at;
    if (type === ETHERTYPE_IPV4) this.#ipv4(packet, end);
    else if (type === ETHERTYPE_IPV6) this.#ipv6(packet, end);
    else if (type === ETHERTYPE_ARP) this.#arp(packet, end);
  }

  /**
   * Sends an IPv4 packet to the machine that it is for; one whose place is not known is dropped, and asked for. The
   * caller flushes the port that it is told.
   */
  forward(packet: Uint8Array): Port | undefined {
    const address = formatIpv4(u32(packet, IPV4_DESTINATION));
    const hop = this.neighbours.get(address);
    if (hop === undefined || !hop.port.open) {
      this.neighbours.find(address, () => {});
      return undefined;
    }
    const frame = hop.port.reserve(ethernetBytes(hop.vlan) + packet.length);
    if (frame < 0) {
      hop.port.counters.droppedFrames += 1;
      return undefined;
    }
    const { bytes } = this.#environment.arena;
    const at = writeEthernet(bytes, frame, hop.mac, this.mac, hop.vlan, ETHERTYPE_IPV4);
    bytes.set(packet, at);
    hop.port.commit(at + packet.length - frame);
    return hop.port;
  }

  /** All frames of a batch have been given. */
  batchEnd(): void {
    this.tcp.batchEnd();
  }

  /** Ends everything of a link that is gone. */
  unplug(port: Port): void {
    this.tcp.unplug(port);
    this.udp.unplug(port);
    this.echo.unplug(port);
    this.neighbours.unplug((hop) => hop.port === port);
    for (let i = this.attachments.length - 1; i >= 0; i -= 1) {
      if (this.attachments[i]?.port === port) this.attachments.splice(i, 1);
    }
  }

  /** Ends everything. */
  close(): void {
    for (const connection of [...this.tcp.connections()]) connection.abort();
    for (const flow of [...this.udp.flows()]) this.udp.remove(flow);
    if (this.#advertisements !== undefined) this.#environment.wheel.clear(this.#advertisements);
    for (const port of new Set(this.attachments.map((attachment) => attachment.port))) {
      this.unplug(port);
      port.flush();
    }
  }

  #ipv4(packet: Packet, frameEnd: number): void {
    const { bytes } = this.#environment.arena;
    const { ip } = packet;
    const header = ipv4HeaderLength(bytes, ip, frameEnd);
    if (header < 0) {
      this.counters.malformed += 1;
      return;
    }
    packet.end = ip + u16(bytes, ip + IPV4_TOTAL_LENGTH);
    packet.upper = ip + header;
    packet.protocol = bytes[ip + IPV4_PROTOCOL] as number;
    packet.readAddresses(4, bytes, ip + IPV4_SOURCE);
    if (this.uplink !== undefined && this.#isForWorld(packet)) {
      this.#learn(packet);
      this.uplink(this, bytes, ip, packet.end);
      return;
    }
    if (isFragment4(bytes, ip) && !this.#reassemble4(packet, header)) return;
    const destination = packet.destination3;
    const everybody = destination === -1 || destination >>> 28 === 14 || this.#isBroadcast(destination);
    this.#deliver(packet, everybody);
  }

  #ipv6(packet: Packet, frameEnd: number): void {
    const { bytes } = this.#environment.arena;
    const { ip } = packet;
    if (
      !isIpv6(bytes, ip, frameEnd) ||
      isMapped4(bytes, ip + IPV6_SOURCE) ||
      isMapped4(bytes, ip + IPV6_DESTINATION)
    ) {
      // An IPv4 address in IPv6's clothes is never on the wire (RFC 4942 section 2.2): as a destination it would get past
      // everything that was said of that address, to the host's loopback too.
      this.counters.malformed += 1;
      return;
    }
    packet.end = ip + IPV6_HEADER_BYTES + u16(bytes, ip + IPV6_PAYLOAD_LENGTH);
    const walked = upperLayer6(bytes, ip, packet.end);
    if (walked < 0) {
      this.counters.malformed += 1;
      return;
    }
    packet.upper = ip + Math.floor(walked / 0x10000);
    packet.protocol = bytes[ip + (walked & 0xffff)] as number;
    packet.readAddresses(6, bytes, ip + IPV6_SOURCE);
    if (packet.protocol === NEXT_FRAGMENT && !this.#reassemble6(packet)) return;
    this.#deliver(packet, bytes[ip + IPV6_SOURCE + 16] === 0xff);
  }

  #deliver(packet: Packet, everybody: boolean): void {
    const { bytes } = this.#environment.arena;
    const toUs = !everybody && this.#isOurs(packet);
    if (packet.protocol === PROTOCOL_ICMPV6 && packet.version === 6) {
      this.#icmp6(packet, toUs);
      return;
    }
    if (everybody) {
      if (packet.protocol === PROTOCOL_UDP) this.udp.input(packet, true, false);
      return;
    }
    if (!toUs && !isRoutable(packet)) {
      this.counters.unroutable += 1;
      return;
    }
    if (!toUs && this.#isLocal(packet)) {
      // A neighbour, which is not reached through us.
      this.#refuse(packet, 'host', bytes);
      return;
    }
    if (packet.protocol === PROTOCOL_TCP) this.tcp.input(packet);
    else if (packet.protocol === PROTOCOL_UDP) this.udp.input(packet, toUs, true);
    else if (packet.protocol === PROTOCOL_ICMP && packet.version === 4) this.#icmp4(packet, toUs);
  }

  #icmp4(packet: Packet, toUs: boolean): void {
    const { bytes, kernels } = this.#environment.arena;
    const { upper, end } = packet;
    if (end - upper < ICMP_HEADER_BYTES || fold(kernels.sum(upper, end - upper)) !== 0xffff) {
      this.counters.malformed += 1;
      return;
    }
    if (bytes[upper] === ICMP_ECHO_REQUEST) this.echo.input(packet, toUs);
  }

  #icmp6(packet: Packet, toUs: boolean): void {
    const { bytes, kernels } = this.#environment.arena;
    const { upper, end, ip } = packet;
    const length = end - upper;
    let sum = PROTOCOL_ICMPV6 + length;
    for (let at = ip + IPV6_SOURCE; at < ip + IPV6_HEADER_BYTES; at += 2) sum += u16(bytes, at);
    if (length < ICMP_HEADER_BYTES || fold(sum + kernels.sum(upper, length)) !== 0xffff) {
      this.counters.malformed += 1;
      return;
    }
    const type = bytes[upper] as number;
    if (type === ICMPV6_ECHO_REQUEST) {
      if (toUs || isRoutable(packet)) this.echo.input(packet, toUs);
      return;
    }
    if (bytes[ip + IPV6_HOP_LIMIT] !== NDP_HOP_LIMIT) return;
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
      if (!anonymous) this.#learn(packet);
      if (!this.#ours.some((own) => Buffer.compare(own, target) === 0)) return;
      this.#discovery.advertise(hop, { ...back, source: target }, target, !anonymous);
    } else if (type === ICMPV6_NEIGHBOUR_ADVERTISEMENT && length >= NDP_NEIGHBOUR_BYTES) {
      if (!isMapped4(bytes, upper + NDP_TARGET))
        this.neighbours.learn(ipText(bytes, upper + NDP_TARGET), hop);
    }
  }

  #arp(packet: Packet, end: number): void {
    const { bytes } = this.#environment.arena;
    const at = packet.ip;
    if (!isArp(bytes, at, end)) {
      this.counters.malformed += 1;
      return;
    }
    const sender = u32(bytes, at + ARP_SENDER_IP);
    const target = u32(bytes, at + ARP_TARGET_IP);
    const hop: Hop = {
      port: packet.port,
      vlan: packet.vlan,
      mac: bytes.slice(at + ARP_SENDER_MAC, at + ARP_SENDER_MAC + 6),
    };
    packet.readAddresses(4, bytes, at + ARP_SENDER_IP);
    packet.destination3 = sender | 0;
    if (sender !== 0 && this.#isLocal(packet)) {
      this.neighbours.learn(
        `${sender >>> 24}.${(sender >>> 16) & 255}.${(sender >>> 8) & 255}.${sender & 255}`,
        hop,
      );
    }
    if (u16(bytes, at + ARP_OPERATION) !== ARP_REQUEST) return;
    if (!this.#ours.some((own) => isMapped4(own) && u32(own, 12) === target)) return;
    this.#sendArp(hop, ARP_REPLY, target, hop.mac, sender);
  }

  #sendArp(hop: Hop, operation: number, from: number, mac: Uint8Array, to: number): void {
    const size = ETH_HEADER_BYTES + VLAN_TAG_BYTES + ARP_BYTES;
    const frame = hop.port.reserve(size);
    if (frame < 0) return;
    const { bytes } = this.#environment.arena;
    const at = writeEthernet(bytes, frame, hop.mac, this.mac, hop.vlan, ETHERTYPE_ARP);
    hop.port.commit(writeArp(bytes, at, operation, this.mac, from, mac, to) - frame);
  }

  #askNeighbour(address: string): void {
    const target = ipBytes(address);
    const version = isMapped4(target) ? 4 : 6;
    const own = this.#gateways.find((gateway) => gateway.version === version);
    if (own === undefined) return;
    for (const { port, vlan } of this.attachments) {
      if (version === 4) {
        const hop = { port, vlan, mac: BROADCAST_MAC };
        this.#sendArp(hop, ARP_REQUEST, u32(own.address, 12), new Uint8Array(6), u32(target, 12));
      } else {
        const group = solicitedNode(target);
        const pair = { version, source: this.#linkLocal, destination: group.address } as const;
        this.#discovery.solicit({ port, vlan, mac: group.mac }, pair, target);
      }
      port.flush();
    }
  }

  #advertise(hop: Hop, destination: Uint8Array): void {
    for (const { version, address, prefixLength } of this.#gateways) {
      if (version === 4) continue;
      const prefix = address.map(
        (byte, i) => byte & (0xff00 >>> Math.max(0, Math.min(8, prefixLength - 8 * i))) & 0xff,
      );
      const pair = { version, source: this.#linkLocal, destination };
      this.#discovery.advertiseRouter(hop, pair, prefix, prefixLength, address, this.#mtu);
    }
  }

  #advertiseToAll(): void {
    const { wheel, clock } = this.#environment;
    for (const { port, vlan } of this.attachments) {
      this.#advertise({ port, vlan, mac: ALL_NODES_MAC }, ALL_NODES);
      port.flush();
    }
    if (this.#advertisements !== undefined) {
      wheel.set(this.#advertisements, clock.nowMs() + ROUTER_ADVERTISEMENT_INTERVAL_MS);
    }
  }

  #learn(packet: Packet): void {
    const { bytes } = this.#environment.arena;
    const source = addressOf(bytes, packet, 0);
    for (const { address, prefixLength, version } of this.#gateways) {
      if (version !== packet.version) continue;
      if (samePrefix(address, source, version === 4 ? 96 + prefixLength : prefixLength)) {
        this.neighbours.learn(ipText(source), hopOf(bytes, packet));
        return;
      }
    }
  }

  #refuse(packet: Packet, why: Refusal, bytes: Uint8Array): void {
    const pair: AddressPair = {
      version: packet.version,
      source:
        this.#gateways.find((gateway) => gateway.version === packet.version)?.address ?? this.#linkLocal,
      destination: addressOf(bytes, packet, 0),
    };
    this.#errors.send(hopOf(bytes, packet), pair, why, bytes, packet.ip, packet.end);
  }

  /** Neither for us, nor for a neighbour, nor for a group. */
  #isForWorld(packet: Packet): boolean {
    return isRoutable(packet) && !this.#isLocal(packet) && !this.#isOurs(packet);
  }

  #isOurs(packet: Packet): boolean {
    for (const own of this.#ours) {
      if (
        packet.destination3 === i32(own, 12) &&
        packet.destination2 === i32(own, 8) &&
        packet.destination1 === i32(own, 4) &&
        packet.destination0 === i32(own, 0)
      ) {
        return true;
      }
    }
    return false;
  }

  /** Whether the destination is in the network itself. */
  #isLocal(packet: Packet): boolean {
    for (const { version, address, prefixLength } of this.#gateways) {
      if (version !== packet.version) continue;
      if (version === 4) {
        const mask = prefixLength === 0 ? 0 : -1 << (32 - prefixLength);
        if (((packet.destination3 ^ i32(address, 12)) & mask) === 0) return true;
      } else {
        const words = [packet.destination0, packet.destination1, packet.destination2, packet.destination3];
        const bits = (word: number): number => Math.max(0, Math.min(32, prefixLength - 32 * word));
        const same = words.every((value, word) => {
          const mask = bits(word) === 0 ? 0 : -1 << (32 - bits(word));
          return ((value ^ i32(address, 4 * word)) & mask) === 0;
        });
        if (same) return true;
      }
    }
    return false;
  }

  #isBroadcast(destination: number): boolean {
    for (const { version, address, prefixLength } of this.#gateways) {
      if (version === 4 && prefixLength < 31) {
        const hosts = prefixLength === 0 ? -1 : ~(-1 << (32 - prefixLength));
        if ((i32(address, 12) | hosts) === destination) return true;
      }
    }
    return false;
  }

  /** Puts the whole datagram into the scratch and points the packet at it; false while parts are missing. */
  #reassemble4(packet: Packet, header: number): boolean {
    const { arena, clock } = this.#environment;
    const { bytes } = arena;
    const { ip, upper, end } = packet;
    this.counters.fragments += 1;
    const field = u16(bytes, ip + IPV4_FRAGMENT);
    const key = `4 ${i32(bytes, ip + IPV4_SOURCE)} ${i32(bytes, ip + IPV4_DESTINATION)} ${packet.protocol} ${u16(bytes, ip + IPV4_ID)}`;
    const whole = this.#reassembly.add(
      key,
      (field & IPV4_OFFSET_MASK) * 8,
      (field & IPV4_MORE_FRAGMENTS) !== 0,
      bytes.subarray(upper, end),
      clock.nowMs(),
    );
    if (whole === undefined) return false;
    this.#relocate(packet, ip + header - packet.frame, whole);
    return true;
  }

  #reassemble6(packet: Packet): boolean {
    const { arena, clock } = this.#environment;
    const { bytes } = arena;
    const { ip, upper, end } = packet;
    this.counters.fragments += 1;
    if (end - upper < IPV6_FRAGMENT_BYTES) return false;
    const field = u16(bytes, upper + 2);
    const protocol = bytes[upper] as number;
    const key = `6 ${ipText(bytes, ip + IPV6_SOURCE)} ${ipText(bytes, ip + IPV6_SOURCE + 16)} ${i32(bytes, upper + 4)}`;
    const data = bytes.subarray(upper + IPV6_FRAGMENT_BYTES, end);
    // An atomic fragment is a packet of its own (RFC 6946).
    const atomic = (field & 0xfff9) === 0;
    const whole = atomic
      ? data.slice()
      : this.#reassembly.add(key, field & 0xfff8, (field & 1) !== 0, data, clock.nowMs());
    if (whole === undefined) return false;
    packet.protocol = protocol;
    this.#relocate(packet, ip + IPV6_HEADER_BYTES - packet.frame, whole);
    return true;
  }

  /** Copies the frame's first `headers` bytes and the payload to the scratch. */
  #relocate(packet: Packet, headers: number, payload: Uint8Array): void {
    const { arena } = this.#environment;
    const to = arena.scratch + FRAGMENTS_SCRATCH;
    arena.bytes.copyWithin(to, packet.frame, packet.frame + headers);
    arena.bytes.set(payload, to + headers);
    packet.ip += to - packet.frame;
    packet.frame = to;
    packet.upper = to + headers;
    packet.end = to + headers + payload.length;
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

/** Not loopback, "this network", multicast or reserved (RFC 6890); the source must be a single machine too. */
function isRoutable(packet: Packet): boolean {
  if (packet.version === 4) {
    const first = packet.destination3 >>> 24;
    const from = packet.source3 >>> 24;
    return first !== 0 && first !== 127 && first < 224 && from !== 0 && from !== 127 && from < 224;
  }
  const first = packet.destination0 >>> 24;
  const linkLocalTo = packet.destination0 >>> 22 === 0x3fa;
  const linkLocalFrom = packet.source0 >>> 22 === 0x3fa;
  const low = packet.destination0 === 0 && packet.destination1 === 0 && packet.destination2 === 0;
  return first !== 0xff && !linkLocalTo && !linkLocalFrom && !low && packet.source0 !== 0;
}

function samePrefix(a: Uint8Array, b: Uint8Array, bits: number): boolean {
  for (let i = 0; i * 8 < bits; i += 1) {
    const mask = (0xff00 >>> Math.min(8, bits - i * 8)) & 0xff;
    if ((((a[i] as number) ^ (b[i] as number)) & mask) !== 0) return false;
  }
  return true;
}
