/**
 * UDP (RFC 768).
 *
 *   0 source port 2 │ 2 destination port 2 │ 4 length 2 │ 6 checksum 2
 */
import { putU16, u16 } from './bytes.ts';

export const UDP_HEADER_BYTES = 8;
export const UDP_SOURCE_PORT = 0;
export const UDP_DESTINATION_PORT = 2;
export const UDP_LENGTH = 4;
export const UDP_CHECKSUM = 6;

/** Whether the datagram's length is possible; `end` is where the IP payload ends. */
export function isUdp(bytes: Uint8Array, at: number, end: number): boolean {
  if (end - at < UDP_HEADER_BYTES) return false;
  const length = u16(bytes, at + UDP_LENGTH);
  return length >= UDP_HEADER_BYTES && length <= end - at;
}

/** Writes a header with checksum 0 (filled in once the payload is there); returns where the payload begins. */
export function writeUdp(
  bytes: Uint8Array,
  at: number,
  sourcePort: number,
  destinationPort: number,
  payload: number,
): number {
  putU16(bytes, at + UDP_SOURCE_PORT, sourcePort);
  putU16(bytes, at + UDP_DESTINATION_PORT, destinationPort);
  putU16(bytes, at + UDP_LENGTH, UDP_HEADER_BYTES + payload);
  putU16(bytes, at + UDP_CHECKSUM, 0);
  return at + UDP_HEADER_BYTES;
}
