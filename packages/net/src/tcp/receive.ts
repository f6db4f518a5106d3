/**
 * What a segment does to a connection: RFC 9293 section 3.10.7, with RFC 5961 (blind attacks), RFC 7323 (timestamps)
 * and RFC 2018 (SACK). Checksum and lengths have been checked; nothing is sent from here, but noted for the batch's end.
 */
import {
  ARENA_CHUNKS_RESERVED,
  TCP_INITIAL_WINDOW_SEGMENTS,
  TCP_KEEP_ALIVE_MS,
  TCP_MSS_MIN,
  TCP_RTO_MS_MAX,
  TCP_RTO_MS_MIN,
} from '../limits.ts';
import { i32, u16 } from '../wire/bytes.ts';
import { TCP_ACK, TCP_FIN, TCP_FLAGS, TCP_RST, TCP_SEQUENCE, TCP_SYN, TCP_WINDOW } from '../wire/tcp.ts';
import {
  CLOSE_WAIT,
  CLOSING,
  DIALING,
  ESTABLISHED,
  FIN_WAIT_1,
  FIN_WAIT_2,
  LAST_ACK,
  SYN_RECEIVED,
  type TcpConnection,
  TIME_WAIT,
} from './connection.ts';
import type { TcpOptions } from './options.ts';
import { add, after, before, distance } from './sequence.ts';
import { clockValue, grow, OUR_WINDOW_SHIFT, windowMax } from './transmit.ts';

const ACKNOWLEDGEMENT = 8;
const DUPLICATE_ACKS = 3;

/** What the layer has to do after a segment; everything else was done. */
export type Outcome =
  | 0
  /** Answer with an acknowledgement, if the budget for challenges allows. */
  | 1
  /** The connection was reset by the peer. */
  | 2
  /** Answer with a reset whose number is the acknowledgement (RFC 9293 section 3.10.7.4). */
  | 3
  /** It is over: the last FIN was acknowledged. */
  | 4
  /** Send the SYN-ACK again. */
  | 5
  /** TIME_WAIT begins, or begins anew. */
  | 6;

export const DONE: Outcome = 0;
export const CHALLENGED: Outcome = 1;
export const PEER_RESET: Outcome = 2;
export const RESET_STRAY: Outcome = 3;
export const FINISHED: Outcome = 4;
export const SYN_AGAIN: Outcome = 5;
export const ENTER_TIME_WAIT: Outcome = 6;

/** Takes over what a SYN offers, and what we answer to it. `ourMss` bounds what we send. */
export function negotiate(c: TcpConnection, options: TcpOptions, ourMss: number, mssDefault: number): void {
  const offered = options.mss === 0 ? mssDefault : Math.max(TCP_MSS_MIN, options.mss);
  c.sackPermitted = options.sackPermitted;
  c.timestamps = options.timestamps;
  if (options.windowScale >= 0) {
    c.sendShift = options.windowScale;
    c.receiveShift = OUR_WINDOW_SHIFT;
  } else {
    c.sendShift = 0;
    c.receiveShift = 0;
  }
  if (options.timestamps) c.timestampRecent = options.timestampValue;
  c.mss = Math.max(1, Math.min(offered, ourMss) - (c.timestamps ? 12 : 0));
  c.congestionWindow = TCP_INITIAL_WINDOW_SEGMENTS * c.mss;
}

/** A segment for a connection in SYN_SENT (RFC 9293 section 3.10.7.3). */
export function arrivedInSynSent(
  c: TcpConnection,
  bytes: Uint8Array,
  tcp: number,
  options: TcpOptions,
  ourMss: number,
  mssDefault: number,
): Outcome {
  const flags = bytes[tcp + TCP_FLAGS] as number;
  const ack = i32(bytes, tcp + ACKNOWLEDGEMENT);
  const acks = (flags & TCP_ACK) !== 0;
  if (acks && ack !== c.nxt) return (flags & TCP_RST) === 0 ? RESET_STRAY : DONE;
  if ((flags & TCP_RST) !== 0) return acks ? PEER_RESET : DONE;
  // A simultaneous open cannot happen: our port is one that the machine does not know.
  if ((flags & TCP_SYN) === 0 || !acks) return DONE;
  c.irs = i32(bytes, tcp + TCP_SEQUENCE);
  c.rcvNxt = add(c.irs, 1);
  negotiate(c, options, ourMss, mssDefault);
  c.una = ack;
  c.sendWindow = u16(bytes, tcp + TCP_WINDOW);
  c.windowMax = c.sendWindow;
  c.wl1 = c.irs;
  c.wl2 = ack;
  if (c.timestamps) measure(c, distance(clockValue(c), options.timestampEcho));
  establish(c);
  c.ackNow = true;
  return DONE;
}

function establish(c: TcpConnection): void {
  c.state = ESTABLISHED;
  // More than the SYN could say. The peer hears of it with the next segment.
  c.rcvEdge = add(c.rcvNxt, windowMax(c));
  c.backoff = 0;
  c.retransmitAtMs = Number.POSITIVE_INFINITY;
  c.keepAliveAtMs = c.host.nowMs() + TCP_KEEP_ALIVE_MS;
  c.tellOpened = true;
  c.tellWritable = true;
}

/** A segment for a connection in any state from SYN_RECEIVED on. `from` and `length` are its data. */
export function arrived(
  c: TcpConnection,
  bytes: Uint8Array,
  tcp: number,
  options: TcpOptions,
  dataFrom: number,
  dataLength: number,
): Outcome {
  const flags = bytes[tcp + TCP_FLAGS] as number;
  const sequence = i32(bytes, tcp + TCP_SEQUENCE);
  if (c.state === DIALING) return flags & TCP_RST && sequence === c.rcvNxt ? PEER_RESET : DONE;

  if (c.timestamps && (flags & TCP_RST) === 0 && (flags & TCP_SYN) === 0) {
    if (!options.timestamps) return DONE; // RFC 7323 section 3.2
    if (distance(options.timestampValue, c.timestampRecent) < 0) {
      c.ackNow = true; // PAWS: a duplicate from long ago
      return DONE;
    }
  }

  // Section 3.10.7.4, first: is it within the window?
  let at = sequence;
  let from = dataFrom;
  let length = dataLength;
  let fin = (flags & TCP_FIN) !== 0;
  const window = Math.max(0, distance(c.rcvEdge, c.rcvNxt));
  const segment = length + (fin ? 1 : 0) + ((flags & TCP_SYN) === 0 ? 0 : 1);
  const ahead = distance(at, c.rcvNxt);
  // A bare acknowledgement at the right edge comes from a peer that has filled the window.
  if (ahead > window || (ahead < 0 && ahead + segment <= 0)) {
    if ((flags & TCP_RST) !== 0) return DONE;
    if (c.state === SYN_RECEIVED && (flags & TCP_SYN) !== 0 && at === c.irs) return SYN_AGAIN;
    if (c.state === TIME_WAIT) return ENTER_TIME_WAIT;
    // A bare acknowledgement that was overtaken needs no answer; one from just before the window is a probe.
    if (segment > 0 || ahead >= -1) c.ackNow = true;
    return DONE;
  }
  if ((flags & TCP_RST) !== 0) return ahead === 0 ? PEER_RESET : CHALLENGED; // RFC 5961 section 3
  if ((flags & TCP_SYN) !== 0) {
    // RFC 5961 section 4; a SYN of the handshake that was sent again begins before the window.
    return c.state === SYN_RECEIVED && at === c.irs ? SYN_AGAIN : CHALLENGED;
  }
  if ((flags & TCP_ACK) === 0) return DONE;

  const ack = i32(bytes, tcp + ACKNOWLEDGEMENT);
  if (c.state === SYN_RECEIVED) {
    if (ack !== c.nxt) return RESET_STRAY;
    c.una = ack;
    c.sendWindow = u16(bytes, tcp + TCP_WINDOW) * 2 ** c.sendShift;
    c.windowMax = c.sendWindow;
    c.wl1 = at;
    c.wl2 = ack;
    if (c.timestamps && c.backoff === 0) measure(c, distance(clockValue(c), options.timestampEcho));
    establish(c);
  }
  if (after(ack, c.max)) {
    c.ackNow = true; // of something that we never sent
    return DONE;
  }
  if (distance(c.una, ack) > Math.max(c.windowMax, 0xffff)) return CHALLENGED; // RFC 5961 section 5
  // RFC 7323 section 4.3: the timestamp to echo is that of the segment that our last acknowledgement asked for.
  if (options.timestamps && ahead <= 0) c.timestampRecent = options.timestampValue;
  c.keepAliveAtMs = c.host.nowMs() + TCP_KEEP_ALIVE_MS;
  c.keepAliveProbes = 0;
  const finished = acknowledged(c, bytes, tcp, options, ack, at, dataLength);
  if (c.finSent && !c.finAcked && c.una === c.nxt && c.sending.length === 0 && finished) c.finAcked = true;
  if (c.finAcked) {
    if (c.state === FIN_WAIT_1) c.state = FIN_WAIT_2;
    else if (c.state === CLOSING) {
      c.state = TIME_WAIT;
      return ENTER_TIME_WAIT;
    } else if (c.state === LAST_ACK) return FINISHED;
    else if (c.state === TIME_WAIT) return segment > 0 ? ENTER_TIME_WAIT : DONE;
  }

  if (c.peerFinished) return DONE; // nothing comes after a FIN
  // Trim to the window.
  if (ahead < 0) {
    const skip = Math.min(length, -ahead);
    at = add(at, skip);
    from += skip;
    length -= skip;
    if (segment > 0) c.ackNow = true;
  }
  const room = distance(c.rcvEdge, at);
  if (length > room) {
    length = Math.max(0, room);
    fin = false;
    c.ackNow = true;
  }
  if (length === 0 && !fin) {
    // A probe of a closed window wants to know how wide it is.
    if (segment > 0) c.ackNow = true;
    return DONE;
  }
  return take(c, at, from, length, fin);
}

/** Stores data in order, or for later. */
function take(c: TcpConnection, at: number, from: number, length: number, fin: boolean): Outcome {
  const gap = distance(at, c.rcvNxt);
  if (length > 0 && isTight(c) && (gap > 0 || c.receiving.length > 0)) {
    // Memory is short, and this connection has some of it. What is dropped here comes again.
    c.ackNow = true;
    return DONE;
  }
  if (gap > 0) {
    c.ackNow = true;
    if (fin) {
      c.finAt = add(at, length);
      c.finWaiting = true;
    }
    if (length > 0 && c.receiving.put(c.receiving.length + gap, from, length))
      c.ranges.add(at, add(at, length));
    return DONE;
  }
  if (length > 0) {
    if (!c.receiving.put(c.receiving.length, from, length)) return DONE; // no memory: it will come again
    c.receiving.length += length;
    c.rcvNxt = add(c.rcvNxt, length);
    c.bytesIn += length;
    c.tellReadable = true;
    c.unackedSegments += length >= c.mss ? 2 : 1;
    if (c.ranges.count > 0) fillGap(c);
  }
  if (fin || (c.finWaiting && c.finAt === c.rcvNxt)) return takeFin(c);
  return DONE;
}

/** Whether only the reserve is left, which is for what has been read from host sockets. */
function isTight(c: TcpConnection): boolean {
  return c.host.arena.freeChunks < ARENA_CHUNKS_RESERVED;
}

/** What waited beyond the gap may be in order now. */
function fillGap(c: TcpConnection): void {
  c.ackNow = true;
  while (c.ranges.count > 0 && !after(c.ranges.start(0), c.rcvNxt)) {
    const gained = distance(c.ranges.end(0), c.rcvNxt);
    if (gained > 0) {
      c.receiving.length += gained;
      c.rcvNxt = add(c.rcvNxt, gained);
      c.bytesIn += gained;
    }
    c.ranges.dropBefore(c.rcvNxt);
  }
}

function takeFin(c: TcpConnection): Outcome {
  c.rcvNxt = add(c.rcvNxt, 1);
  c.peerFinished = true;
  c.finWaiting = false;
  c.ranges.clear();
  c.tellReadable = true;
  c.ackNow = true;
  if (c.state === ESTABLISHED) c.state = CLOSE_WAIT;
  else if (c.state === FIN_WAIT_1) c.state = CLOSING;
  else if (c.state === FIN_WAIT_2) {
    c.state = TIME_WAIT;
    return ENTER_TIME_WAIT;
  }
  return DONE;
}

/** The acknowledgement and window of a segment. Returns whether our FIN is among what is acknowledged. */
function acknowledged(
  c: TcpConnection,
  bytes: Uint8Array,
  tcp: number,
  options: TcpOptions,
  ack: number,
  sequence: number,
  dataLength: number,
): boolean {
  let finished = c.finAcked;
  const window = u16(bytes, tcp + TCP_WINDOW) * 2 ** c.sendShift;
  if (options.sackCount > 0 && c.sackPermitted) noteSacked(c, options, ack);
  const acked = distance(ack, c.una);
  if (acked > 0) {
    const data = Math.min(acked, c.sending.length);
    finished = acked > data;
    c.sending.drop(data);
    if (c.sending.length === 0) c.sending.clear();
    c.una = ack;
    if (before(c.nxt, ack)) c.nxt = ack;
    if (c.timestamps) {
      // What echoes a time from before something was sent again measures the loss, not the way.
      if (distance(options.timestampEcho, c.resentAt) >= 0) {
        measure(c, distance(clockValue(c), options.timestampEcho));
      }
    } else if (c.timedAtMs >= 0 && !before(ack, c.timedSequence)) {
      measure(c, c.host.nowMs() - c.timedAtMs);
      c.timedAtMs = -1;
    }
    c.backoff = 0;
    c.duplicateAcks = 0;
    c.sacked.dropBefore(ack);
    c.retransmitAtMs = c.max === ack ? Number.POSITIVE_INFINITY : c.host.nowMs() + c.rtoMs;
    if (c.recovering) {
      if (!before(ack, c.recoverUntil)) {
        c.recovering = false;
        c.congestionWindow = Math.min(c.slowStartThreshold, Math.max(distance(c.max, ack), c.mss) + c.mss);
        c.sacked.clear();
      } else if (c.sacked.count === 0) {
        c.retransmitNext = ack; // a partial acknowledgement: the next one is lost too (RFC 6582)
      }
    } else {
      grow(c, acked);
    }
    if (data > 0) c.tellWritable = true;
  } else if (
    acked === 0 &&
    dataLength === 0 &&
    c.max !== c.una &&
    (window === c.sendWindow || options.sackCount > 0)
  ) {
    c.duplicateAcks += 1;
    if (c.duplicateAcks >= DUPLICATE_ACKS && !c.recovering) recover(c);
  }
  if (acked >= 0 && (before(c.wl1, sequence) || (c.wl1 === sequence && !after(c.wl2, ack)))) {
    c.sendWindow = window;
    if (window > c.windowMax) c.windowMax = window;
    c.wl1 = sequence;
    c.wl2 = ack;
    if (window > 0 && c.persistAtMs !== Number.POSITIVE_INFINITY) {
      c.persistAtMs = Number.POSITIVE_INFINITY;
      c.backoff = 0;
    }
  }
  return finished;
}

function noteSacked(c: TcpConnection, options: TcpOptions, ack: number): void {
  for (let i = 0; i < options.sackCount; i += 1) {
    const start = options.sack[2 * i] as number;
    const end = options.sack[2 * i + 1] as number;
    // Only what we sent and what is not acknowledged; a range below is a D-SACK (RFC 2883).
    if (before(start, end) && !before(start, ack) && !before(start, c.una) && !after(end, c.max)) {
      c.sacked.add(start, end);
    }
  }
}

/** Three duplicates: something is lost (RFC 5681 section 3.2). */
function recover(c: TcpConnection): void {
  const flight = distance(c.max, c.una);
  c.slowStartThreshold = Math.max(Math.floor(flight / 2), 2 * c.mss);
  c.congestionWindow = c.slowStartThreshold;
  c.recovering = true;
  c.recoverUntil = c.max;
  c.retransmitNext = c.una;
}

/** A round trip took `rttMs` (RFC 6298 section 2). */
export function measure(c: TcpConnection, rttMs: number): void {
  if (rttMs < 0 || rttMs > TCP_RTO_MS_MAX) return;
  if (c.smoothedRttMs < 0) {
    c.smoothedRttMs = rttMs;
    c.rttVarianceMs = rttMs / 2;
  } else {
    c.rttVarianceMs += (Math.abs(c.smoothedRttMs - rttMs) - c.rttVarianceMs) / 4;
    c.smoothedRttMs += (rttMs - c.smoothedRttMs) / 8;
  }
  const rto = c.smoothedRttMs + Math.max(8, 4 * c.rttVarianceMs);
  c.rtoMs = Math.min(TCP_RTO_MS_MAX, Math.max(TCP_RTO_MS_MIN, Math.ceil(rto)));
}
