/**
 * Changes to packets in place. A checksum is not calculated again but changed by what changed (RFC 1624): for a
 * connection that is always the same, so it is calculated once, when the connection is made.
 *
 *   HC' = ~(~HC + ~m + m')    delta = ~m + m' over all changed words, folded to 16 bits
 *
 * On the way back every change is undone, and the delta is the complement.
 */
import { putU16, u16 } from '../wire/index.ts';

/** ~m + m' of a 32-bit word, folded. */
export function delta32(before: number, after: number): number {
  return fold16((~before >>> 16) + (~before & 0xffff) + (after >>> 16) + (after & 0xffff));
}

/** ~m + m' of a 16-bit word, folded. */
export function delta16(before: number, after: number): number {
  return fold16((~before & 0xffff) + after);
}

/** Folds a sum below 2³². */
export function fold16(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/** Applies a delta to the checksum at `at`. */
export function adjust(bytes: Uint8Array, at: number, delta: number): void {
  const sum = (~u16(bytes, at) & 0xffff) + delta;
  putU16(bytes, at, ~((sum & 0xffff) + (sum >>> 16)));
}

/** The same for UDP, where 0 says that there is none (RFC 768). */
export function adjustUdp(bytes: Uint8Array, at: number, delta: number): void {
  const before = u16(bytes, at);
  if (before === 0) return;
  const sum = (~before & 0xffff) + delta;
  const after = ~((sum & 0xffff) + (sum >>> 16)) & 0xffff;
  putU16(bytes, at, after === 0 ? 0xffff : after);
}
