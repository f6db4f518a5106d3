/**
 * One TCP connection between a machine and us: its state, and what its user may do with it.
 *
 * The protocol is in `receive.ts` (what a segment does), `transmit.ts` (what is sent when) and `timers.ts`; they work on
 * the fields here, which are named after RFC 9293 section 3.3.1. Nobody outside this folder touches them.
 */

import {
  ARENA_CHUNK_BYTES,
  ARENA_CHUNKS_RESERVED,
  TCP_QUEUE_BYTES_MIN,
  TCP_RECEIVE_BYTES_MAX,
  TCP_RTO_INITIAL_MS,
  TCP_SEND_BYTES_MAX,
} from '../limits.ts';
import type { Port, PortWaiter } from '../link/port.ts';
import type { Arena } from '../memory/arena.ts';
import { ByteQueue } from '../memory/byte-queue.ts';
import { KEY_WORDS } from '../stack/packet.ts';
import { Timed } from '../stack/timer-wheel.ts';
import { Ranges } from './ranges.ts';

/** In the order of a connection's life: comparing them is meaningful. */
export const DIALING = 0;
export const SYN_SENT = 1;
export const SYN_RECEIVED = 2;
export const ESTABLISHED = 3;
export const CLOSE_WAIT = 4;
export const FIN_WAIT_1 = 5;
export const FIN_WAIT_2 = 6;
export const CLOSING = 7;
export const LAST_ACK = 8;
export const TIME_WAIT = 9;
export const CLOSED = 10;
export type TcpState = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10;
export const TCP_STATE_NAMES = [
  'dialing',
  'syn-sent',
  'syn-received',
  'established',
  'close-wait',
  'fin-wait-1',
  'fin-wait-2',
  'closing',
  'last-ack',
  'time-wait',
  'closed',
] as const;

/** Why a connection is over. */
export type TcpEnd =
  /** Both sides finished. */
  | 'closed'
  /** The machine sent a reset; before the connection was established: it refused. */
  | 'reset'
  /** The machine did not answer any more, or never did. */
  | 'timeout'
  /** The machine's link is gone. */
  | 'unplugged'
  /** We gave it up ourselves. */
  | 'aborted';

/** Who uses a connection: a relay to a host socket, as a rule. All are called at the end of a batch. */
export interface TcpUser {
  /** The handshake is complete. */
  opened(): void;
  /** There is something to read, or the other side has finished (`peerFinished`). */
  readable(): void;
  /** There is room to write again. */
  writable(): void;
  /** The last call. */
  closed(end: TcpEnd): void;
}

/** What a connection needs of the layer it belongs to. */
export interface TcpHost {
  readonly arena: Arena;
  nowMs(): number;
  /** The connection has something to do at the end of the batch. */
  touch(connection: TcpConnection): void;
  /** The connection has something to do, and there is no batch: does it now. */
  work(connection: TcpConnection): void;
  expired(connection: TcpConnection, nowMs: number): void;
  /** Forgets the connection and tells its user. */
  release(connection: TcpConnection, end: TcpEnd): void;
  sendReset(connection: TcpConnection): void;
  /** Answers the SYN that was held back. */
  accept(connection: TcpConnection): void;
}

export class TcpConnection extends Timed implements PortWaiter {
  readonly host: TcpHost;
  state: TcpState = DIALING;
  user: TcpUser | undefined;

  /** The machine's address and port, then ours: the key in the flow table. 4 + 4 words and the ports. */
  readonly key: Int32Array = new Int32Array(KEY_WORDS);
  readonly version: 4 | 6;
  port: Port;
  /** Ethernet and IP headers, as they begin every segment. */
  template: Uint8Array;
  /** Where the IP header is in it. */
  ipOffset = 0;
  /** Sum of the IPv4 header without length and identification; of the TCP pseudo-header without length. */
  ipSum = 0;
  pseudoSum = 0;
  ipId = 0;
  localPort = 0;
  remotePort = 0;

  /** Bytes for the machine, from `una` on. */
  readonly sending: ByteQueue;
  iss = 0;
  una = 0;
  nxt = 0;
  /** Highest number sent so far; `nxt` goes back on a timeout. */
  max = 0;
  sendWindow = 0;
  windowMax = 0;
  wl1 = 0;
  wl2 = 0;
  sendShift = 0;
  mss = 0;
  finQueued = false;
  finSent = false;
  finAcked = false;

  /** Bytes of the machine that the user has not consumed; beyond its length wait the ranges. */
  readonly receiving: ByteQueue;
  irs = 0;
  rcvNxt = 0;
  /** Right edge of the window that was announced. */
  rcvEdge = 0;
  receiveShift = 0;
  readonly ranges: Ranges = new Ranges();
  /** The machine's FIN came, in order. */
  peerFinished = false;
  /** Number of a FIN that came out of order. */
  finAt = 0;
  finWaiting = false;

  sackPermitted = false;
  timestamps = false;
  timestampRecent = 0;
  readonly sacked: Ranges = new Ranges();

  congestionWindow = 0;
  slowStartThreshold: number = Number.POSITIVE_INFINITY;
  duplicateAcks = 0;
  recovering = false;
  recoverUntil = 0;
  /** In recovery: everything before it has been sent again. */
  retransmitNext = 0;

  smoothedRttMs = -1;
  rttVarianceMs = 0;
  rtoMs: number = TCP_RTO_INITIAL_MS;
  backoff = 0;
  /** Clock value when something was sent again last; before that, when the connection began. */
  resentAt = 0;
  /** Without timestamps one segment at a time is measured. */
  timedSequence = 0;
  timedAtMs = -1;

  /** Timers; `Infinity` when off. The wheel has the earliest. */
  retransmitAtMs: number = Number.POSITIVE_INFINITY;
  ackAtMs: number = Number.POSITIVE_INFINITY;
  persistAtMs: number = Number.POSITIVE_INFINITY;
  keepAliveAtMs: number = Number.POSITIVE_INFINITY;
  /** Of TIME_WAIT. */
  lifeAtMs: number = Number.POSITIVE_INFINITY;
  keepAliveProbes = 0;

  /** In the list of what the batch touched. */
  touched = false;
  ackNow = false;
  /** Segments with data since the last acknowledgement, and whether one was of full size. */
  unackedSegments = 0;
  tellReadable = false;
  tellWritable = false;
  tellOpened = false;
  waitingForPort = false;
  /** Counted among those that are not established. */
  embryonic = false;
  /** The MAC address that it counts for, while it is. */
  openedBy = 0;
  /** Over for the machine, while the user still reads what had come. */
  draining = false;

  /** Payload from the machine, in order, and to it; what is sent again counts once. */
  bytesIn = 0;
  bytesOut = 0;
  readonly beganMs: number;
  /** By us, for somebody outside. */
  begunByPeer = false;

  constructor(host: TcpHost, version: 4 | 6, port: Port) {
    super();
    this.host = host;
    this.version = version;
    this.port = port;
    this.template = EMPTY;
    this.beganMs = host.nowMs();
    this.resentAt = Math.floor(this.beganMs) | 0;
    this.sending = new ByteQueue(host.arena);
    this.receiving = new ByteQueue(host.arena);
  }

  /** Bytes that can be written now without holding more than the connection may. */
  get sendSpace(): number {
    return Math.max(0, share(this.host.arena, TCP_SEND_BYTES_MAX) - this.sending.length);
  }

  /** Bytes that may wait to be read. */
  get receiveLimit(): number {
    return share(this.host.arena, TCP_RECEIVE_BYTES_MAX);
  }

  /** Queues bytes for the machine. False when there was no memory for them; then none were taken. */
  write(view: Uint8Array): boolean {
    if (this.state >= FIN_WAIT_1 || this.finQueued) return false;
    if (!this.sending.putView(this.sending.length, view)) return false;
    this.sending.length += view.length;
    this.host.work(this);
    return true;
  }

  /** As `write`, of bytes in the arena. */
  writeAt(from: number, length: number): boolean {
    if (this.state >= FIN_WAIT_1 || this.finQueued) return false;
    if (!this.sending.put(this.sending.length, from, length)) return false;
    this.sending.length += length;
    this.host.work(this);
    return true;
  }

  /** Nothing more will be written: FIN after what is queued. */
  finish(): void {
    if (this.finQueued || this.state >= FIN_WAIT_1) return;
    this.finQueued = true;
    this.host.work(this);
  }

  /** Takes `count` bytes of `receiving` as read. */
  consume(count: number): void {
    this.receiving.drop(count);
    if (this.receiving.length === 0 && this.ranges.count === 0) this.receiving.clear();
    if (this.draining) {
      if (this.receiving.length === 0) this.host.release(this, 'closed');
    } else this.host.work(this);
  }

  /** The dial succeeded: the handshake goes on. */
  accept(): void {
    this.host.accept(this);
  }

  /** Ends it at once, with a reset for the machine. */
  abort(): void {
    if (this.state === CLOSED && !this.draining) return;
    if (!this.draining && this.state !== TIME_WAIT && this.state !== SYN_SENT) this.host.sendReset(this);
    this.host.release(this, 'aborted');
  }

  portWritable(): void {
    this.waitingForPort = false;
    if (this.state !== CLOSED) this.host.work(this);
  }

  expired(nowMs: number): void {
    this.host.expired(this, nowMs);
  }
}

/** What one queue may hold: an eighth of what is free, within its bounds. */
function share(arena: Arena, max: number): number {
  const free = Math.max(0, arena.freeChunks - ARENA_CHUNKS_RESERVED) * ARENA_CHUNK_BYTES;
  return Math.max(TCP_QUEUE_BYTES_MIN, Math.min(max, free >>> 3));
}

const EMPTY = new Uint8Array(0);
