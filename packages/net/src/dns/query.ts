/** What a client asks, and answers to it that fit what it takes. */
import { type Answer, decode, encode, type Question } from 'dns-packet';
import { putU16, u16, u32 } from '../wire/index.ts';
import { MESSAGE_BYTES_MAX, UDP_BYTES_MAX, UDP_BYTES_PLAIN } from './limits.ts';
import { CLASS_IN, Flag, HEADER_BYTES, layoutOf, optRecord, Rcode, RecordTypeCode } from './wire.ts';

export type Transport = 'udp' | 'tcp';

export interface Query {
  readonly id: number;
  /** The second word of the header. */
  readonly flags: number;
  /** Lower case, without the dot at the end; `` for the root. */
  readonly name: string;
  /** The name as it came, for answers. */
  readonly spelt: string;
  readonly type: number;
  /** Name, type and class as they came. */
  readonly question: Uint8Array;
  /** What the client said in its OPT record. */
  readonly edns: { readonly dnssecOk: boolean } | undefined;
  /** Largest answer that it takes. */
  readonly bytesMax: number;
}

const DNSSEC_OK = 0x8000;
/** RFC 6891 §9: the upper bits are in the OPT record. */
const BADVERS = 16;

export type Parsed =
  | { readonly kind: 'query'; readonly query: Query }
  /** Answered without looking further. */
  | { readonly kind: 'answer'; readonly answer: Uint8Array }
  /** Not answered: too short, or an answer itself. */
  | { readonly kind: 'drop' };

export function parseQuery(message: Uint8Array, transport: Transport): Parsed {
  if (message.length < HEADER_BYTES) return { kind: 'drop' };
  const flags = u16(message, 2);
  if ((flags & Flag.response) !== 0) return { kind: 'drop' };
  const refuse = (rcode: number): Parsed => ({ kind: 'answer', answer: bareError(message, rcode) });
  if ((flags & Flag.opcode) !== 0) return refuse(Rcode.notImplemented);
  const layout = layoutOf(message);
  if (layout === undefined) return refuse(Rcode.formatError);
  const question = message.subarray(HEADER_BYTES, layout.questionEnd);
  // The first name has nothing before it that a pointer could mean.
  if (question.length < 5 || containsPointer(question)) return refuse(Rcode.formatError);
  const spelt = nameOf(message);
  if (spelt === undefined) return refuse(Rcode.formatError);
  const type = u16(message, layout.questionEnd - 4);
  const opts = layout.records.filter((record) => record.type === RecordTypeCode.opt);
  const opt = opts[0];
  if (opts.length > 1 || (opt !== undefined && opt.section !== 2)) return refuse(Rcode.formatError);
  const said = opt === undefined ? UDP_BYTES_PLAIN : u16(message, opt.ttlAt - 2);
  const extended = opt === undefined ? 0 : u32(message, opt.ttlAt);
  const query: Query = {
    id: u16(message, 0),
    flags,
    name: spelt.toLowerCase(),
    spelt,
    type,
    question: Uint8Array.from(question),
    edns: opt === undefined ? undefined : { dnssecOk: (extended & DNSSEC_OK) !== 0 },
    bytesMax:
      transport === 'tcp' ? MESSAGE_BYTES_MAX : Math.min(Math.max(said, UDP_BYTES_PLAIN), UDP_BYTES_MAX),
  };
  if (((extended >>> 16) & 0xff) !== 0) return { kind: 'answer', answer: emptyAnswer(query, BADVERS) };
  if (u16(message, layout.questionEnd - 2) !== CLASS_IN) return refuse(Rcode.refused);
  // Transfers of zones, and ANY (RFC 8482), are not for clients of a forwarder.
  if (type === RecordTypeCode.axfr || type === RecordTypeCode.ixfr || type === RecordTypeCode.any) {
    return { kind: 'answer', answer: emptyAnswer(query, Rcode.refused) };
  }
  return { kind: 'query', query };
}

function containsPointer(question: Uint8Array): boolean {
  for (let at = 0; at < question.length; at += 1 + (question[at] as number)) {
    if ((question[at] as number) >= 0xc0) return true;
    if (question[at] === 0) return at + 5 !== question.length;
  }
  return true;
}

function nameOf(message: Uint8Array): string | undefined {
  try {
    const name = decode(Buffer.from(message.buffer, message.byteOffset, message.byteLength)).questions?.[0]
      ?.name;
    return name === '.' ? '' : name;
  } catch {
    return undefined;
  }
}

/** An answer to what could not be understood: the header, nothing else. */
function bareError(message: Uint8Array, rcode: number): Uint8Array {
  const answer = new Uint8Array(HEADER_BYTES);
  putU16(answer, 0, u16(message, 0));
  const kept = u16(message, 2) & (Flag.opcode | Flag.recursionDesired);
  putU16(answer, 2, Flag.response | kept | Flag.recursionAvailable | rcode);
  return answer;
}

/** An answer without records. `rcode` may have more than four bits when the client speaks EDNS. */
export function emptyAnswer(query: Query, rcode: number, flags = 0): Uint8Array {
  const body = new Uint8Array(HEADER_BYTES + query.question.length);
  putU16(body, 4, 1);
  body.set(query.question, HEADER_BYTES);
  putU16(body, 2, (rcode & Flag.rcode) | flags);
  return finished(query, body, rcode >>> 4);
}

/** An answer of our own. Only for names that text says exactly. */
export function localAnswer(
  query: Query,
  records: { readonly answers?: Answer[]; readonly authorities?: Answer[]; readonly rcode?: number },
): Uint8Array {
  const questions: Question[] = [{ name: query.spelt, type: 'A' }];
  const { answers = [], authorities = [], rcode = Rcode.noError } = records;
  const body = encode({
    type: 'response',
    id: 0,
    flags: Flag.authoritative,
    questions,
    answers,
    authorities,
  });
  // The codec has no word for every type; the question goes back as it came.
  body.set(query.question, HEADER_BYTES);
  putU16(body, 2, Flag.authoritative | rcode);
  return finished(query, body);
}

/**
 * Makes the client's answer of a message without OPT record: its id, its flags, its question as it was spelt, its OPT
 * record, and no longer than it takes. `body` is changed.
 */
export function finished(query: Query, body: Uint8Array, extendedRcode = 0): Uint8Array {
  const opt =
    query.edns === undefined
      ? undefined
      : optRecord(UDP_BYTES_MAX, extendedRcode, query.edns.dnssecOk ? DNSSEC_OK : 0);
  const asked = query.flags & (Flag.recursionDesired | Flag.checkingDisabled);
  const wantsAuthentic = (query.flags & Flag.authentic) !== 0 || query.edns?.dnssecOk === true;
  const kept = Flag.authoritative | Flag.rcode | (wantsAuthentic ? Flag.authentic : 0);
  let flags = Flag.response | Flag.recursionAvailable | asked | (u16(body, 2) & kept);
  let whole = body;
  const optBytes = opt?.length ?? 0;
  if (body.length + optBytes > query.bytesMax) {
    whole = body.slice(0, HEADER_BYTES + query.question.length);
    flags |= Flag.truncated;
    whole.fill(0, 6, HEADER_BYTES);
  }
  whole.set(query.question, HEADER_BYTES);
  putU16(whole, 0, query.id);
  putU16(whole, 2, flags);
  if (opt === undefined) return whole;
  putU16(whole, 10, u16(whole, 10) + 1);
  return Buffer.concat([whole, opt]);
}
