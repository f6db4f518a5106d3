/**
 * What a connection sends, and when: new data within both windows, retransmissions in recovery, acknowledgements.
 * RFC 9293 section 3.8, RFC 5681 (congestion), RFC 6675 in a simple form (recovery with SACK), RFC 7323 (options).
 */
import { TCP_DELAYED_ACK_MS, TCP_RTO_MS_MAX, TCP_SACK_BLOCKS_MAX, TCP_WINDOW_SCALE } from '../limits.ts';
import { putU16 } from '../wire/bytes.ts';
import { finish } from '../wire/checksum.ts';
import { IPV4_CHECKSUM, IPV4_HEADER_BYTES, IPV4_ID, IPV4_TOTAL_LENGTH } from '../wire/ipv4.ts';
import { IPV6_HEADER_BYTES, IPV6_PAYLOAD_LENGTH } from '../wire/ipv6.ts';
import {
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_PSH,
  TCP_RST,
  TCP_SYN,
  TIMESTAMPS_BYTES,
  writeTcp,
} from '../wire/tcp.ts';
import {
  CLOSE_WAIT,
  CLOSED,
  ESTABLISHED,
  FIN_WAIT_1,
  LAST_ACK,
  SYN_RECEIVED,
  type TcpConnection,
} from './connection.ts';
import { writeSack, writeSynOptions, writeTimestamps } from './options.ts';
import { add, after, before, distance } from './sequence.ts';

const SYN_OPTIONS_BYTES_MAX = 24;
/** Nothing is gained beyond what a connection may queue. */
const CONGESTION_WINDOW_MAX = 64 * 1024 * 1024;

/** Sends whatever may be sent now. */
export function output(c: TcpConnection): void {
  if (c.state < ESTABLISHED || c.state >= CLOSED) return;
  if (c.recovering) retransmitHoles(c);
  sendNew(c);
  if (c.ackNow) acknowledge(c);
}

function sendNew(c: TcpConnection): void {
  const total = c.sending.length;
  for (;;) {
    const position = distance(c.nxt, c.una);
    const available = total - position;
    const finNow = c.finQueued && available >= 0 && !c.finAcked;
    if (available <= 0 && !finNow) return;
    const window = c.sendWindow - position;
    const congestion = c.congestionWindow - pipe(c);
    let length = Math.min(available, c.mss, window, congestion);
    if (length < available && length < c.mss) {
      // Silly window avoidance (RFC 9293 section 3.8.6.2.1): rather wait than send crumbs.
      if (length <= 0 || (position > 0 && length < c.windowMax / 2)) {
        if (available > 0 && position === 0 && c.max === c.una) persist(c);
        return;
      }
    }
    if (length < 0) length = 0;
    const fin = finNow && length === available && window >= length;
    if (length === 0 && !fin) return;
    const push = length > 0 && length === available ? TCP_PSH : 0;
    if (!emit(c, c.nxt, position, length, TCP_ACK | push | (fin ? TCP_FIN : 0))) return;
    if (fin && !c.finSent) {
      c.finSent = true;
      if (c.state === ESTABLISHED) c.state = FIN_WAIT_1;
      else if (c.state === CLOSE_WAIT) c.state = LAST_ACK;
    }
    // After a timeout some of it has been sent before.
    const again = Math.max(0, distance(c.max, c.nxt));
    if (again < length) c.bytesOut += length - again;
    sent(c, add(c.nxt, length + (fin ? 1 : 0)));
    if (fin) return;
  }
}

/** Moves on after something was sent up to `next`. */
function sent(c: TcpConnection, next: number): void {
  const nowMs = c.host.nowMs();
  if (!c.timestamps && c.timedAtMs < 0 && !before(c.nxt, c.max)) {
    c.timedSequence = next;
    c.timedAtMs = nowMs;
  }
  c.nxt = next;
  if (after(next, c.max)) c.max = next;
  if (c.retransmitAtMs === Number.POSITIVE_INFINITY) c.retransmitAtMs = nowMs + c.rtoMs;
  c.persistAtMs = Number.POSITIVE_INFINITY;
}

function persist(c: TcpConnection): void {
  if (c.persistAtMs !== Number.POSITIVE_INFINITY) return;
  c.persistAtMs = c.host.nowMs() + Math.min(c.rtoMs * 2 ** c.backoff, TCP_RTO_MS_MAX);
}

/** Bytes that are on their way: sent, not acknowledged, not said to have arrived, not held lost. */
function pipe(c: TcpConnection): number {
  const flight = distance(c.nxt, c.una);
  if (!c.recovering || c.sacked.count === 0) return flight;
  let missing = 0;
  const from = after(c.retransmitNext, c.una) ? c.retransmitNext : c.una;
  for (let at = c.sacked.nextGap(from); ; ) {
    const end = c.sacked.nextStart(at, at);
    if (end === at) break;
    missing += distance(end, at);
    at = c.sacked.nextGap(end);
  }
  return Math.max(0, flight - c.sacked.total - missing);
}

/** In recovery: sends again what lies before something that arrived. */
function retransmitHoles(c: TcpConnection): void {
  for (;;) {
    const from = after(c.retransmitNext, c.una) ? c.retransmitNext : c.una;
    let start = from;
    let end: number;
    if (c.sacked.count > 0) {
      start = c.sacked.nextGap(from);
      end = c.sacked.nextStart(start, start);
      if (end === start) return;
    } else {
      // Without SACK only the first segment is known to be lost (RFC 6582).
      if (from !== c.una) return;
      end = before(add(c.una, c.mss), c.max) ? add(c.una, c.mss) : c.max;
    }
    if (start !== c.una && pipe(c) >= c.congestionWindow) return;
    const position = distance(start, c.una);
    const data = Math.min(c.mss, distance(end, start), c.sending.length - position);
    const fin = c.finSent && position + data === c.sending.length && distance(end, start) > data;
    if (data <= 0 && !fin) return;
    if (!emit(c, start, position, Math.max(0, data), TCP_ACK | (fin ? TCP_FIN : 0))) return;
    c.retransmitNext = add(start, Math.max(0, data) + (fin ? 1 : 0));
    c.timedAtMs = -1;
    c.resentAt = clockValue(c);
  }
}

/**
 * A segment without data that carries what we have received. Its number is the highest one, not `nxt`, which goes back on
 * a timeout: the peer drops what begins before its window, and two sides that both went back would never hear each other.
 */
export function acknowledge(c: TcpConnection): void {
  emit(c, c.max, 0, 0, TCP_ACK);
}

/** Asks the peer to say something: an old number makes it acknowledge (keep-alive and window probes). */
export function probe(c: TcpConnection): void {
  emit(c, add(c.una, -1), 0, 0, TCP_ACK);
}

/** The first SYN, the SYN-ACK, and their retransmissions. */
export function sendSyn(c: TcpConnection, ourMss: number): boolean {
  const answers = c.state === SYN_RECEIVED;
  const { port } = c;
  const frame = port.reserve(c.template.length + TCP_HEADER_BYTES + SYN_OPTIONS_BYTES_MAX);
  if (frame < 0) return false;
  const { bytes } = port.arena;
  const tcp = frame + c.template.length;
  const scales = answers ? c.receiveShift > 0 : true;
  const sack = answers ? c.sackPermitted : true;
  const timestamps = answers ? c.timestamps : true;
  const end = writeSynOptions(
    bytes,
    tcp + TCP_HEADER_BYTES,
    ourMss,
    scales,
    sack,
    timestamps,
    clockValue(c),
    answers ? c.timestampRecent : 0,
  );
  const header = end - tcp;
  // The window of a SYN is not scaled.
  const window = Math.min(c.receiveLimit, 0xffff);
  if (answers) c.rcvEdge = add(c.rcvNxt, window);
  const flags = answers ? TCP_SYN | TCP_ACK : TCP_SYN;
  writeTcp(bytes, tcp, header, c.localPort, c.remotePort, c.iss, answers ? c.rcvNxt : 0, flags, window);
  seal(c, frame, header, 0, 0);
  c.nxt = add(c.iss, 1);
  c.max = c.nxt;
  c.retransmitAtMs = c.host.nowMs() + Math.min(c.rtoMs * 2 ** c.backoff, TCP_RTO_MS_MAX);
  return true;
}

/** RFC 9293 section 3.10.7.1: a reset that the peer will accept. */
export function emitReset(c: TcpConnection): void {
  const frame = c.port.reserve(c.template.length + TCP_HEADER_BYTES);
  if (frame < 0) return;
  // Of a SYN that was not answered the reset acknowledges it; later its own number is what counts.
  const tcp = frame + c.template.length;
  const sequence = c.state < SYN_RECEIVED ? 0 : c.max;
  writeTcp(
    c.port.arena.bytes,
    tcp,
    TCP_HEADER_BYTES,
    c.localPort,
    c.remotePort,
    sequence,
    c.rcvNxt,
    TCP_RST | TCP_ACK,
    0,
  );
  seal(c, frame, TCP_HEADER_BYTES, 0, 0);
}

/** Builds one segment with `length` bytes from `position` of the queue. False when the port is blocked. */
function emit(c: TcpConnection, sequence: number, position: number, length: number, flags: number): boolean {
  const { port } = c;
  const blocks = length === 0 && c.sackPermitted ? Math.min(c.ranges.count, TCP_SACK_BLOCKS_MAX) : 0;
  const header =
    TCP_HEADER_BYTES + (c.timestamps ? TIMESTAMPS_BYTES : 0) + (blocks === 0 ? 0 : 4 + 8 * blocks);
  const frame = port.reserve(c.template.length + header + length);
  if (frame < 0) {
    if (!c.waitingForPort) {
      c.waitingForPort = true;
      port.wait(c);
    }
    return false;
  }
  const { bytes } = port.arena;
  const tcp = frame + c.template.length;
  const window = announce(c);
  let at = writeTcp(bytes, tcp, header, c.localPort, c.remotePort, sequence, c.rcvNxt, flags, window);
  if (c.timestamps) {
    writeTimestamps(bytes, at, clockValue(c), c.timestampRecent);
    at += TIMESTAMPS_BYTES;
  }
  if (blocks > 0) at = writeSack(bytes, at, c.ranges, blocks);
  const sum = length === 0 ? 0 : c.sending.copySum(position, at, length);
  seal(c, frame, header, length, sum);
  c.ackNow = false;
  c.unackedSegments = 0;
  c.ackAtMs = Number.POSITIVE_INFINITY;
  return true;
}

/** Puts headers and checksums to a segment whose TCP header and data are there, and sends it. */
function seal(c: TcpConnection, frame: number, header: number, length: number, dataSum: number): void {
  const { port, template } = c;
  const { bytes, kernels } = port.arena;
  bytes.set(template, frame);
  const ip = frame + c.ipOffset;
  const tcpBytes = header + length;
  if (c.version === 4) {
    const total = IPV4_HEADER_BYTES + tcpBytes;
    c.ipId = (c.ipId + 1) & 0xffff;
    putU16(bytes, ip + IPV4_TOTAL_LENGTH, total);
    putU16(bytes, ip + IPV4_ID, c.ipId);
    putU16(bytes, ip + IPV4_CHECKSUM, finish(c.ipSum + total + c.ipId));
  } else {
    putU16(bytes, ip + IPV6_PAYLOAD_LENGTH, tcpBytes);
  }
  const tcp = frame + template.length;
  putU16(bytes, tcp + TCP_CHECKSUM, finish(c.pseudoSum + tcpBytes + kernels.sum(tcp, header) + dataSum));
  port.commit(template.length + tcpBytes);
}

/** The window field, and the edge that goes with it: it never moves back, and moves on in steps worth a segment. */
function announce(c: TcpConnection): number {
  const limit = windowMax(c);
  const edge = add(c.rcvNxt, Math.max(0, limit - c.receiving.length));
  const step = distance(edge, c.rcvEdge);
  if (step >= Math.min(c.mss, limit >>> 1) || (step > 0 && c.receiving.length === 0)) c.rcvEdge = edge;
  const window = distance(c.rcvEdge, c.rcvNxt);
  return Math.min(window >>> c.receiveShift, 0xffff);
}

/** The widest window there is now, and that can be written down. */
export function windowMax(c: TcpConnection): number {
  return Math.min(c.receiveLimit, 0xffff * 2 ** c.receiveShift);
}

/** Whether the reader made so much room that the peer should hear of it now. */
export function windowOpened(c: TcpConnection): boolean {
  const limit = windowMax(c);
  const edge = add(c.rcvNxt, Math.max(0, limit - c.receiving.length));
  const gained = distance(edge, c.rcvEdge);
  const open = distance(c.rcvEdge, c.rcvNxt);
  // Half the window, or the first segment after none: each announcement costs the peer an interrupt.
  return gained >= limit >>> 1 || (open < c.mss && gained >= Math.min(c.mss, limit >>> 1));
}

/** Decides when what came in is acknowledged. Called once for a batch. */
export function scheduleAck(c: TcpConnection): void {
  if (c.unackedSegments === 0 && !c.ackNow) return;
  if (c.ackNow || c.unackedSegments >= 2) {
    c.ackNow = true;
    return;
  }
  if (c.ackAtMs === Number.POSITIVE_INFINITY) c.ackAtMs = c.host.nowMs() + TCP_DELAYED_ACK_MS;
}

/** RFC 5681 section 3.1, in bytes. */
export function grow(c: TcpConnection, acked: number): void {
  if (c.congestionWindow < c.slowStartThreshold) c.congestionWindow += acked;
  else c.congestionWindow += Math.max(1, Math.floor((c.mss * acked) / c.congestionWindow));
  if (c.congestionWindow > CONGESTION_WINDOW_MAX) c.congestionWindow = CONGESTION_WINDOW_MAX;
}

/** Milliseconds, as the timestamp option counts them here. */
export function clockValue(c: TcpConnection): number {
  return Math.floor(c.host.nowMs()) | 0;
}

/** Lengths of the headers around a segment's options and data. */
export function ipHeaderBytes(version: 4 | 6): number {
  return version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
}

export const OUR_WINDOW_SHIFT: number = TCP_WINDOW_SCALE;
