/**
 * ICMP (RFC 792) and ICMPv6 (RFC 4443) messages. Both begin alike:
 *
 *   0 type 1 │ 1 code 1 │ 2 checksum 2 │ 4 four bytes that the type defines │ 8 …
 *
 * ICMPv6's checksum covers a pseudo-header, ICMP's does not.
 */
import { putU16, putU32 } from './bytes.ts';

export const ICMP_HEADER_BYTES = 8;
export const ICMP_TYPE = 0;
export const ICMP_CODE = 1;
export const ICMP_CHECKSUM = 2;
/** Of an echo. */
export const ICMP_ECHO_ID = 4;
export const ICMP_ECHO_SEQUENCE = 6;

export const ICMP_ECHO_REPLY = 0;
export const ICMP_UNREACHABLE = 3;
export const ICMP_ECHO_REQUEST = 8;
export const ICMP_TIME_EXCEEDED = 11;
export const ICMP_PARAMETER_PROBLEM = 12;

/** Codes of ICMP_UNREACHABLE. */
export const UNREACHABLE_NET = 0;
export const UNREACHABLE_HOST = 1;
export const UNREACHABLE_PROTOCOL = 2;
export const UNREACHABLE_PORT = 3;
export const UNREACHABLE_FRAGMENTATION_NEEDED = 4;
export const UNREACHABLE_PROHIBITED = 13;

export const ICMPV6_UNREACHABLE = 1;
export const ICMPV6_PACKET_TOO_BIG = 2;
export const ICMPV6_TIME_EXCEEDED = 3;
export const ICMPV6_ECHO_REQUEST = 128;
export const ICMPV6_ECHO_REPLY = 129;
export const ICMPV6_ROUTER_SOLICITATION = 133;
export const ICMPV6_ROUTER_ADVERTISEMENT = 134;
export const ICMPV6_NEIGHBOUR_SOLICITATION = 135;
export const ICMPV6_NEIGHBOUR_ADVERTISEMENT = 136;

/** Codes of ICMPV6_UNREACHABLE. */
export const UNREACHABLE6_NO_ROUTE = 0;
export const UNREACHABLE6_PROHIBITED = 1;
export const UNREACHABLE6_ADDRESS = 3;
export const UNREACHABLE6_PORT = 4;

/** NDP (RFC 4861): option types and flags. */
export const NDP_SOURCE_MAC = 1;
export const NDP_TARGET_MAC = 2;
export const NDP_PREFIX = 3;
export const NDP_MTU = 5;
/** RFC 8106. */
export const NDP_RDNSS = 25;
/** Where a neighbour message has its target address; 16 bytes. */
export const NDP_TARGET = 8;
export const NDP_NEIGHBOUR_BYTES = 24;
export const NDP_FLAG_ROUTER = 0x80;
export const NDP_FLAG_SOLICITED = 0x40;
export const NDP_FLAG_OVERRIDE = 0x20;

/** Writes the first eight bytes with checksum 0 (filled in once the rest is there); returns where the rest begins. */
export function writeIcmp(bytes: Uint8Array, at: number, type: number, code: number, rest: number): number {
  bytes[at + ICMP_TYPE] = type;
  bytes[at + ICMP_CODE] = code;
  putU16(bytes, at + ICMP_CHECKSUM, 0);
  putU32(bytes, at + 4, rest);
  return at + ICMP_HEADER_BYTES;
}
