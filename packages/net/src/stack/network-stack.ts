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
import { MTU_MAX, MTU_MIN } from '../limits.ts';
import type { Port } from '../link/port.ts';
import { TcpLayer } from '../tcp/layer.ts';
import { UdpLayer } from '../udp/layer.ts';
import { formatIpv4, ipBytes, ipText, isMapped4 } from '../wire/address.ts';
import { u16, u32 } from '../wire/bytes.ts';
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
import { ICMP_ECHO_REQUEST, ICMP_HEADER_BYTES, ICMPV6_ECHO_REQUEST } from '../wire/icmp.ts';
import {
  IPV4_DESTINATION,
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
  IPV6_HEADER_BYTES,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  isIpv6,
  NEXT_FRAGMENT,
  PROTOCOL_ICMPV6,
  upperLayer6,
} from '../wire/ipv6.ts';
import type { Attachment, StackEnvironment } from './environment.ts';
import type { AnyFlow } from './flow-list.ts';
import { FlowOpener, type TcpService } from './flow-opener.ts';
import { Fragments } from './fragments.ts';
import { type AddressPair, ethernetBytes } from './hop.ts';
import { Neighbourhood } from './neighbourhood.ts';
import type { Neighbours } from './neighbours.ts';
import { isRoutable, OwnAddresses } from './own-addresses.ts';
import { addressOf, hopOf, Packet } from './packet.ts';
import type { FlowPolicy } from './policy.ts';

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
  readonly #own: OwnAddresses;
  readonly #mtu: number;
  readonly #fragments: Fragments;
  readonly #errors: IcmpErrors;
  readonly #neighbourhood: Neighbourhood;
  readonly #opener: FlowOpener;
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
    const hosts = options.hostAddresses.map(ipBytes);
    this.#own = new OwnAddresses(options.gateways, hosts, options.mac);
    this.#fragments = new Fragments(arena, clock);
    this.#errors = new IcmpErrors(arena, clock, options.mac);
    this.#opener = new FlowOpener({
      network: options.name,
      hosts,
      policy: options.policy,
      environment,
      learn: (packet) => this.#neighbourhood.learn(packet),
      refuse: (hop, pair, why, protocol, upper) => {
        this.counters.denied += why === 'prohibited' ? 1 : 0;
        this.#errors.sendFor(hop, pair, why, protocol, upper);
        hop.port.flush();
      },
      isOurs: (address) => this.#own.has(address),
    });
    const layer = { arena, clock, random, wheel, mac: options.mac, mtu: options.mtu };
    this.tcp = new TcpLayer({ ...layer, opener: this.#opener });
    this.udp = new UdpLayer({ ...layer, opener: this.#opener });
    this.echo = new EchoLayer({ ...layer, incoming: (flow, packet) => this.#opener.ping(flow, packet) });
    this.#neighbourhood = new Neighbourhood({
      mac: options.mac,
      mtu: options.mtu,
      own: this.#own,
      attachments: this.attachments,
      advertises: options.advertises ?? true,
      environment,
    });
    this.neighbours = this.#neighbourhood.neighbours;
  }

  get mtu(): number {
    return this.#mtu;
  }

  /** The text of the gateway's address of a family. */
  gateway(version: 4 | 6): string | undefined {
    return this.#own.gateway(version)?.text;
  }

  /** Asked for flows from now on. */
  setPolicy(policy: FlowPolicy | undefined): void {
    this.#opener.policy = policy;
  }

  /** Serves connections to `port` of the gateway's addresses. */
  listen(port: number, service: TcpService): Disposable {
    return this.#opener.listen(port, service);
  }

  /** Whatever is relayed now; not what an uplink carries. */
  *flows(): IterableIterator<AnyFlow> {
    yield* this.tcp.connections();
    yield* this.udp.flows();
    yield* this.echo.flows();
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
    else if (type === ETHERTYPE_ARP && !this.#neighbourhood.arp(packet, end)) this.counters.malformed += 1;
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
    this.#neighbourhood.close();
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
    if (this.uplink !== undefined && this.#own.isForWorld(packet)) {
      this.#neighbourhood.learn(packet);
      this.uplink(this, bytes, ip, packet.end);
      return;
    }
    if (isFragment4(bytes, ip)) {
      this.counters.fragments += 1;
      if (!this.#fragments.add4(packet, header)) return;
    }
    const destination = packet.destination3;
    const everybody = destination === -1 || destination >>> 28 === 14 || this.#own.isBroadcast(destination);
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
    if (packet.protocol === NEXT_FRAGMENT) {
      this.counters.fragments += 1;
      if (!this.#fragments.add6(packet)) return;
    }
    this.#deliver(packet, bytes[ip + IPV6_SOURCE + 16] === 0xff);
  }

  #deliver(packet: Packet, everybody: boolean): void {
    const { bytes } = this.#environment.arena;
    const toUs = !everybody && this.#own.isOurs(packet);
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
    if (!toUs && this.#own.isLocal(packet)) {
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
    if (bytes[upper] === ICMPV6_ECHO_REQUEST) {
      if (toUs || isRoutable(packet)) this.echo.input(packet, toUs);
      return;
    }
    this.#neighbourhood.ndp(packet);
  }

  #refuse(packet: Packet, why: Refusal, bytes: Uint8Array): void {
    const pair: AddressPair = {
      version: packet.version,
      source: this.#own.gateway(packet.version)?.address ?? this.#own.linkLocal,
      destination: addressOf(bytes, packet, 0),
    };
    this.#errors.send(hopOf(bytes, packet), pair, why, bytes, packet.ip, packet.end);
  }
}
