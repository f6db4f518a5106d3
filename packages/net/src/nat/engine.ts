/**
 * Address translation for IPv4 (RFC 3022, behaving as RFC 4787, 5382 and 5508 ask): many machines inside, one address
 * outside. Packets are changed where they lie; nothing is allocated for one.
 *
 * A packet of a connection that was seen lately is found in a direct-mapped table of 256 slots by one comparison; else by
 * the hash tables; else it makes a connection, if it may. From outside only what belongs to a connection comes in, and
 * what is sent to a published port.
 *
 * The caller reads packets and writes them; what it is told about each is one of three numbers.
 */

import { NetError } from '../errors.ts';
import { type Cidr, cidrSize, requireCidr } from '../ipam/index.ts';
import {
  ICMP_CHECKSUM,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  ICMP_TIME_EXCEEDED,
  ICMP_UNREACHABLE,
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_ID,
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
  IPV4_TTL,
  i32,
  ipv4HeaderLength,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  parseIpv4,
  putU16,
  putU32,
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_FLAGS,
  TCP_HEADER_BYTES,
  TCP_SYN,
  UDP_CHECKSUM,
  UNREACHABLE_PORT,
  UNREACHABLE_PROHIBITED,
  u16,
} from '../wire/index.ts';
import { FragmentCache } from './fragments.ts';
import { isIcmpError, translateError } from './icmp.ts';
import {
  ENTRIES_MAX,
  ENTRIES_PER_HOST_MAX,
  FAST_SLOTS,
  PORT_MAX,
  PORT_MIN,
  REPLIES_PER_SECOND_MAX,
} from './limits.ts';
import { PortMap } from './port-map.ts';
import { echoReply, icmpError, REPLY_BYTES_MAX, tcpReset } from './replies.ts';
import { adjust, adjustUdp, delta16, delta32, fold16 } from './rewrite.ts';
import { ConnectionTable, mix, State } from './table.ts';
import { advanceTcp, TCP_EVENTS } from './tcp-state.ts';

/** What becomes of a packet. */
export const Fate = {
  /** Nothing. */
  drop: 0,
  /** It goes on, as it is now. */
  forward: 1,
  /** It is answered: `reply[0, replyBytes)` goes back to where it came from. */
  reply: 2,
} as const;

export interface NatOptions {
  /** What is inside; a packet from another address is dropped. */
  readonly inside: readonly string[];
  /** Our address to the machines, which errors come from. */
  readonly gateway: string;
  /** What the machines look like from outside. Ours alone: the host uses no port of it. */
  readonly outside: string;
  readonly portMin?: number;
  readonly portMax?: number;
  /** A power of two. */
  readonly entries?: number;
  /** Asked once for each connection that a machine begins. Addresses are unsigned numbers; ports are 0 for ICMP. */
  readonly admit?: (
    protocol: number,
    source: number,
    sourcePort: number,
    destination: number,
    port: number,
  ) => boolean;
}

export interface NatCounters {
  forwardedOut: number;
  forwardedIn: number;
  /** Of both, those that the fast path found. */
  fast: number;
  created: number;
  /** Not IPv4, or not sound. */
  malformed: number;
  /** From an address that is not inside, or to one that is. */
  misrouted: number;
  /** From outside, and of no connection. */
  unsolicited: number;
  /** By `admit`. */
  denied: number;
  /** No entry, no port, or too many connections of one machine. */
  exhausted: number;
  /** A protocol without ports, a later fragment without its first. */
  untranslatable: number;
  replies: number;
}

const TTL_STEP = 0xfeff; // ~0x0100 + 0: one off the upper byte of the word
const DIRECTION_OUT = true;
const DIRECTION_IN = false;

export class NatEngine {
  readonly reply = new Uint8Array(REPLY_BYTES_MAX);
  replyBytes = 0;
  readonly counters: NatCounters = {
    forwardedOut: 0,
    forwardedIn: 0,
    fast: 0,
    created: 0,
    malformed: 0,
    misrouted: 0,
    unsolicited: 0,
    denied: 0,
    exhausted: 0,
    untranslatable: 0,
    replies: 0,
  };
  readonly #table: ConnectionTable;
  readonly #ports: Readonly<Record<number, PortMap>>;
  readonly #fragments = new FragmentCache();
  readonly #fastOut = new Int32Array(FAST_SLOTS).fill(-1);
  readonly #fastIn = new Int32Array(FAST_SLOTS).fill(-1);
  readonly #outside: number;
  readonly #gateway: number;
  #inside: readonly (readonly [base: number, end: number])[];
  readonly #admit: NatOptions['admit'];
  /** Connections of each machine. */
  readonly #perHost = new Map<number, number>();
  #nowS = 0;
  #repliesLeft = REPLIES_PER_SECOND_MAX;

  /** @throws {NetError} `ERR_ARCBOX_NET_ADDRESS` */
  constructor(options: NatOptions) {
    const { entries = ENTRIES_MAX, portMin = PORT_MIN, portMax = PORT_MAX } = options;
    if (entries < 2 || (entries & (entries - 1)) !== 0) {
      throw new NetError(
        'ERR_ARCBOX_NET_ADDRESS',
        `a table of ${entries} entries is not possible; give a power of two`,
      );
    }
    if (portMin < 1 || portMax > PORT_MAX || portMin > portMax) {
      throw new NetError(
        'ERR_ARCBOX_NET_ADDRESS',
        `ports ${portMin} to ${portMax} are none; give 1 to ${PORT_MAX}`,
      );
    }
    this.#outside = parseIpv4(options.outside) | 0;
    this.#gateway = parseIpv4(options.gateway);
    this.#inside = options.inside.map((text) => rangeOf(requireCidr(text)));
    this.#admit = options.admit;
    this.#ports = {
      [PROTOCOL_TCP]: new PortMap(portMin, portMax),
      [PROTOCOL_UDP]: new PortMap(portMin, portMax),
      [PROTOCOL_ICMP]: new PortMap(0, PORT_MAX),
    };
    this.#table = new ConnectionTable(entries, (entry) => this.#removed(entry));
  }

  /** Connections that are tracked. */
  get connections(): number {
    return this.#table.used;
  }

  /** Other blocks are inside from now on. @throws {NetError} `ERR_ARCBOX_NET_ADDRESS` */
  setInside(blocks: readonly string[]): void {
    this.#inside = blocks.map((text) => rangeOf(requireCidr(text)));
  }

  /** To be called once a second, with a clock that never goes back. */
  tick(nowS: number): void {
    this.#nowS = nowS;
    this.#repliesLeft = REPLIES_PER_SECOND_MAX;
    this.#table.sweep(nowS);
  }

  /** What arrives at a port outside goes to an endpoint inside. False when the port is in use. */
  publish(protocol: 'tcp' | 'udp', port: number, address: string, insidePort: number): boolean {
    const ports = this.#ports[protocol === 'tcp' ? PROTOCOL_TCP : PROTOCOL_UDP];
    return ports?.publish(port, parseIpv4(address) | 0, insidePort) ?? false;
  }

  /** New connections to the port are no longer taken; those that are there go on. */
  withdraw(protocol: 'tcp' | 'udp', port: number): boolean {
    return this.#ports[protocol === 'tcp' ? PROTOCOL_TCP : PROTOCOL_UDP]?.withdraw(port) ?? false;
  }

  /** A packet of a machine, at `bytes[at, end)`. */
  outbound(bytes: Uint8Array, at: number, end: number): number {
    if (end - at >= 28 && bytes[at] === 0x45) {
      const protocol = bytes[at + IPV4_PROTOCOL] as number;
      const source = i32(bytes, at + IPV4_SOURCE);
      const destination = i32(bytes, at + IPV4_DESTINATION);
      const ports = i32(bytes, at + 20);
      const entry = this.#fastOut[mix(source, destination, ports ^ protocol) & (FAST_SLOTS - 1)] as number;
      const table = this.#table;
      if (
        entry >= 0 &&
        table.inside[entry] === source &&
        table.remote[entry] === destination &&
        table.ports[entry] === ports &&
        table.protocol[entry] === protocol &&
        // An echo has no ports where the others have them.
        protocol !== PROTOCOL_ICMP &&
        isWhole(bytes, at, end, protocol)
      ) {
        this.counters.fast++;
        this.#pass(entry, bytes, at, 20, protocol, DIRECTION_OUT);
        return Fate.forward;
      }
    }
    return this.#slowOut(bytes, at, end);
  }

  /** A packet of the world to our address outside. */
  inbound(bytes: Uint8Array, at: number, end: number): number {
    if (end - at >= 28 && bytes[at] === 0x45) {
      const protocol = bytes[at + IPV4_PROTOCOL] as number;
      const remote = i32(bytes, at + IPV4_SOURCE);
      const ports = i32(bytes, at + 20);
      const entry = this.#fastIn[mix(0, remote, ports ^ protocol) & (FAST_SLOTS - 1)] as number;
      const table = this.#table;
      if (
        entry >= 0 &&
        table.remote[entry] === remote &&
        table.outsidePort[entry] === (ports & 0xffff) &&
        ((table.ports[entry] as number) & 0xffff) === ports >>> 16 &&
        table.protocol[entry] === protocol &&
        protocol !== PROTOCOL_ICMP &&
        i32(bytes, at + IPV4_DESTINATION) === this.#outside &&
        isWhole(bytes, at, end, protocol)
      ) {
        this.counters.fast++;
        this.#pass(entry, bytes, at, 20, protocol, DIRECTION_IN);
        return Fate.forward;
      }
    }
    return this.#slowIn(bytes, at, end);
  }

  #slowOut(bytes: Uint8Array, at: number, end: number): number {
    const header = ipv4HeaderLength(bytes, at, end);
    if (header < 0) return this.#malformed();
    const source = i32(bytes, at + IPV4_SOURCE);
    const destination = i32(bytes, at + IPV4_DESTINATION);
    if (!this.#isInside(source)) return this.#misrouted();
    const stop = at + u16(bytes, at + IPV4_TOTAL_LENGTH);
    const protocol = bytes[at + IPV4_PROTOCOL] as number;
    const upper = at + header;
    if (destination >>> 0 === this.#gateway) return this.#forGateway(bytes, at, header, stop);
    if (this.#isInside(destination) || !isElsewhere(destination)) return this.#misrouted();
    if ((bytes[at + IPV4_TTL] as number) <= 1) {
      return this.#answer(icmpError(this.reply, bytes, at, header, this.#gateway, ICMP_TIME_EXCEEDED, 0, 0));
    }
    if ((u16(bytes, at + IPV4_FRAGMENT) & IPV4_OFFSET_MASK) !== 0) {
      return this.#laterFragment(bytes, at, source, destination, protocol, DIRECTION_OUT);
    }
    const ports = this.#portsOf(bytes, upper, stop, protocol, DIRECTION_OUT);
    if (ports === undefined) {
      if (protocol !== PROTOCOL_ICMP || stop - upper < 8) return this.#untranslatable();
      if (!isIcmpError(bytes[upper] as number)) return this.#untranslatable();
      const about = translateError(this.#table, this.#outside, bytes, at, upper, stop, DIRECTION_OUT);
      if (about < 0) return this.#unsolicited();
      this.counters.forwardedOut++;
      return Fate.forward;
    }
    let entry = this.#table.findOut(protocol, source, destination, ports);
    if (entry < 0) {
      const isSyn = protocol === PROTOCOL_TCP && isOpening(bytes, upper);
      if (protocol === PROTOCOL_TCP && !isSyn) {
        // Of a connection from before our time: its machine had better know that it is over.
        return this.#answer(tcpReset(this.reply, bytes, at, header, stop));
      }
      const insidePort = ports >>> 16;
      if (this.#admit?.(protocol, source >>> 0, insidePort, destination >>> 0, ports & 0xffff) === false) {
        this.counters.denied++;
        return this.#answer(
          icmpError(
            this.reply,
            bytes,
            at,
            header,
            this.#gateway,
            ICMP_UNREACHABLE,
            UNREACHABLE_PROHIBITED,
            0,
          ),
        );
      }
      entry = this.#create(protocol, source, destination, ports);
      if (entry < 0) return this.#exhausted();
    }
    this.#fastOut[mix(source, destination, ports ^ protocol) & (FAST_SLOTS - 1)] = entry;
    this.#noteFragment(bytes, at, source, destination, protocol, entry);
    this.#pass(entry, bytes, at, header, protocol, DIRECTION_OUT);
    return Fate.forward;
  }

  #slowIn(bytes: Uint8Array, at: number, end: number): number {
    const header = ipv4HeaderLength(bytes, at, end);
    if (header < 0) return this.#malformed();
    const remote = i32(bytes, at + IPV4_SOURCE);
    const destination = i32(bytes, at + IPV4_DESTINATION);
    if (destination !== this.#outside || this.#isInside(remote)) return this.#misrouted();
    const stop = at + u16(bytes, at + IPV4_TOTAL_LENGTH);
    const protocol = bytes[at + IPV4_PROTOCOL] as number;
    const upper = at + header;
    if ((bytes[at + IPV4_TTL] as number) <= 1) {
      return this.#answer(icmpError(this.reply, bytes, at, header, this.#outside, ICMP_TIME_EXCEEDED, 0, 0));
    }
    if ((u16(bytes, at + IPV4_FRAGMENT) & IPV4_OFFSET_MASK) !== 0) {
      return this.#laterFragment(bytes, at, remote, destination, protocol, DIRECTION_IN);
    }
    const ports = this.#portsOf(bytes, upper, stop, protocol, DIRECTION_IN);
    if (ports === undefined) return this.#icmpIn(bytes, at, header, stop, protocol);
    const outsidePort = ports & 0xffff;
    const remotePort = ports >>> 16;
    let entry = this.#table.findIn(protocol, outsidePort, remote, remotePort);
    if (entry < 0) {
      const target = this.#ports[protocol]?.published(outsidePort);
      const mayOpen = protocol !== PROTOCOL_TCP || isOpening(bytes, upper);
      if (target === undefined || !mayOpen) {
        this.counters.unsolicited++;
        if (protocol === PROTOCOL_TCP) return this.#answer(tcpReset(this.reply, bytes, at, header, stop));
        if (protocol === PROTOCOL_ICMP) return Fate.drop;
        return this.#answer(
          icmpError(this.reply, bytes, at, header, this.#outside, ICMP_UNREACHABLE, UNREACHABLE_PORT, 0),
        );
      }
      entry = this.#add(protocol, target.inside, remote, (target.port << 16) | remotePort, outsidePort);
      if (entry < 0) return this.#exhausted();
      this.#ports[protocol]?.share(outsidePort);
    }
    this.#fastIn[mix(0, remote, ports ^ protocol) & (FAST_SLOTS - 1)] = entry;
    this.#noteFragment(bytes, at, remote, destination, protocol, entry);
    this.#pass(entry, bytes, at, header, protocol, DIRECTION_IN);
    return Fate.forward;
  }

  #icmpIn(bytes: Uint8Array, at: number, header: number, stop: number, protocol: number): number {
    const upper = at + header;
    if (protocol !== PROTOCOL_ICMP || stop - upper < 8) return this.#untranslatable();
    const type = bytes[upper] as number;
    if (type === ICMP_ECHO_REQUEST) return this.#answer(echoReply(this.reply, bytes, at, header, stop));
    if (!isIcmpError(type)) return this.#untranslatable();
    const about = translateError(this.#table, this.#outside, bytes, at, upper, stop, DIRECTION_IN);
    if (about < 0) return this.#unsolicited();
    this.counters.forwardedIn++;
    return Fate.forward;
  }

  /** Inside port and the world's, or of an echo its identifier and 0; inbound the world's first. */
  #portsOf(
    bytes: Uint8Array,
    upper: number,
    stop: number,
    protocol: number,
    outgoing: boolean,
  ): number | undefined {
    if (protocol === PROTOCOL_TCP) return stop - upper >= TCP_HEADER_BYTES ? i32(bytes, upper) : undefined;
    if (protocol === PROTOCOL_UDP) return stop - upper >= 8 ? i32(bytes, upper) : undefined;
    if (protocol !== PROTOCOL_ICMP || stop - upper < 8) return undefined;
    if (bytes[upper] !== (outgoing ? ICMP_ECHO_REQUEST : ICMP_ECHO_REPLY)) return undefined;
    const id = u16(bytes, upper + 4);
    return outgoing ? id << 16 : id;
  }

  #create(protocol: number, source: number, destination: number, ports: number): number {
    const map = this.#ports[protocol];
    const port = map?.take(source, ports >>> 16) ?? -1;
    if (port < 0) return -1;
    const entry = this.#add(protocol, source, destination, ports, port);
    if (entry < 0) map?.give(port);
    return entry;
  }

  #add(protocol: number, inside: number, remote: number, ports: number, outsidePort: number): number {
    const held = this.#perHost.get(inside) ?? 0;
    if (held >= ENTRIES_PER_HOST_MAX) return -1;
    const entry = this.#table.add(protocol, inside, remote, ports, outsidePort, this.#nowS);
    if (entry < 0) return -1;
    this.#perHost.set(inside, held + 1);
    this.counters.created++;
    const address = delta32(inside, this.#outside);
    const port = delta16(ports >>> 16, outsidePort);
    this.#table.deltaIp[entry] = address;
    // The checksums of TCP and UDP cover the addresses, ICMP's does not.
    this.#table.deltaUpper[entry] = protocol === PROTOCOL_ICMP ? port : fold16(address + port);
    return entry;
  }

  #removed(entry: number): void {
    const inside = this.#table.inside[entry] as number;
    const left = (this.#perHost.get(inside) ?? 1) - 1;
    if (left === 0) this.#perHost.delete(inside);
    else this.#perHost.set(inside, left);
    this.#ports[this.#table.protocol[entry] as number]?.give(this.#table.outsidePort[entry] as number);
  }

  /** Translates a packet that has its upper-layer header, and keeps its connection alive. */
  #pass(
    entry: number,
    bytes: Uint8Array,
    at: number,
    header: number,
    protocol: number,
    outgoing: boolean,
  ): void {
    const table = this.#table;
    const upper = at + header;
    table.lastS[entry] = this.#nowS;
    let upperDelta = table.deltaUpper[entry] as number;
    this.#readdress(entry, bytes, at, outgoing);
    let portAt = upper;
    let port: number;
    if (outgoing) {
      port = table.outsidePort[entry] as number;
    } else {
      upperDelta ^= 0xffff;
      port = (table.ports[entry] as number) >>> 16;
      portAt += 2;
    }
    if (protocol === PROTOCOL_TCP) {
      const flags = bytes[upper + TCP_FLAGS] as number;
      if ((flags & TCP_EVENTS) !== 0) advanceTcp(table, entry, flags, outgoing);
      adjust(bytes, upper + TCP_CHECKSUM, upperDelta);
    } else if (protocol === PROTOCOL_UDP) {
      if (!outgoing) table.state[entry] = State.datagrams;
      adjustUdp(bytes, upper + UDP_CHECKSUM, upperDelta);
    } else {
      portAt = upper + 4;
      adjust(bytes, upper + ICMP_CHECKSUM, upperDelta);
    }
    putU16(bytes, portAt, port);
  }

  /** The IP header alone: address, one hop less, checksum. */
  #readdress(entry: number, bytes: Uint8Array, at: number, outgoing: boolean): void {
    const delta = this.#table.deltaIp[entry] as number;
    bytes[at + IPV4_TTL] = (bytes[at + IPV4_TTL] as number) - 1;
    if (outgoing) {
      this.counters.forwardedOut++;
      putU32(bytes, at + IPV4_SOURCE, this.#outside);
      adjust(bytes, at + IPV4_CHECKSUM, fold16(delta + TTL_STEP));
    } else {
      this.counters.forwardedIn++;
      putU32(bytes, at + IPV4_DESTINATION, this.#table.inside[entry] as number);
      adjust(bytes, at + IPV4_CHECKSUM, fold16((delta ^ 0xffff) + TTL_STEP));
    }
  }

  #noteFragment(
    bytes: Uint8Array,
    at: number,
    source: number,
    destination: number,
    protocol: number,
    entry: number,
  ): void {
    if ((u16(bytes, at + IPV4_FRAGMENT) & IPV4_MORE_FRAGMENTS) === 0) return;
    this.#fragments.put(source, destination, u16(bytes, at + IPV4_ID), protocol, entry, this.#nowS);
  }

  /** Goes where its first one went; that may have changed owner meanwhile, so the addresses have to fit. */
  #laterFragment(
    bytes: Uint8Array,
    at: number,
    source: number,
    destination: number,
    protocol: number,
    outgoing: boolean,
  ): number {
    const id = u16(bytes, at + IPV4_ID);
    const entry = this.#fragments.get(source, destination, id, protocol, this.#nowS);
    if (entry < 0 || this.#table.protocol[entry] !== protocol) return this.#untranslatable();
    const remote = outgoing ? destination : source;
    if (this.#table.remote[entry] !== remote) return this.#untranslatable();
    if (outgoing && this.#table.inside[entry] !== source) return this.#untranslatable();
    this.#readdress(entry, bytes, at, outgoing);
    return Fate.forward;
  }

  /** For the router itself: it answers pings, and has no ports. */
  #forGateway(bytes: Uint8Array, at: number, header: number, stop: number): number {
    const protocol = bytes[at + IPV4_PROTOCOL] as number;
    if (protocol === PROTOCOL_ICMP && stop - at - header >= 8 && bytes[at + header] === ICMP_ECHO_REQUEST) {
      return this.#answer(echoReply(this.reply, bytes, at, header, stop));
    }
    if (protocol === PROTOCOL_TCP) return this.#answer(tcpReset(this.reply, bytes, at, header, stop));
    if (protocol !== PROTOCOL_UDP) return this.#untranslatable();
    return this.#answer(
      icmpError(this.reply, bytes, at, header, this.#gateway, ICMP_UNREACHABLE, UNREACHABLE_PORT, 0),
    );
  }

  #answer(length: number): number {
    if (length === 0 || this.#repliesLeft === 0) return Fate.drop;
    this.#repliesLeft--;
    this.counters.replies++;
    this.replyBytes = length;
    return Fate.reply;
  }

  #isInside(address: number): boolean {
    const value = address >>> 0;
    for (const [base, end] of this.#inside) if (value >= base && value < end) return true;
    return false;
  }

  #malformed(): number {
    this.counters.malformed++;
    return Fate.drop;
  }

  #misrouted(): number {
    this.counters.misrouted++;
    return Fate.drop;
  }

  #unsolicited(): number {
    this.counters.unsolicited++;
    return Fate.drop;
  }

  #untranslatable(): number {
    this.counters.untranslatable++;
    return Fate.drop;
  }

  #exhausted(): number {
    this.counters.exhausted++;
    return Fate.drop;
  }
}

/** Not a fragment, with its upper-layer header in it, and with a hop left. The IP header has no options. */
function isWhole(bytes: Uint8Array, at: number, end: number, protocol: number): boolean {
  const total = u16(bytes, at + IPV4_TOTAL_LENGTH);
  return (
    (u16(bytes, at + IPV4_FRAGMENT) & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)) === 0 &&
    total <= end - at &&
    total >= (protocol === PROTOCOL_TCP ? 40 : 28) &&
    (bytes[at + IPV4_TTL] as number) > 1
  );
}

/** Not a group, not everybody, not this host. */
function isElsewhere(address: number): boolean {
  const top = address >>> 24;
  return top !== 0 && top !== 127 && top < 224;
}

function isOpening(bytes: Uint8Array, tcp: number): boolean {
  return ((bytes[tcp + TCP_FLAGS] as number) & (TCP_SYN | TCP_ACK)) === TCP_SYN;
}

function rangeOf(cidr: Cidr): readonly [number, number] {
  if (cidr.family !== 4)
    throw new NetError('ERR_ARCBOX_NET_ADDRESS', 'address translation is for IPv4; give an IPv4 block');
  return [Number(cidr.base), Number(cidr.base + cidrSize(cidr))];
}
