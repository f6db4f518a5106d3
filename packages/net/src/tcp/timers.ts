/** What happens when nothing comes: retransmission (RFC 6298), window probes, keep-alive, the end of TIME_WAIT. */
import {
  TCP_KEEP_ALIVE_INTERVAL_MS,
  TCP_KEEP_ALIVE_PROBES_MAX,
  TCP_RETRANSMITS_MAX,
  TCP_RTO_MS_MAX,
  TCP_SYN_RETRANSMITS_MAX,
} from '../limits.ts';
import { CLOSED, ESTABLISHED, SYN_RECEIVED, SYN_SENT, type TcpConnection, TIME_WAIT } from './connection.ts';
import { distance } from './sequence.ts';
import { acknowledge, clockValue, output, probe, sendSyn } from './transmit.ts';

/** The earliest of a connection's timers. */
export function earliest(c: TcpConnection): number {
  return Math.min(c.retransmitAtMs, c.ackAtMs, c.persistAtMs, c.keepAliveAtMs, c.lifeAtMs);
}

/** Does what is due. False: the connection must be given up. `ourMss` is for a SYN that is sent again. */
export function onTimer(c: TcpConnection, nowMs: number, ourMss: number): boolean {
  if (nowMs >= c.lifeAtMs) return false;
  if (nowMs >= c.ackAtMs) acknowledge(c);
  if (nowMs >= c.retransmitAtMs && !onRetransmit(c, nowMs, ourMss)) return false;
  if (nowMs >= c.persistAtMs) onPersist(c, nowMs);
  if (nowMs >= c.keepAliveAtMs) {
    c.keepAliveProbes += 1;
    if (c.keepAliveProbes > TCP_KEEP_ALIVE_PROBES_MAX) return false;
    c.keepAliveAtMs = nowMs + TCP_KEEP_ALIVE_INTERVAL_MS;
    if (c.state >= ESTABLISHED && c.state < TIME_WAIT) probe(c);
  }
  return true;
}

function onRetransmit(c: TcpConnection, nowMs: number, ourMss: number): boolean {
  c.retransmitAtMs = Number.POSITIVE_INFINITY;
  c.backoff += 1;
  if (c.state === SYN_SENT || c.state === SYN_RECEIVED) {
    if (c.backoff > TCP_SYN_RETRANSMITS_MAX) return false;
    if (!sendSyn(c, ourMss)) c.retransmitAtMs = nowMs + c.rtoMs;
    return true;
  }
  if (c.state < ESTABLISHED || c.state >= CLOSED || c.max === c.una) return true;
  const wait = Math.min(c.rtoMs * 2 ** c.backoff, TCP_RTO_MS_MAX);
  if (c.waitingForPort) {
    // The machine does not take our frames: they are not lost, it is slow.
    c.backoff -= 1;
    c.retransmitAtMs = nowMs + wait;
    return true;
  }
  if (c.sendWindow === 0) {
    // It shut its window over what is on its way: ask until it opens, for ever as it answers.
    c.backoff -= 1;
    probe(c);
    c.retransmitAtMs = nowMs + wait;
    return true;
  }
  if (c.backoff > TCP_RETRANSMITS_MAX) return false;
  // RFC 5681 section 3.1 equation 4; what the peer said to have may have been dropped since (RFC 2018 section 8).
  if (c.backoff === 1) c.slowStartThreshold = Math.max(Math.floor(distance(c.max, c.una) / 2), 2 * c.mss);
  c.congestionWindow = c.mss;
  c.recovering = false;
  c.sacked.clear();
  c.duplicateAcks = 0;
  c.timedAtMs = -1;
  c.resentAt = clockValue(c);
  c.nxt = c.una;
  c.retransmitAtMs = nowMs + wait;
  output(c);
  return true;
}

function onPersist(c: TcpConnection, nowMs: number): void {
  c.backoff = Math.min(c.backoff + 1, 16);
  c.persistAtMs = nowMs + Math.min(c.rtoMs * 2 ** c.backoff, TCP_RTO_MS_MAX);
  probe(c);
}
