/**
 * A DNS message (RFC 1035 §4.1) taken apart by offset, no further than forwarding needs: where the question ends and
 * where each record lies. What records mean is the codec's business (`dns-packet`); this is for passing an answer on
 * byte by byte, with other TTLs, another id and without its OPT record, so that types nobody knows yet pass unharmed.
 */
import { putU16, putU32, u16, u32 } from '../wire/index.ts';

export const HEADER_BYTES = 12;
/** Bits of the second header word. */
export const Flag = {
  response: 0x8000,
  opcode: 0x7800,
  authoritative: 0x0400,
  truncated: 0x0200,
  recursionDesired: 0x0100,
  recursionAvailable: 0x0080,
  authentic: 0x0020,
  checkingDisabled: 0x0010,
  rcode: 0x000f,
} as const;

export const Rcode = {
  noError: 0,
  formatError: 1,
  serverFailure: 2,
  nameError: 3,
  notImplemented: 4,
  refused: 5,
} as const;

export const RecordTypeCode = {
  a: 1,
  cname: 5,
  soa: 6,
  ptr: 12,
  aaaa: 28,
  opt: 41,
  ixfr: 251,
  axfr: 252,
  any: 255,
} as const;
export const CLASS_IN = 1;

/** A record of the smallest size: root name, type, class, TTL, no data. */
const RECORD_BYTES_MIN = 11;
const QUESTION_BYTES_MIN = 5;

export interface RecordPlace {
  /** 0 answer, 1 authority, 2 additional. */
  readonly section: number;
  readonly type: number;
  readonly start: number;
  readonly ttlAt: number;
  readonly dataAt: number;
  readonly end: number;
}

export interface Layout {
  readonly questionEnd: number;
  readonly records: readonly RecordPlace[];
}

/** Where everything is in a message with one question; `undefined` when it is not sound, or has another number. */
export function layoutOf(message: Uint8Array): Layout | undefined {
  if (message.length < HEADER_BYTES || u16(message, 4) !== 1) return undefined;
  const counts = [u16(message, 6), u16(message, 8), u16(message, 10)];
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (HEADER_BYTES + QUESTION_BYTES_MIN + total * RECORD_BYTES_MIN > message.length) return undefined;
  const nameEnd = skipName(message, HEADER_BYTES);
  if (nameEnd < 0 || nameEnd + 4 > message.length) return undefined;
  const questionEnd = nameEnd + 4;
  const records: RecordPlace[] = [];
  let at = questionEnd;
  for (const [section, count] of counts.entries()) {
    for (let i = 0; i < count; i++) {
      const start = at;
      const fields = skipName(message, at);
      if (fields < 0 || fields + 10 > message.length) return undefined;
      const dataAt = fields + 10;
      at = dataAt + u16(message, fields + 8);
      if (at > message.length) return undefined;
      records.push({ section, type: u16(message, fields), start, ttlAt: fields + 4, dataAt, end: at });
    }
  }
  return { questionEnd, records };
}

/** Where the name at `from` ends, or -1. A pointer ends it. */
function skipName(message: Uint8Array, from: number): number {
  for (let at = from; at < message.length && at - from <= 255; ) {
    const length = message[at] as number;
    if (length === 0) return at + 1;
    if (length >= 0xc0) return at + 2 <= message.length ? at + 2 : -1;
    if (length > 63) return -1;
    at += 1 + length;
  }
  return -1;
}

/** A copy of the message without its OPT record; `undefined` when that is not the last one, as it always should be. */
export function withoutOpt(message: Uint8Array, layout: Layout): Uint8Array | undefined {
  const last = layout.records.at(-1);
  const opts = layout.records.filter((record) => record.type === RecordTypeCode.opt);
  if (opts.length === 0) return Uint8Array.from(message.subarray(0, last?.end ?? layout.questionEnd));
  if (opts.length > 1 || opts[0] !== last || last === undefined) return undefined;
  const bytes = Uint8Array.from(message.subarray(0, last.start));
  putU16(bytes, 10, u16(bytes, 10) - 1);
  return bytes;
}

/** An OPT record (RFC 6891 §6.1.2). `flags` has the DO bit on top. */
export function optRecord(udpBytes: number, extendedRcode: number, flags: number): Uint8Array {
  const bytes = new Uint8Array(RECORD_BYTES_MIN);
  putU16(bytes, 1, RecordTypeCode.opt);
  putU16(bytes, 3, udpBytes);
  bytes[5] = extendedRcode;
  putU16(bytes, 7, flags);
  return bytes;
}

/** Whether two questions are the same; names compare without regard to case (RFC 1035 §2.3.3). */
export function sameQuestion(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  const letters = a.length - 4;
  for (let i = 0; i < a.length; i++) {
    let x = a[i] as number;
    let y = b[i] as number;
    if (i < letters) {
      if (x >= 0x41 && x <= 0x5a) x += 0x20;
      if (y >= 0x41 && y <= 0x5a) y += 0x20;
    }
    if (x !== y) return false;
  }
  return true;
}

/** Sets every TTL to what is left of it after `ageS` seconds. */
export function age(message: Uint8Array, ttlOffsets: readonly number[], ageS: number): void {
  for (const at of ttlOffsets) putU32(message, at, Math.max(0, u32(message, at) - ageS));
}
