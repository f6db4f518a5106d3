/**
 * TCP segments (RFC 9293 section 3.1) and their options.
 *
 *   0 source port 2 │ 2 destination port 2 │ 4 sequence 4 │ 8 acknowledgement 4 │ 12 data offset 1 │ 13 flags 1 │ 14 window 2 │ 16 checksum 2 │ 18 urgent 2 │ options
 */
import { putU16, putU32 } from './bytes.ts';

export const TCP_HEADER_BYTES = 20;
export const TCP_SOURCE_PORT = 0;
export const TCP_DESTINATION_PORT = 2;
export const TCP_SEQUENCE = 4;
export const TCP_ACKNOWLEDGEMENT = 8;
export const TCP_DATA_OFFSET = 12;
export const TCP_FLAGS = 13;
export const TCP_WINDOW = 14;
export const TCP_CHECKSUM = 16;
export const TCP_URGENT = 18;

export const TCP_FIN = 0x01;
export const TCP_SYN = 0x02;
export const TCP_RST = 0x04;
export const TCP_PSH = 0x08;
export const TCP_ACK = 0x10;
export const TCP_URG = 0x20;

export const OPTION_END = 0;
export const OPTION_NOP = 1;
export const OPTION_MSS = 2;
export const OPTION_WINDOW_SCALE = 3;
export const OPTION_SACK_PERMITTED = 4;
export const OPTION_SACK = 5;
export const OPTION_TIMESTAMPS = 8;
/** With two bytes of padding before it. */
export const TIMESTAMPS_BYTES = 12;
export const WINDOW_SCALE_MAX = 14;

/** Length of the header at `at`, options included, or -1 when it does not fit before `end`. */
export function tcpHeaderLength(bytes: Uint8Array, at: number, end: number): number {
  if (end - at < TCP_HEADER_BYTES) return -1;
  const header = ((bytes[at + TCP_DATA_OFFSET] as number) >>> 4) * 4;
  return header < TCP_HEADER_BYTES || header > end - at ? -1 : header;
}

/** Writes a header of `header` bytes with checksum 0 and no options yet; returns where the options begin. */
export function writeTcp(
  bytes: Uint8Array,
  at: number,
  header: number,
  sourcePort: number,
  destinationPort: number,
  sequence: number,
  acknowledgement: number,
  flags: number,
  window: number,
): number {
  putU16(bytes, at + TCP_SOURCE_PORT, sourcePort);
  putU16(bytes, at + TCP_DESTINATION_PORT, destinationPort);
  putU32(bytes, at + TCP_SEQUENCE, sequence);
  putU32(bytes, at + TCP_ACKNOWLEDGEMENT, acknowledgement);
  bytes[at + TCP_DATA_OFFSET] = header << 2;
  bytes[at + TCP_FLAGS] = flags;
  putU16(bytes, at + TCP_WINDOW, window);
  putU32(bytes, at + TCP_CHECKSUM, 0);
  return at + TCP_HEADER_BYTES;
}
