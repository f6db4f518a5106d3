/**
 * The records of a container's log.
 *
 * A log is a sequence of records; a record is a header of 32 bytes and its payload. All integers are little-endian.
 *
 *   0  u32  magic
 *   4  u8   channel: 1 stdout (or the terminal), 2 stderr, 0 checkpoint
 *   5  u8   flags: 1 = end of the channel
 *   6  u16  zero
 *   8  u32  length of the payload
 *  12  u32  CRC-32 of the header without this field
 *  16  u48  offset of the payload's first byte within its channel and run
 *  22  u48  milliseconds since 1970
 *  28  u32  run: how many times the container had been started
 *
 * A record is valid when its header's checksum is right and its payload is there in full. Nothing is acknowledged to
 * the guest before it was written, so what a crash leaves behind an incomplete last record is still in the guest.
 *
 * A checkpoint carries the state of both channels. It is the first record of every file and marks the start of every
 * run, so that reading one file is enough to know where to go on.
 */
import { crc32 } from 'node:zlib';

export const RECORD_HEADER_BYTES = 32;
const MAGIC = 0x474c4241; // "ABLG"
const FLAG_EOF = 1;
const CHECKPOINT_PAYLOAD_BYTES = 14;

export const CHECKPOINT_BYTES = RECORD_HEADER_BYTES + CHECKPOINT_PAYLOAD_BYTES;

export type Channel = 1 | 2;

export interface RecordHeader {
  /** 0: a checkpoint. */
  readonly channel: 0 | Channel;
  readonly eof: boolean;
  readonly run: number;
  readonly lengthBytes: number;
  readonly offset: number;
  readonly unixMs: number;
}

export interface ChannelState {
  /** Offset of the next byte. */
  next: number;
  eof: boolean;
}

export interface RunState {
  run: number;
  readonly channels: readonly [ChannelState, ChannelState];
}

export function freshRunState(run: number): RunState {
  return {
    run,
    channels: [
      { next: 0, eof: false },
      { next: 0, eof: false },
    ],
  };
}

export function encodeHeader(target: Buffer, at: number, header: RecordHeader): void {
  target.writeUInt32LE(MAGIC, at);
  target[at + 4] = header.channel;
  target[at + 5] = header.eof ? FLAG_EOF : 0;
  target.writeUInt16LE(0, at + 6);
  target.writeUInt32LE(header.lengthBytes, at + 8);
  target.writeUIntLE(header.offset, at + 16, 6);
  target.writeUIntLE(header.unixMs, at + 22, 6);
  target.writeUInt32LE(header.run, at + 28);
  target.writeUInt32LE(checksum(target, at), at + 12);
}

/** The header at `at`, or undefined when there is none that is whole and right. */
export function decodeHeader(source: Buffer, at: number): RecordHeader | undefined {
  if (source.length - at < RECORD_HEADER_BYTES || source.readUInt32LE(at) !== MAGIC) return undefined;
  if (source.readUInt32LE(at + 12) !== checksum(source, at)) return undefined;
  const channel = source[at + 4];
  if (channel !== 0 && channel !== 1 && channel !== 2) return undefined;
  return {
    channel,
    eof: ((source[at + 5] ?? 0) & FLAG_EOF) !== 0,
    run: source.readUInt32LE(at + 28),
    lengthBytes: source.readUInt32LE(at + 8),
    offset: source.readUIntLE(at + 16, 6),
    unixMs: source.readUIntLE(at + 22, 6),
  };
}

export function encodeCheckpoint(state: RunState, unixMs: number): Buffer {
  const record = Buffer.alloc(CHECKPOINT_BYTES);
  state.channels.forEach((channel, index) => {
    record.writeUIntLE(channel.next, RECORD_HEADER_BYTES + index * 7, 6);
    record[RECORD_HEADER_BYTES + index * 7 + 6] = channel.eof ? 1 : 0;
  });
  encodeHeader(record, 0, {
    channel: 0,
    eof: false,
    run: state.run,
    lengthBytes: CHECKPOINT_PAYLOAD_BYTES,
    offset: 0,
    unixMs,
  });
  return record;
}

/**
 * Applies the record at `at`, whose payload is in `source`, to `state`. False when the record cannot follow: it
 * belongs to another run, leaves a gap or repeats something.
 */
export function applyRecord(state: RunState, header: RecordHeader, source: Buffer, at: number): boolean {
  if (header.channel === 0) {
    if (header.lengthBytes !== CHECKPOINT_PAYLOAD_BYTES) return false;
    state.run = header.run;
    state.channels.forEach((channel, index) => {
      channel.next = source.readUIntLE(at + RECORD_HEADER_BYTES + index * 7, 6);
      channel.eof = source[at + RECORD_HEADER_BYTES + index * 7 + 6] === 1;
    });
    return true;
  }
  const channel = state.channels[header.channel - 1];
  if (channel === undefined || header.run !== state.run || header.offset !== channel.next) return false;
  channel.next += header.lengthBytes;
  channel.eof = header.eof;
  return true;
}

/** Walks the complete records in `source` from `from` on; returns where the first incomplete one begins. */
export function forEachRecord(
  source: Buffer,
  from: number,
  visit: (header: RecordHeader, at: number) => boolean | undefined,
): number {
  let at = from;
  for (;;) {
    const header = decodeHeader(source, at);
    if (header === undefined) return at;
    const end = at + RECORD_HEADER_BYTES + header.lengthBytes;
    if (end > source.length || visit(header, at) === false) return at;
    at = end;
  }
}

function checksum(source: Buffer, at: number): number {
  return crc32(source.subarray(at + 16, at + RECORD_HEADER_BYTES), crc32(source.subarray(at, at + 12)));
}
