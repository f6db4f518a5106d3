/** Options of the segment at hand, read into one object that is used again and again. */
import { TCP_WINDOW_SCALE } from '../limits.ts';
import { i32, putU16, putU32, u16 } from '../wire/bytes.ts';
import {
  OPTION_END,
  OPTION_MSS,
  OPTION_NOP,
  OPTION_SACK,
  OPTION_SACK_PERMITTED,
  OPTION_TIMESTAMPS,
  OPTION_WINDOW_SCALE,
  WINDOW_SCALE_MAX,
} from '../wire/tcp.ts';
import type { Ranges } from './ranges.ts';

const SACK_BLOCKS_READ_MAX = 4;
/** NOP, NOP, timestamps, 10: what nearly every segment begins its options with. */
const TIMESTAMPS_WORD = 0x0101080a;

export class TcpOptions {
  /** 0: not given. */
  mss = 0;
  /** -1: not given. */
  windowScale = -1;
  sackPermitted = false;
  timestamps = false;
  timestampValue = 0;
  timestampEcho = 0;
  sackCount = 0;
  readonly sack: Int32Array = new Int32Array(2 * SACK_BLOCKS_READ_MAX);

  /** Reads `bytes[at, end)`. What comes after an impossible length is ignored, for nobody can know where it begins. */
  read(bytes: Uint8Array, start: number, end: number): void {
    this.mss = 0;
    this.windowScale = -1;
    this.sackPermitted = false;
    this.timestamps = false;
    this.sackCount = 0;
    let at = start;
    if (end - at === 12 && i32(bytes, at) === TIMESTAMPS_WORD) {
      this.timestamps = true;
      this.timestampValue = i32(bytes, at + 4);
      this.timestampEcho = i32(bytes, at + 8);
      return;
    }
    while (at < end) {
      const kind = bytes[at] as number;
      if (kind === OPTION_END) return;
      if (kind === OPTION_NOP) {
        at += 1;
        continue;
      }
      const length = at + 1 < end ? (bytes[at + 1] as number) : 0;
      if (length < 2 || at + length > end) return;
      if (kind === OPTION_MSS && length === 4) this.mss = u16(bytes, at + 2);
      else if (kind === OPTION_WINDOW_SCALE && length === 3) {
        this.windowScale = Math.min(bytes[at + 2] as number, WINDOW_SCALE_MAX);
      } else if (kind === OPTION_SACK_PERMITTED && length === 2) this.sackPermitted = true;
      else if (kind === OPTION_TIMESTAMPS && length === 10) {
        this.timestamps = true;
        this.timestampValue = i32(bytes, at + 2);
        this.timestampEcho = i32(bytes, at + 6);
      } else if (kind === OPTION_SACK && (length - 2) % 8 === 0) {
        for (let block = at + 2; block < at + length && this.sackCount < SACK_BLOCKS_READ_MAX; block += 8) {
          this.sack[2 * this.sackCount] = i32(bytes, block);
          this.sack[2 * this.sackCount + 1] = i32(bytes, block + 4);
          this.sackCount += 1;
        }
      }
      at += length;
    }
  }
}

/** Options of a SYN; returns where they end (a multiple of four). `windowScale` below zero: none. */
export function writeSynOptions(
  bytes: Uint8Array,
  start: number,
  mss: number,
  scales: boolean,
  sack: boolean,
  timestamps: boolean,
  value: number,
  echo: number,
): number {
  let at = start;
  bytes[at] = OPTION_MSS;
  bytes[at + 1] = 4;
  putU16(bytes, at + 2, mss);
  at += 4;
  if (timestamps) {
    bytes[at] = sack ? OPTION_SACK_PERMITTED : OPTION_NOP;
    bytes[at + 1] = sack ? 2 : OPTION_NOP;
    bytes[at + 2] = OPTION_TIMESTAMPS;
    bytes[at + 3] = 10;
    putU32(bytes, at + 4, value);
    putU32(bytes, at + 8, echo);
    at += 12;
  } else if (sack) {
    bytes[at] = OPTION_NOP;
    bytes[at + 1] = OPTION_NOP;
    bytes[at + 2] = OPTION_SACK_PERMITTED;
    bytes[at + 3] = 2;
    at += 4;
  }
  if (scales) {
    bytes[at] = OPTION_NOP;
    bytes[at + 1] = OPTION_WINDOW_SCALE;
    bytes[at + 2] = 3;
    bytes[at + 3] = TCP_WINDOW_SCALE;
    at += 4;
  }
  return at;
}

export function writeTimestamps(bytes: Uint8Array, at: number, value: number, echo: number): void {
  putU32(bytes, at, TIMESTAMPS_WORD);
  putU32(bytes, at + 4, value);
  putU32(bytes, at + 8, echo);
}

/** At most `max` ranges, the latest first; returns where the option ends. */
export function writeSack(bytes: Uint8Array, start: number, ranges: Ranges, max: number): number {
  const count = Math.min(max, ranges.count);
  bytes[start] = OPTION_NOP;
  bytes[start + 1] = OPTION_NOP;
  bytes[start + 2] = OPTION_SACK;
  bytes[start + 3] = 2 + 8 * count;
  let at = start + 4;
  for (let i = 0; i < count; i += 1) {
    const index = (ranges.latest + i) % ranges.count;
    putU32(bytes, at, ranges.start(index));
    putU32(bytes, at + 4, ranges.end(index));
    at += 8;
  }
  return at;
}
