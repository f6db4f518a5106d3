/**
 * Answers that are still good. Kept as they came, without id and OPT record; what is given out has the TTLs that are
 * left. Bounded in entries and bytes; the least recently used go first.
 */
import { decode } from 'dns-packet';
import { u16, u32 } from '../wire/index.ts';
import { CACHE_BYTES_MAX, CACHE_ENTRIES_MAX, CACHE_NEGATIVE_TTL_S_MAX, CACHE_TTL_S_MAX } from './limits.ts';
import { age, Flag, type Layout, layoutOf, Rcode, RecordTypeCode } from './wire.ts';

interface Entry {
  readonly message: Uint8Array;
  readonly ttlOffsets: readonly number[];
  readonly storedAtMs: number;
  readonly endsAtMs: number;
}

export interface CacheLimits {
  readonly entries?: number;
  readonly bytes?: number;
}

export class AnswerCache {
  readonly #entries = new Map<string, Entry>();
  readonly #entriesMax: number;
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(limits: CacheLimits = {}) {
    this.#entriesMax = limits.entries ?? CACHE_ENTRIES_MAX;
    this.#bytesMax = limits.bytes ?? CACHE_BYTES_MAX;
  }

  get size(): number {
    return this.#entries.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** A copy of the answer with the TTLs that are left. */
  get(key: string, nowMs: number): Uint8Array | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    if (nowMs >= entry.endsAtMs || nowMs < entry.storedAtMs) {
      this.#drop(key, entry);
      return undefined;
    }
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    const copy = Uint8Array.from(entry.message);
    age(copy, entry.ttlOffsets, Math.floor((nowMs - entry.storedAtMs) / 1000));
    return copy;
  }

  /** Keeps an answer without OPT record for as long as it says. */
  put(key: string, message: Uint8Array, nowMs: number): void {
    const layout = layoutOf(message);
    if (layout === undefined) return;
    const ttlS = lifetimeOf(message, layout);
    const held = this.#entries.get(key);
    if (held !== undefined) this.#drop(key, held);
    if (ttlS <= 0 || message.length > this.#bytesMax) return;
    this.#entries.set(key, {
      message,
      ttlOffsets: layout.records.map((record) => record.ttlAt),
      storedAtMs: nowMs,
      endsAtMs: nowMs + ttlS * 1000,
    });
    this.#bytes += message.length;
    for (const [oldest, entry] of this.#entries) {
      if (this.#entries.size <= this.#entriesMax && this.#bytes <= this.#bytesMax) break;
      this.#drop(oldest, entry);
    }
  }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  #drop(key: string, entry: Entry): void {
    this.#entries.delete(key);
    this.#bytes -= entry.message.length;
  }
}

/** How long an answer is good, in seconds; 0: not at all. */
function lifetimeOf(message: Uint8Array, layout: Layout): number {
  const flags = u16(message, 2);
  const rcode = flags & Flag.rcode;
  if ((flags & Flag.truncated) !== 0 || (rcode !== Rcode.noError && rcode !== Rcode.nameError)) return 0;
  const type = u16(message, layout.questionEnd - 4);
  const answers = layout.records.filter((record) => record.section === 0);
  const answered = answers.some((record) => record.type === type) || type === RecordTypeCode.cname;
  const least = Math.min(CACHE_TTL_S_MAX, ...answers.map((record) => ttlOf(message, record.ttlAt)));
  if (rcode === Rcode.noError && answered && answers.length > 0) return least;
  // No such name, or no such record: for as long as the zone says (RFC 2308 §5); without its SOA not at all.
  return Math.min(least, CACHE_NEGATIVE_TTL_S_MAX, negativeTtlOf(message));
}

/** A TTL with its top bit set counts as zero (RFC 2181 §8). */
function ttlOf(message: Uint8Array, at: number): number {
  const ttl = u32(message, at);
  return ttl > 0x7fffffff ? 0 : ttl;
}

function negativeTtlOf(message: Uint8Array): number {
  try {
    const { authorities = [] } = decode(Buffer.from(message.buffer, message.byteOffset, message.byteLength));
    for (const record of authorities) {
      if (record.type === 'SOA') return Math.min(record.ttl ?? 0, record.data.minimum ?? 0);
    }
  } catch {
    // An SOA that cannot be read says nothing.
  }
  return 0;
}

/** The key of a question: its name without regard to case, type and class, and what changes the answer. */
export function cacheKey(question: Uint8Array, flags: number, dnssecOk: boolean): string {
  const text = Buffer.from(question.buffer, question.byteOffset, question.byteLength).toString('latin1');
  const name = text.slice(0, -4).replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  return `${name}${text.slice(-4)}${(flags & Flag.checkingDisabled) !== 0 ? 'c' : ''}${dnssecOk ? 'd' : ''}`;
}
