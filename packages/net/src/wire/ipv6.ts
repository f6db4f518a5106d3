/**
 * IPv6 (RFC 8200).
 *
 *   0 version·class·label 4 │ 4 payload length 2 │ 6 next header 1 │ 7 hop limit 1 │ 8 source 16 │ 24 destination 16
 */
import { putU16, putU32, u16 } from './bytes.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from './ipv4.ts';

export const IPV6_HEADER_BYTES = 40;
export const IPV6_PAYLOAD_LENGTH = 4;
export const IPV6_NEXT_HEADER = 6;
export const IPV6_HOP_LIMIT = 7;
export const IPV6_SOURCE = 8;
export const IPV6_DESTINATION = 24;
export const IPV6_ADDRESS_BYTES = 16;

export const PROTOCOL_ICMPV6 = 58;
export const NEXT_HOP_BY_HOP = 0;
export const NEXT_ROUTING = 43;
export const NEXT_FRAGMENT = 44;
export const NEXT_NONE = 59;
export const NEXT_DESTINATION = 60;
export const IPV6_FRAGMENT_BYTES = 8;
/** A packet with more extension headers than this is dropped. */
const EXTENSION_HEADERS_MAX = 8;

/** Whether `bytes[at, end)` begins with a packet whose lengths are sound. */
export function isIpv6(bytes: Uint8Array, at: number, end: number): boolean {
  return (
    end - at >= IPV6_HEADER_BYTES &&
    (bytes[at] as number) >>> 4 === 6 &&
    u16(bytes, at + IPV6_PAYLOAD_LENGTH) <= end - at - IPV6_HEADER_BYTES
  );
}

/**
 * Walks the extension headers of a sound packet that ends at `end`. Returns where the upper-layer header begins (then
 * `bytes[result.typeAt]` is its protocol), or where a fragment header begins; -1 when the chain is broken or too long.
 * The two numbers come packed, so that nothing is allocated: `offset * 65536 + typeAt`, both relative to `at`.
 */
export function upperLayer6(bytes: Uint8Array, at: number, end: number): number {
  let typeAt = IPV6_NEXT_HEADER;
  let offset = IPV6_HEADER_BYTES;
  for (let i = 0; i <= EXTENSION_HEADERS_MAX; i += 1) {
    const type = bytes[at + typeAt] as number;
    if (type === PROTOCOL_TCP || type === PROTOCOL_UDP || type === PROTOCOL_ICMPV6) {
      return offset * 0x10000 + typeAt;
    }
    if (type !== NEXT_HOP_BY_HOP && type !== NEXT_ROUTING && type !== NEXT_DESTINATION) {
      return offset * 0x10000 + typeAt;
    }
    if (at + offset + 8 > end) return -1;
    typeAt = offset;
    offset += ((bytes[at + offset + 1] as number) + 1) * 8;
    if (at + offset > end) return -1;
  }
  return -1;
}

/** Writes a header for `payload` bytes that follow; returns where they begin. Addresses are 16 bytes. */
export function writeIpv6(
  bytes: Uint8Array,
  at: number,
  payload: number,
  nextHeader: number,
  source: Uint8Array,
  destination: Uint8Array,
  hopLimit = 64,
): number {
  putU32(bytes, at, 0x60000000);
  putU16(bytes, at + IPV6_PAYLOAD_LENGTH, payload);
  bytes[at + IPV6_NEXT_HEADER] = nextHeader;
  bytes[at + IPV6_HOP_LIMIT] = hopLimit;
  for (let i = 0; i < IPV6_ADDRESS_BYTES; i += 1) {
    bytes[at + IPV6_SOURCE + i] = source[i] as number;
    bytes[at + IPV6_DESTINATION + i] = destination[i] as number;
  }
  return at + IPV6_HEADER_BYTES;
}
