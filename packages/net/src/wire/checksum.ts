/**
 * The Internet checksum (RFC 1071): the one's complement of the one's complement sum of 16-bit words.
 *
 * A *sum* is unfolded: any number below 2⁵³ that is congruent to it modulo 65535, so sums of parts are added with `+`
 * (a part that begins at an odd offset is `swapped` first) and folded once at the end. Large buffers that lie in the
 * arena are summed by `memory/kernels.ts` with SIMD; this is the portable one.
 */
import { u16 } from './bytes.ts';

/** The sum of `bytes[start, end)`, an odd last byte padded with zero, added to `initial`. */
export function sum16(bytes: Uint8Array, start: number, end: number, initial = 0): number {
  let sum = 0;
  let at = start;
  const even = end - ((end - start) & 1);
  for (; at < even; at += 2) sum += ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  if (at < end) sum += (bytes[at] as number) << 8;
  return initial + sum;
}

/** Folds a sum to 16 bits. */
export function fold(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded % 0x10000) + Math.floor(folded / 0x10000);
  return folded;
}

/** The sum of a part that begins at an odd offset of the whole (RFC 1071 section 2 B). */
export function swapped(sum: number): number {
  const folded = fold(sum);
  return ((folded & 0xff) << 8) | (folded >>> 8);
}

/** What goes into the checksum field. The field itself must be zero in what was summed. */
export function finish(sum: number): number {
  return ~fold(sum) & 0xffff;
}

/** The checksum of `bytes[start, end)`. Over bytes that hold a right checksum it is 0. */
export function checksum(bytes: Uint8Array, start: number, end: number, initial = 0): number {
  return finish(sum16(bytes, start, end, initial));
}

/**
 * The checksum after a 16-bit word at an even offset changed from `before` to `after`: HC' = ~(~HC + ~m + m')
 * (RFC 1624 equation 3, which is right where RFC 1141's gives the wrong zero).
 */
export function updated16(check: number, before: number, after: number): number {
  let sum = (~check & 0xffff) + (~before & 0xffff) + after;
  sum = (sum & 0xffff) + (sum >>> 16);
  sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** As `updated16`, for a 32-bit word, such as an IPv4 address. */
export function updated32(check: number, before: number, after: number): number {
  let sum =
    (~check & 0xffff) +
    (~(before >>> 16) & 0xffff) +
    (~before & 0xffff) +
    ((after >>> 16) & 0xffff) +
    (after & 0xffff);
  sum = (sum & 0xffff) + (sum >>> 16);
  sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** Sum of the IPv4 pseudo-header (RFC 9293 section 3.1): `addresses` is where source and destination lie, 8 bytes. */
export function pseudoSum4(bytes: Uint8Array, addresses: number, protocol: number, length: number): number {
  return (
    u16(bytes, addresses) +
    u16(bytes, addresses + 2) +
    u16(bytes, addresses + 4) +
    u16(bytes, addresses + 6) +
    protocol +
    length
  );
}

/** Sum of the IPv6 pseudo-header (RFC 8200 section 8.1): `addresses` is where source and destination lie, 32 bytes. */
export function pseudoSum6(bytes: Uint8Array, addresses: number, protocol: number, length: number): number {
  let sum = protocol + (length & 0xffff) + (length >>> 16);
  for (let at = addresses; at < addresses + 32; at += 2) sum += u16(bytes, at);
  return sum;
}
