/** Packets that the router itself sends: ICMP errors, and resets for connections that it knows nothing of. */
import {
  checksum,
  finish,
  ICMP_CHECKSUM,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_OFFSET_MASK,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  pseudoSum4,
  putU16,
  sum16,
  TCP_ACK,
  TCP_ACKNOWLEDGEMENT,
  TCP_CHECKSUM,
  TCP_DESTINATION_PORT,
  TCP_FIN,
  TCP_FLAGS,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SEQUENCE,
  TCP_SOURCE_PORT,
  TCP_SYN,
  tcpHeaderLength,
  u16,
  u32,
  writeIcmp,
  writeIpv4,
  writeTcp,
} from '../wire/index.ts';

/** An error quotes the header and as much as is useful, up to the 576 bytes that everybody takes (RFC 1812 §4.3.2.3). */
const QUOTE_BYTES_MAX = 576 - IPV4_HEADER_BYTES - 8;
export const REPLY_BYTES_MAX = 576;
/** Groups, this network, and the broadcast address, which are not answered (RFC 1122 §3.2.2). */
const isUnicast = (address: number): boolean => address >>> 28 < 14 && address >>> 24 !== 0;

/**
 * Writes an ICMP error about the packet at `at` into `into`, from `from`. Returns its length, or 0 when there must be
 * none: about an error, about a later fragment, to a group.
 */
export function icmpError(
  into: Uint8Array,
  bytes: Uint8Array,
  at: number,
  header: number,
  from: number,
  type: number,
  code: number,
  rest: number,
): number {
  const source = u32(bytes, at + IPV4_SOURCE);
  if (!isUnicast(source) || !isUnicast(u32(bytes, at + IPV4_DESTINATION))) return 0;
  if ((u16(bytes, at + IPV4_FRAGMENT) & IPV4_OFFSET_MASK) !== 0) return 0;
  if (bytes[at + IPV4_PROTOCOL] === PROTOCOL_ICMP) {
    const about = bytes[at + header];
    if (about !== ICMP_ECHO_REQUEST && about !== ICMP_ECHO_REPLY) return 0;
  }
  const quoted = Math.min(u16(bytes, at + IPV4_TOTAL_LENGTH), QUOTE_BYTES_MAX);
  const total = IPV4_HEADER_BYTES + 8 + quoted;
  const icmp = writeIpv4(into, 0, total, PROTOCOL_ICMP, from, source, 0);
  const quote = writeIcmp(into, icmp, type, code, rest);
  for (let i = 0; i < quoted; i++) into[quote + i] = bytes[at + i] as number;
  putU16(into, icmp + ICMP_CHECKSUM, checksum(into, icmp, total));
  return total;
}

/** Writes the reset that answers a segment of a connection nobody knows (RFC 9293 §3.10.7.1). 0: it deserves none. */
export function tcpReset(
  into: Uint8Array,
  bytes: Uint8Array,
  at: number,
  header: number,
  end: number,
): number {
  const tcp = at + header;
  const tcpHeader = tcpHeaderLength(bytes, tcp, end);
  const flags = bytes[tcp + TCP_FLAGS] as number;
  if (tcpHeader < 0 || (flags & TCP_RST) !== 0) return 0;
  const source = u32(bytes, at + IPV4_SOURCE);
  const destination = u32(bytes, at + IPV4_DESTINATION);
  const acknowledged = (flags & TCP_ACK) !== 0;
  const length =
    end - tcp - tcpHeader + ((flags & TCP_SYN) !== 0 ? 1 : 0) + ((flags & TCP_FIN) !== 0 ? 1 : 0);
  const sequence = acknowledged ? u32(bytes, tcp + TCP_ACKNOWLEDGEMENT) : 0;
  const acknowledgement = acknowledged ? 0 : (u32(bytes, tcp + TCP_SEQUENCE) + length) >>> 0;
  const total = IPV4_HEADER_BYTES + TCP_HEADER_BYTES;
  const reply = writeIpv4(into, 0, total, PROTOCOL_TCP, destination, source, 0);
  writeTcp(
    into,
    reply,
    TCP_HEADER_BYTES,
    u16(bytes, tcp + TCP_DESTINATION_PORT),
    u16(bytes, tcp + TCP_SOURCE_PORT),
    sequence,
    acknowledgement,
    acknowledged ? TCP_RST : TCP_RST | TCP_ACK,
    0,
  );
  const pseudo = pseudoSum4(into, IPV4_SOURCE, PROTOCOL_TCP, TCP_HEADER_BYTES);
  putU16(into, reply + TCP_CHECKSUM, finish(sum16(into, reply, total, pseudo)));
  return total;
}

/** Turns an echo request to ourselves into its reply, in `into`. Returns its length. */
export function echoReply(
  into: Uint8Array,
  bytes: Uint8Array,
  at: number,
  header: number,
  end: number,
): number {
  const total = IPV4_HEADER_BYTES + (end - at - header);
  if (total > into.length) return 0;
  const source = u32(bytes, at + IPV4_SOURCE);
  const icmp = writeIpv4(into, 0, total, PROTOCOL_ICMP, u32(bytes, at + IPV4_DESTINATION), source, 0);
  into.set(bytes.subarray(at + header, end), icmp);
  into[icmp] = ICMP_ECHO_REPLY;
  putU16(into, icmp + ICMP_CHECKSUM, 0);
  putU16(into, icmp + ICMP_CHECKSUM, checksum(into, icmp, total));
  return total;
}
