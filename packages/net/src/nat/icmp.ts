/**
 * ICMP errors that pass (RFC 5508 §4): about a packet that was translated, so the packet that they quote is translated
 * back; otherwise its sender would not know its own. They are rare, and their checksum covers everything that changes,
 * so it is verified and calculated anew.
 */
import {
  checksum,
  ICMP_CHECKSUM,
  ICMP_ECHO_REQUEST,
  ICMP_HEADER_BYTES,
  ICMP_PARAMETER_PROBLEM,
  ICMP_TIME_EXCEEDED,
  ICMP_UNREACHABLE,
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_OFFSET_MASK,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  i32,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  putU16,
  putU32,
  TCP_CHECKSUM,
  UDP_CHECKSUM,
  u16,
} from '../wire/index.ts';
import { adjust, adjustUdp, delta32 } from './rewrite.ts';
import type { ConnectionTable } from './table.ts';

export function isIcmpError(type: number): boolean {
  return type === ICMP_UNREACHABLE || type === ICMP_TIME_EXCEEDED || type === ICMP_PARAMETER_PROBLEM;
}

/**
 * Translates the error whose ICMP header is at `icmp`: what it quotes, its own address, its checksums. Returns the
 * connection that it is about, or -1: nobody's, or broken.
 */
export function translateError(
  table: ConnectionTable,
  outside: number,
  bytes: Uint8Array,
  at: number,
  icmp: number,
  end: number,
  outgoing: boolean,
): number {
  const quote = icmp + ICMP_HEADER_BYTES;
  if (end - quote < IPV4_HEADER_BYTES + 8 || checksum(bytes, icmp, end) !== 0) return -1;
  const header = ((bytes[quote] as number) & 0xf) * 4;
  if ((bytes[quote] as number) >>> 4 !== 4 || header < IPV4_HEADER_BYTES || end - quote < header + 8)
    return -1;
  if ((u16(bytes, quote + IPV4_FRAGMENT) & IPV4_OFFSET_MASK) !== 0) return -1;
  const protocol = bytes[quote + IPV4_PROTOCOL] as number;
  const upper = quote + header;
  // An error that goes out quotes a packet that came in, and the other way round.
  const localAddressAt = quote + (outgoing ? IPV4_DESTINATION : IPV4_SOURCE);
  const remote = i32(bytes, quote + (outgoing ? IPV4_SOURCE : IPV4_DESTINATION));
  const portAt = localPortAt(bytes, protocol, upper, outgoing);
  if (portAt < 0) return -1;
  const port = u16(bytes, portAt);
  const remotePort = protocol === PROTOCOL_ICMP ? 0 : u16(bytes, upper + (outgoing ? 0 : 2));
  let entry: number;
  if (outgoing) {
    entry = table.findOut(protocol, i32(bytes, localAddressAt), remote, (port << 16) | remotePort);
  } else {
    if (i32(bytes, localAddressAt) !== outside) return -1;
    entry = table.findIn(protocol, port, remote, remotePort);
  }
  if (entry < 0) return -1;
  const inside = table.inside[entry] as number;
  const deltaIp = table.deltaIp[entry] as number;
  const deltaUpper = table.deltaUpper[entry] as number;
  putU32(bytes, localAddressAt, outgoing ? outside : inside);
  putU16(
    bytes,
    portAt,
    outgoing ? (table.outsidePort[entry] as number) : (table.ports[entry] as number) >>> 16,
  );
  const sign = (delta: number): number => (outgoing ? delta : ~delta & 0xffff);
  adjust(bytes, quote + IPV4_CHECKSUM, sign(deltaIp));
  if (protocol === PROTOCOL_UDP) adjustUdp(bytes, upper + UDP_CHECKSUM, sign(deltaUpper));
  else if (protocol === PROTOCOL_ICMP) adjust(bytes, upper + ICMP_CHECKSUM, sign(deltaUpper));
  else if (end - upper >= TCP_CHECKSUM + 2) adjust(bytes, upper + TCP_CHECKSUM, sign(deltaUpper));
  // The error itself: from us when it goes out, to the machine when it comes in.
  const ownAt = at + (outgoing ? IPV4_SOURCE : IPV4_DESTINATION);
  const before = i32(bytes, ownAt);
  const after = outgoing ? outside : inside;
  putU32(bytes, ownAt, after);
  adjust(bytes, at + IPV4_CHECKSUM, delta32(before, after));
  putU16(bytes, icmp + ICMP_CHECKSUM, 0);
  putU16(bytes, icmp + ICMP_CHECKSUM, checksum(bytes, icmp, end));
  return entry;
}

/** Where the quoted packet has the port that is translated, or its identifier; -1: it has none. */
function localPortAt(bytes: Uint8Array, protocol: number, upper: number, outgoing: boolean): number {
  if (protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP) return upper + (outgoing ? 2 : 0);
  if (protocol !== PROTOCOL_ICMP) return -1;
  // What went out was a request, what came in a reply.
  return bytes[upper] === ICMP_ECHO_REQUEST || bytes[upper] === 0 ? upper + 4 : -1;
}
