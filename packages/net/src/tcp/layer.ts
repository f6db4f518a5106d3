/**
 * All TCP connections of a network: finds the connection of a segment, begins new ones, and does at the end of a batch
 * what the segments of the batch asked for.
 */

import {
  TCP_CHALLENGE_ACKS_PER_SECOND,
  TCP_CONNECTIONS_MAX,
  TCP_EMBRYONIC_MAX,
  TCP_EMBRYONIC_PER_MAC_MAX,
  TCP_KEEP_ALIVE_MS,
  TCP_MSS_DEFAULT,
  TCP_MSS_DEFAULT_IPV6,
  TCP_TIME_WAIT_MAX,
  TCP_TIME_WAIT_MS,
} from '../limits.ts';
import type { Port } from '../link/port.ts';
import type { Arena } from '../memory/arena.ts';
import type { Clock, Randomness } from '../stack/clock.ts';
import { FlowTable } from '../stack/flow-table.ts';
import { type AddressPair, beginPacket, commitPacket, draft, ethernetBytes, type Hop } from '../stack/hop.ts';
import { addressOf, FlowKey, hopOf, type Packet, pseudoSum } from '../stack/packet.ts';
import { macKey, Quota } from '../stack/quota.ts';
import type { TimerWheel } from '../stack/timer-wheel.ts';
import { i32, putU16, u16 } from '../wire/bytes.ts';
import { finish, fold, sum16 } from '../wire/checksum.ts';
import { ETH_SOURCE, ETHERTYPE_IPV4, ETHERTYPE_IPV6, writeEthernet } from '../wire/ethernet.ts';
import { IPV4_HEADER_BYTES, PROTOCOL_TCP, writeIpv4 } from '../wire/ipv4.ts';
import { writeIpv6 } from '../wire/ipv6.ts';
import {
  TCP_ACK,
  TCP_ACKNOWLEDGEMENT,
  TCP_CHECKSUM,
  TCP_FIN,
  TCP_FLAGS,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SEQUENCE,
  TCP_SYN,
  TCP_WINDOW,
  tcpHeaderLength,
  writeTcp,
} from '../wire/tcp.ts';
import {
  CLOSED,
  DIALING,
  SYN_RECEIVED,
  SYN_SENT,
  TcpConnection,
  type TcpEnd,
  type TcpHost,
  type TcpUser,
  TIME_WAIT,
} from './connection.ts';
import { TcpOptions } from './options.ts';
import {
  arrived,
  arrivedInSynSent,
  CHALLENGED,
  ENTER_TIME_WAIT,
  FINISHED,
  negotiate,
  type Outcome,
  PEER_RESET,
  RESET_STRAY,
  SYN_AGAIN,
} from './receive.ts';
import { add, after } from './sequence.ts';
import { earliest, onTimer } from './timers.ts';
import {
  acknowledge,
  emitReset,
  ipHeaderBytes,
  output,
  scheduleAck,
  sendSyn,
  windowOpened,
} from './transmit.ts';

/** Who decides on connections that machines open. */
export interface TcpOpener {
  /**
   * A machine wants to connect. The SYN is held back until `accept` or `abort` of the connection is called, in this
   * call or later. `packet` is good for the call only.
   */
  incoming(connection: TcpConnection, packet: Packet): void;
}

export interface TcpCounters {
  opened: number;
  /** SYNs that found no place. */
  droppedSyns: number;
  malformed: number;
  badChecksums: number;
  resetsSent: number;
}

export interface TcpLayerOptions {
  readonly arena: Arena;
  readonly clock: Clock;
  readonly random: Randomness;
  readonly wheel: TimerWheel;
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly opener: TcpOpener;
}

/** Ports that connections of ours begin at. */
const EPHEMERAL_FIRST = 32_768;
const EPHEMERAL_COUNT = 28_232;
const EPHEMERAL_TRIES = 64;

export class TcpLayer implements TcpHost {
  readonly arena: Arena;
  readonly counters: TcpCounters = {
    opened: 0,
    droppedSyns: 0,
    malformed: 0,
    badChecksums: 0,
    resetsSent: 0,
  };
  readonly #options: TcpLayerOptions;
  readonly #connections: FlowTable<TcpConnection>;
  readonly #segmentOptions = new TcpOptions();
  #touched: TcpConnection[] = [];
  #working = false;
  #inBatch = false;
  #embryonic = 0;
  readonly #embryonicOf = new Quota(TCP_EMBRYONIC_PER_MAC_MAX);
  #timeWait = 0;
  #challengeSecond = -1;
  #challenges = 0;
  /** For lookups that no packet asks for. */
  readonly #key = new FlowKey();

  constructor(options: TcpLayerOptions) {
    this.#options = options;
    this.arena = options.arena;
    this.#connections = new FlowTable(TCP_CONNECTIONS_MAX, options.random.u32());
  }

  get size(): number {
    return this.#connections.size;
  }

  connections(): IterableIterator<TcpConnection> {
    return this.#connections.values();
  }

  nowMs(): number {
    return this.#options.clock.nowMs();
  }

  /** A packet's TCP segment. */
  input(packet: Packet): void {
    const { bytes, kernels } = this.arena;
    const tcp = packet.upper;
    const { end } = packet;
    const header = tcpHeaderLength(bytes, tcp, end);
    if (header < 0) {
      this.counters.malformed += 1;
      return;
    }
    const length = end - tcp;
    if (fold(pseudoSum(bytes, packet, length) + kernels.sum(tcp, length)) !== 0xffff) {
      this.counters.badChecksums += 1;
      return;
    }
    this.#inBatch = true;
    const options = this.#segmentOptions;
    options.read(bytes, tcp + TCP_HEADER_BYTES, tcp + header);
    const ports = i32(bytes, tcp);
    const c = this.#connections.find(packet, ports);
    if (c === undefined) {
      this.#stranger(packet, ports, header);
      return;
    }
    const flags = bytes[tcp + TCP_FLAGS] as number;
    if (c.state === TIME_WAIT && (flags & (TCP_SYN | TCP_ACK | TCP_RST)) === TCP_SYN) {
      // RFC 1122 section 4.2.2.13: the old connection may be reopened with a higher number.
      if (after(i32(bytes, tcp + TCP_SEQUENCE), c.rcvNxt)) {
        this.release(c, 'closed');
        this.#stranger(packet, ports, header);
        return;
      }
    }
    const outcome =
      c.state === SYN_SENT
        ? arrivedInSynSent(c, bytes, tcp, options, this.#mss(c.version), mssDefault(c.version))
        : arrived(c, bytes, tcp, options, tcp + header, length - header);
    if (c.state > SYN_RECEIVED && c.embryonic) this.#grown(c);
    this.touch(c);
    if (outcome !== 0) this.#conclude(c, packet, outcome);
  }

  /** Does what the batch asked for. */
  batchEnd(): void {
    this.#inBatch = false;
    this.#flush();
  }

  touch(c: TcpConnection): void {
    if (c.touched) return;
    c.touched = true;
    this.#touched.push(c);
  }

  work(c: TcpConnection): void {
    this.touch(c);
    if (!this.#inBatch) this.#flush();
  }

  expired(c: TcpConnection, nowMs: number): void {
    if (c.state === CLOSED) return;
    if (nowMs < earliest(c)) {
      this.#options.wheel.set(c, earliest(c));
      return;
    }
    if (!onTimer(c, nowMs, this.#mss(c.version))) {
      if (c.state !== TIME_WAIT && c.state !== SYN_SENT) this.sendReset(c);
      this.release(c, c.state === TIME_WAIT ? 'closed' : 'timeout');
      c.port.flush();
      return;
    }
    this.#options.wheel.set(c, earliest(c));
    c.port.flush();
  }

  accept(c: TcpConnection): void {
    if (c.state !== DIALING) return;
    c.state = SYN_RECEIVED;
    c.iss = this.#options.random.u32() | 0;
    c.una = c.iss;
    this.#sendSyn(c);
  }

  sendReset(c: TcpConnection): void {
    this.counters.resetsSent += 1;
    emitReset(c);
    if (!this.#inBatch) c.port.flush();
  }

  release(c: TcpConnection, end: TcpEnd): void {
    if (c.state !== CLOSED) {
      if (c.embryonic) this.#grown(c);
      if (c.state === TIME_WAIT && c.lifeAtMs !== Number.POSITIVE_INFINITY) this.#timeWait -= 1;
      c.state = CLOSED;
      this.#connections.remove(this.#key.restore(c.version, c.key), c.key[8] as number);
      this.#options.wheel.clear(c);
      c.sending.clear();
    }
    if (end === 'closed' && c.receiving.length > 0 && c.user !== undefined) {
      c.draining = true;
      return;
    }
    c.draining = false;
    c.receiving.clear();
    this.#leave(c, end);
  }

  /** Ends every connection of a machine whose link is gone. */
  unplug(port: Port): void {
    for (const c of [...this.#connections.values()]) if (c.port === port) this.release(c, 'unplugged');
  }

  /**
   * Opens a connection to a machine: from `source` (and a port of ours) to `destination`, 16 bytes each. `undefined`
   * when no port is free, or no room. The user may be set until the caller returns to the event loop.
   */
  connect(
    hop: Hop,
    version: 4 | 6,
    source: Uint8Array,
    destination: Uint8Array,
    port: number,
    user?: TcpUser,
  ): TcpConnection | undefined {
    const { random } = this.#options;
    const key = this.#key.setAddresses(version, destination, source);
    for (let i = 0; i < EPHEMERAL_TRIES; i += 1) {
      const ours = EPHEMERAL_FIRST + (random.u32() % EPHEMERAL_COUNT);
      const ports = (port << 16) | ours;
      if (this.#connections.find(key, ports) !== undefined) continue;
      const c = new TcpConnection(this, version, hop.port);
      if (!this.#connections.add(key, ports, c)) return undefined;
      key.save(c.key, ports);
      this.#address(c, hop, source, destination);
      c.user = user;
      c.begunByPeer = true;
      c.state = SYN_SENT;
      c.iss = random.u32() | 0;
      c.una = c.iss;
      this.counters.opened += 1;
      this.#sendSyn(c);
      return c;
    }
    return undefined;
  }

  /**
   * Ends a connection of a machine whose other end, before us, is gone without a word (a half-open one, RFC 9293 section
   * 3.5.1): a SYN in its name is answered with what the machine expects next, and that answer belongs to no connection
   * of ours, so it is reset. `pair` is from the peer to the machine. One that is ours stays.
   */
  resetHalfOpen(hop: Hop, pair: AddressPair, peerPort: number, machinePort: number): void {
    const key = this.#key.setAddresses(pair.version, pair.destination, pair.source);
    if (this.#connections.find(key, (machinePort << 16) | peerPort) !== undefined) return;
    const { random, mac } = this.#options;
    if (!beginPacket(hop, mac, pair, PROTOCOL_TCP, TCP_HEADER_BYTES)) return;
    const { bytes, kernels } = this.arena;
    const at = draft.upper;
    writeTcp(bytes, at, TCP_HEADER_BYTES, peerPort, machinePort, random.u32() | 0, 0, TCP_SYN, 0xffff);
    putU16(bytes, at + TCP_CHECKSUM, finish(draft.pseudo + kernels.sum(at, TCP_HEADER_BYTES)));
    commitPacket(hop, TCP_HEADER_BYTES);
  }

  #sendSyn(c: TcpConnection): void {
    if (!sendSyn(c, this.#mss(c.version))) c.retransmitAtMs = this.nowMs() + c.rtoMs;
    this.#options.wheel.set(c, earliest(c));
    if (!this.#inBatch) c.port.flush();
  }

  /** A segment of no connection (RFC 9293 section 3.10.7.1 and 3.10.7.2). */
  #stranger(packet: Packet, ports: number, header: number): void {
    const { bytes } = this.arena;
    const tcp = packet.upper;
    const flags = bytes[tcp + TCP_FLAGS] as number;
    if ((flags & TCP_RST) !== 0) return;
    if ((ports & 0xffff) === 0) {
      this.counters.malformed += 1;
      return;
    }
    if ((flags & (TCP_SYN | TCP_ACK | TCP_FIN)) !== TCP_SYN) {
      this.#resetStray(packet, header);
      return;
    }
    if (this.#embryonic >= TCP_EMBRYONIC_MAX || this.#connections.full) {
      this.counters.droppedSyns += 1;
      return;
    }
    const mac = macKey(bytes, packet.frame + ETH_SOURCE);
    if (!this.#embryonicOf.take(mac)) {
      this.counters.droppedSyns += 1;
      return;
    }
    const c = new TcpConnection(this, packet.version, packet.port);
    this.#connections.add(packet, ports, c);
    packet.save(c.key, ports);
    c.embryonic = true;
    c.openedBy = mac;
    this.#embryonic += 1;
    this.#address(c, hopOf(bytes, packet), addressOf(bytes, packet, 1), addressOf(bytes, packet, 0));
    c.irs = i32(bytes, tcp + TCP_SEQUENCE);
    c.rcvNxt = add(c.irs, 1);
    c.rcvEdge = c.rcvNxt;
    c.sendWindow = u16(bytes, tcp + TCP_WINDOW);
    c.windowMax = c.sendWindow;
    negotiate(c, this.#segmentOptions, this.#mss(c.version), mssDefault(c.version));
    this.counters.opened += 1;
    this.#options.opener.incoming(c, packet);
  }

  #conclude(c: TcpConnection, packet: Packet, outcome: Outcome): void {
    if (outcome === CHALLENGED) {
      if (this.#mayChallenge()) c.ackNow = true;
    } else if (outcome === PEER_RESET) {
      this.release(c, 'reset');
    } else if (outcome === RESET_STRAY) {
      this.#resetStray(packet, tcpHeaderLength(this.arena.bytes, packet.upper, packet.end));
    } else if (outcome === FINISHED) {
      this.release(c, 'closed');
    } else if (outcome === SYN_AGAIN) {
      this.#sendSyn(c);
    } else if (outcome === ENTER_TIME_WAIT) {
      this.#enterTimeWait(c);
    }
  }

  #enterTimeWait(c: TcpConnection): void {
    acknowledge(c);
    c.ackNow = false;
    if (c.lifeAtMs === Number.POSITIVE_INFINITY) {
      if (this.#timeWait >= TCP_TIME_WAIT_MAX) {
        // Without the wait a late duplicate gets a reset, which is what it deserves.
        this.release(c, 'closed');
        return;
      }
      this.#timeWait += 1;
      c.sending.clear();
      c.retransmitAtMs = Number.POSITIVE_INFINITY;
      c.ackAtMs = Number.POSITIVE_INFINITY;
      c.persistAtMs = Number.POSITIVE_INFINITY;
      c.keepAliveAtMs = Number.POSITIVE_INFINITY;
    }
    c.lifeAtMs = this.nowMs() + TCP_TIME_WAIT_MS;
  }

  #mayChallenge(): boolean {
    const second = Math.floor(this.nowMs() / 1000);
    if (second !== this.#challengeSecond) {
      this.#challengeSecond = second;
      this.#challenges = 0;
    }
    this.#challenges += 1;
    return this.#challenges <= TCP_CHALLENGE_ACKS_PER_SECOND;
  }

  #flush(): void {
    if (this.#working) return;
    this.#working = true;
    let ports: Port | Port[] | undefined;
    for (let i = 0; i < this.#touched.length; i += 1) {
      const c = this.#touched[i] as TcpConnection;
      c.touched = false;
      this.#process(c);
      if (ports === undefined) ports = c.port;
      else if (Array.isArray(ports)) {
        if (!ports.includes(c.port)) ports.push(c.port);
      } else if (ports !== c.port) ports = [ports, c.port];
    }
    this.#touched.length = 0;
    this.#working = false;
    if (Array.isArray(ports)) for (const port of ports) port.flush();
    else ports?.flush();
  }

  #process(c: TcpConnection): void {
    if (c.tellOpened) {
      c.tellOpened = false;
      c.user?.opened();
    }
    if (c.tellReadable) {
      c.tellReadable = false;
      c.user?.readable();
    }
    if (c.tellWritable) {
      c.tellWritable = false;
      c.user?.writable();
    }
    if (c.state === TIME_WAIT && c.user !== undefined && c.receiving.length === 0) this.#leave(c, 'closed');
    if (c.state === CLOSED || c.state < SYN_RECEIVED) return;
    if (c.state !== TIME_WAIT) {
      if (!c.peerFinished && windowOpened(c)) c.ackNow = true;
      scheduleAck(c);
      output(c);
    } else if (c.ackNow) acknowledge(c);
    this.#options.wheel.set(c, earliest(c));
  }

  #leave(c: TcpConnection, end: TcpEnd): void {
    const { user } = c;
    c.user = undefined;
    user?.closed(end);
  }

  #grown(c: TcpConnection): void {
    c.embryonic = false;
    this.#embryonic -= 1;
    this.#embryonicOf.give(c.openedBy);
    if (c.state !== CLOSED) c.keepAliveAtMs = this.nowMs() + TCP_KEEP_ALIVE_MS;
  }

  #resetStray(packet: Packet, header: number): void {
    const { bytes, kernels } = this.arena;
    const tcp = packet.upper;
    const flags = bytes[tcp + TCP_FLAGS] as number;
    const acks = (flags & TCP_ACK) !== 0;
    const length =
      packet.end - tcp - header + ((flags & TCP_SYN) === 0 ? 0 : 1) + ((flags & TCP_FIN) === 0 ? 0 : 1);
    const pair = {
      version: packet.version,
      source: addressOf(bytes, packet, 1),
      destination: addressOf(bytes, packet, 0),
    };
    const hop = hopOf(bytes, packet);
    if (!beginPacket(hop, this.#options.mac, pair, PROTOCOL_TCP, TCP_HEADER_BYTES)) return;
    const at = draft.upper;
    writeTcp(
      bytes,
      at,
      TCP_HEADER_BYTES,
      u16(bytes, tcp + 2),
      u16(bytes, tcp),
      acks ? i32(bytes, tcp + TCP_ACKNOWLEDGEMENT) : 0,
      acks ? 0 : add(i32(bytes, tcp + TCP_SEQUENCE), length),
      acks ? TCP_RST : TCP_RST | TCP_ACK,
      0,
    );
    putU16(bytes, at + TCP_CHECKSUM, finish(draft.pseudo + kernels.sum(at, TCP_HEADER_BYTES)));
    commitPacket(hop, TCP_HEADER_BYTES);
    this.counters.resetsSent += 1;
  }

  /** Prepares the headers of everything that will be sent to `theirs`. */
  #address(c: TcpConnection, hop: Hop, ours: Uint8Array, theirs: Uint8Array): void {
    const ethernet = ethernetBytes(hop.vlan);
    const template = new Uint8Array(ethernet + ipHeaderBytes(c.version));
    c.port = hop.port;
    c.ipOffset = ethernet;
    c.localPort = (c.key[8] as number) & 0xffff;
    c.remotePort = (c.key[8] as number) >>> 16;
    if (c.version === 4) {
      writeEthernet(template, 0, hop.mac, this.#options.mac, hop.vlan, ETHERTYPE_IPV4);
      writeIpv4(template, ethernet, 0, PROTOCOL_TCP, i32(ours, 12), i32(theirs, 12), 0);
      putU16(template, ethernet + 10, 0);
      c.ipSum = sum16(template, ethernet, ethernet + IPV4_HEADER_BYTES);
      c.pseudoSum = PROTOCOL_TCP + sum16(ours, 12, 16) + sum16(theirs, 12, 16);
      c.ipId = this.#options.random.u32() & 0xffff;
    } else {
      writeEthernet(template, 0, hop.mac, this.#options.mac, hop.vlan, ETHERTYPE_IPV6);
      writeIpv6(template, ethernet, 0, PROTOCOL_TCP, ours, theirs);
      c.pseudoSum = PROTOCOL_TCP + sum16(ours, 0, 16) + sum16(theirs, 0, 16);
    }
    c.template = template;
  }

  #mss(version: 4 | 6): number {
    return this.#options.mtu - ipHeaderBytes(version) - TCP_HEADER_BYTES;
  }
}

function mssDefault(version: 4 | 6): number {
  return version === 4 ? TCP_MSS_DEFAULT : TCP_MSS_DEFAULT_IPV6;
}
