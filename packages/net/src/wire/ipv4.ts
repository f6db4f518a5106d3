/**
 * IPv4 (RFC 791).
 *
 *   0 version·IHL 1 │ 1 TOS 1 │ 2 total length 2 │ 4 id 2 │ 6 flags·offset 2 │ 8 TTL 1 │ 9 protocol 1 │ 10 checksum 2 │ 12 source 4 │ 16 destination 4 │ options
 */
import { putU16, putU32, u16 } from './bytes.ts';
import { checksum } from './checksum.ts';

export const IPV4_HEADER_BYTES = 20;
export const IPV4_TOTAL_LENGTH = 2;
export const IPV4_ID = 4;
export const IPV4_FRAGMENT = 6;
export const IPV4_TTL = 8;
export const IPV4_PROTOCOL = 9;
export const IPV4_CHECKSUM = 10;
export const IPV4_SOURCE = 12;
export const IPV4_DESTINATION = 16;

export const IPV4_DONT_FRAGMENT = 0x4000;
export const IPV4_MORE_FRAGMENTS = 0x2000;
/** In units of eight bytes. */
export const IPV4_OFFSET_MASK = 0x1fff;
export const IPV4_BROADCAST = 0xffffffff;

export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;

/**
 * Length of the header at `at`, options included, when the packet is sound: version, lengths and header checksum.
 * Otherwise -1. What lies between the total length and `end` is padding.
 */
export function ipv4HeaderLength(bytes: Uint8Array, at: number, end: number): number {
  if (end - at < IPV4_HEADER_BYTES) return -1;
  const first = bytes[at] as number;
  const header = (first & 0xf) * 4;
  if (first >>> 4 !== 4 || header < IPV4_HEADER_BYTES) return -1;
  const total = u16(bytes, at + IPV4_TOTAL_LENGTH);
  if (total < header || total > end - at) return -1;
  return checksum(bytes, at, at + header) === 0 ? header : -1;
}

/** Whether the packet is a part of a larger one. */
export function isFragment4(bytes: Uint8Array, at: number): boolean {
  return (u16(bytes, at + IPV4_FRAGMENT) & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)) !== 0;
}

/**
 * Writes a header without options, checksum included, for a packet of `total` bytes; returns where the payload begins.
 * `fragment` are the 16 bits of flags and offset.
 */
export function writeIpv4(
  bytes: Uint8Array,
  at: number,
  total: number,
  protocol: number,
  source: number,
  destination: number,
  id: number,
  fragment: number = IPV4_DONT_FRAGMENT,
  ttl = 64,
): number {
  putU16(bytes, at, 0x4500);
  putU16(bytes, at + IPV4_TOTAL_LENGTH, total);
  putU16(bytes, at + IPV4_ID, id);
  putU16(bytes, at + IPV4_FRAGMENT, fragment);
  bytes[at + IPV4_TTL] = ttl;
  bytes[at + IPV4_PROTOCOL] = protocol;
  putU16(bytes, at + IPV4_CHECKSUM, 0);
  putU32(bytes, at + IPV4_SOURCE, source);
  putU32(bytes, at + IPV4_DESTINATION, destination);
  putU16(bytes, at + IPV4_CHECKSUM, checksum(bytes, at, at + IPV4_HEADER_BYTES));
  return at + IPV4_HEADER_BYTES;
}
