/**
 * `AttachFrame` by hand: the bulk path. The messages are those of agent.proto (a test holds this codec against the
 * generated one), but a chunk's bytes are neither copied in nor out: decoding gives a view, encoding gives the bytes
 * that come before the data. Unknown fields are skipped, as protobuf wants.
 */
import { violation } from './errors.ts';

export interface CreditFrame {
  readonly kind: 'credit';
  readonly channel: number;
  readonly acked: number;
  readonly limit: number;
}

export interface ChunkFrame {
  readonly kind: 'chunk';
  readonly channel: number;
  readonly offset: number;
  readonly eof: boolean;
  /** A view of the frame. */
  readonly data: Uint8Array;
}

export interface OpenFrame {
  readonly kind: 'open';
  readonly id: string;
  readonly output: CreditFrame | undefined;
  readonly error: CreditFrame | undefined;
}

export type DecodedAttachFrame = CreditFrame | ChunkFrame | OpenFrame;

const EMPTY = new Uint8Array(0);
const UTF8 = new TextDecoder('utf-8', { fatal: true });

/** Reads protobuf fields. Numbers past 2^53 are refused: no offset gets there. */
class Fields {
  readonly #bytes: Uint8Array;
  at: number;
  readonly end: number;

  constructor(bytes: Uint8Array, at: number, end: number) {
    this.#bytes = bytes;
    this.at = at;
    this.end = end;
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (let index = 0; index < 10; index++) {
      if (this.at >= this.end) throw violation('A stream message ends within a number');
      const byte = this.#bytes[this.at++] ?? 0;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) throw violation('A stream message has a number past 2^53');
        return value;
      }
      scale *= 128;
    }
    throw violation('A stream message has a number of more than ten bytes');
  }

  /** The bounds of a length-delimited field, as [start, end]; the reader stands behind it. */
  range(): readonly [number, number] {
    const bytes = this.varint();
    const start = this.at;
    if (bytes > this.end - start) throw violation('A stream message has a field that is longer than itself');
    this.at = start + bytes;
    return [start, this.at];
  }

  view(): Uint8Array {
    const [start, end] = this.range();
    return this.#bytes.subarray(start, end);
  }

  nested(): Fields {
    const [start, end] = this.range();
    return new Fields(this.#bytes, start, end);
  }

  skip(wireType: number): void {
    if (wireType === 0) this.varint();
    else if (wireType === 1) this.at += 8;
    else if (wireType === 2) this.range();
    else if (wireType === 5) this.at += 4;
    else throw violation(`A stream message has a field of the wire type ${wireType}`);
    if (this.at > this.end) throw violation('A stream message ends within a field');
  }
}

/** Throws `ERR_ARCBOX_AGENT_PROTOCOL` when it is none. */
export function decodeAttachFrame(bytes: Uint8Array): DecodedAttachFrame {
  const fields = new Fields(bytes, 0, bytes.length);
  let frame: DecodedAttachFrame | undefined;
  while (fields.at < fields.end) {
    const tag = fields.varint();
    if (tag === 0x12) frame = decodeChunk(fields.nested());
    else if (tag === 0x1a) frame = decodeCredit(fields.nested());
    else if (tag === 0x0a) frame = decodeOpen(fields.nested());
    else skipField(fields, tag);
  }
  if (frame === undefined) throw violation('A stream message is empty');
  return frame;
}

function skipField(fields: Fields, tag: number): void {
  if (tag < 8 || tag > 0xffffffff) throw violation(`A stream message has the field tag ${tag}`);
  fields.skip(tag % 8);
}

function decodeChunk(fields: Fields): ChunkFrame {
  let channel = 0;
  let offset = 0;
  let eof = false;
  let data: Uint8Array = EMPTY;
  while (fields.at < fields.end) {
    const tag = fields.varint();
    if (tag === 0x22) data = fields.view();
    else if (tag === 0x10) offset = fields.varint();
    else if (tag === 0x08) channel = fields.varint();
    else if (tag === 0x18) eof = fields.varint() !== 0;
    else skipField(fields, tag);
  }
  return { kind: 'chunk', channel, offset, eof, data };
}

function decodeCredit(fields: Fields): CreditFrame {
  let channel = 0;
  let acked = 0;
  let limit = 0;
  while (fields.at < fields.end) {
    const tag = fields.varint();
    if (tag === 0x08) channel = fields.varint();
    else if (tag === 0x10) acked = fields.varint();
    else if (tag === 0x18) limit = fields.varint();
    else skipField(fields, tag);
  }
  return { kind: 'credit', channel, acked, limit };
}

function decodeOpen(fields: Fields): OpenFrame {
  let id = '';
  let output: CreditFrame | undefined;
  let error: CreditFrame | undefined;
  while (fields.at < fields.end) {
    const tag = fields.varint();
    if (tag === 0x0a) id = decodeText(fields.view());
    else if (tag === 0x12) output = decodeCredit(fields.nested());
    else if (tag === 0x1a) error = decodeCredit(fields.nested());
    else skipField(fields, tag);
  }
  return { kind: 'open', id, output, error };
}

function decodeText(bytes: Uint8Array): string {
  try {
    return UTF8.decode(bytes);
  } catch (cause) {
    throw violation('A stream message names an object in something other than UTF-8', { cause });
  }
}

function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) bytes++;
  return bytes;
}

function putVarint(target: Uint8Array, start: number, value: number): number {
  let at = start;
  let rest = value;
  while (rest >= 128) {
    target[at++] = (rest % 128) | 0x80;
    rest = Math.floor(rest / 128);
  }
  target[at++] = rest;
  return at;
}

/** The encoding of a chunk up to its data, which has to follow. */
export function encodeChunkHead(
  channel: number,
  offset: number,
  eof: boolean,
  dataBytes: number,
): Uint8Array {
  let body = 1 + varintBytes(channel) + 1 + varintBytes(offset) + (eof ? 2 : 0);
  if (dataBytes > 0) body += 1 + varintBytes(dataBytes);
  const total = body + dataBytes;
  const head = new Uint8Array(1 + varintBytes(total) + body);
  let at = 0;
  head[at++] = 0x12;
  at = putVarint(head, at, total);
  head[at++] = 0x08;
  at = putVarint(head, at, channel);
  head[at++] = 0x10;
  at = putVarint(head, at, offset);
  if (eof) {
    head[at++] = 0x18;
    head[at++] = 1;
  }
  if (dataBytes > 0) {
    head[at++] = 0x22;
    putVarint(head, at, dataBytes);
  }
  return head;
}

function creditBody(channel: number, acked: number, limit: number): Uint8Array {
  const body = new Uint8Array(3 + varintBytes(channel) + varintBytes(acked) + varintBytes(limit));
  body[0] = 0x08;
  let at = putVarint(body, 1, channel);
  body[at++] = 0x10;
  at = putVarint(body, at, acked);
  body[at++] = 0x18;
  putVarint(body, at, limit);
  return body;
}

function delimited(tag: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(1 + varintBytes(body.length) + body.length);
  bytes[0] = tag;
  bytes.set(body, putVarint(bytes, 1, body.length));
  return bytes;
}

export function encodeCredit(channel: number, acked: number, limit: number): Uint8Array {
  return delimited(0x1a, creditBody(channel, acked, limit));
}

export interface CreditInit {
  readonly acked: number;
  readonly limit: number;
}

export function encodeOpen(id: string, output: CreditInit, error: CreditInit): Uint8Array {
  return delimited(
    0x0a,
    Buffer.concat([
      delimited(0x0a, Buffer.from(id, 'utf8')),
      delimited(0x12, creditBody(1, output.acked, output.limit)),
      delimited(0x1a, creditBody(2, error.acked, error.limit)),
    ]),
  );
}
