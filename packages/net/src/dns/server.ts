/**
 * A DNS server without sockets: a message in, an answer out. Local names first, then the cache, then the host's
 * resolvers. Questions that are the same and on their way are asked once.
 */
import type { Answer } from 'dns-packet';
import { NetError, reasonOf } from '../errors.ts';
import { formatIp, unmapped } from '../ipam/index.ts';
import { u16 } from '../wire/index.ts';
import { AnswerCache, cacheKey } from './cache.ts';
import { FORWARDED_MAX, FORWARDED_PER_SOURCE_MAX, LOCAL_TTL_S } from './limits.ts';
import { type DnsSource, LOCAL_DOMAIN, type LocalNames, type LocalResult } from './names.ts';
import { emptyAnswer, finished, localAnswer, parseQuery, type Query, type Transport } from './query.ts';
import type { Upstream } from './upstream.ts';
import { Flag, HEADER_BYTES, layoutOf, Rcode, RecordTypeCode, sameQuestion } from './wire.ts';

/** An answer with addresses, as somebody was given it. */
export interface ResolvedName {
  readonly source: DnsSource;
  /** The name that was asked for, lower case. */
  readonly name: string;
  readonly addresses: readonly string[];
  /** The least of the records that lead to the addresses. */
  readonly ttlS: number;
  /** The name is one of ours, not the world's. */
  readonly local: boolean;
}

export interface DnsServerOptions {
  readonly upstream: Upstream;
  readonly names?: LocalNames;
  readonly cache?: AnswerCache;
  /** Called before the answer goes out, so that what it allows is allowed when the client connects. */
  readonly onAnswer?: (resolved: ResolvedName) => void;
  /** False: the name may not be asked for; the client hears REFUSED, and nobody hears the name. */
  readonly mayAsk?: (source: DnsSource, name: string) => boolean;
  /** A question that no resolver answered. */
  readonly onFailure?: (name: string, reason: string) => void;
  readonly nowMs?: () => number;
}

export interface DnsCounters {
  queries: number;
  local: number;
  cached: number;
  forwarded: number;
  /** Not understood, or not ours to answer. */
  rejected: number;
  /** Refused by `mayAsk`. */
  refused: number;
  failed: number;
  truncated: number;
}

export class DnsServer {
  readonly counters: DnsCounters = {
    queries: 0,
    local: 0,
    cached: 0,
    forwarded: 0,
    rejected: 0,
    refused: 0,
    failed: 0,
    truncated: 0,
  };
  readonly #options: DnsServerOptions;
  readonly #cache: AnswerCache;
  readonly #nowMs: () => number;
  readonly #onTheWay = new Map<string, Promise<Uint8Array>>();
  readonly #waiting = new Map<string, number>();
  #waitingTotal = 0;
  #turn = 0;

  constructor(options: DnsServerOptions) {
    this.#options = options;
    this.#cache = options.cache ?? new AnswerCache();
    this.#nowMs = options.nowMs ?? (() => performance.now());
  }

  /** Answers a message; `undefined` when it deserves none. Never rejects. */
  async handle(
    message: Uint8Array,
    source: DnsSource,
    transport: Transport,
  ): Promise<Uint8Array | undefined> {
    const parsed = parseQuery(message, transport);
    if (parsed.kind === 'drop') {
      this.counters.rejected++;
      return undefined;
    }
    this.counters.queries++;
    if (parsed.kind === 'answer') {
      this.counters.rejected++;
      return parsed.answer;
    }
    const answer = await this.#answer(parsed.query, source).catch((error: unknown) => {
      this.counters.failed++;
      this.#options.onFailure?.(parsed.query.name, reasonOf(error));
      return emptyAnswer(parsed.query, Rcode.serverFailure);
    });
    if ((u16(answer, 2) & Flag.truncated) !== 0) this.counters.truncated++;
    return answer;
  }

  async #answer(query: Query, source: DnsSource): Promise<Uint8Array> {
    const local = this.#options.names?.resolve(source, query.name);
    if (local !== undefined) {
      this.counters.local++;
      return this.#local(query, source, local);
    }
    if (this.#options.mayAsk?.(source, query.name) === false) {
      this.counters.refused++;
      return emptyAnswer(query, Rcode.refused);
    }
    const dnssecOk = query.edns?.dnssecOk ?? false;
    const key = cacheKey(query.question, query.flags, dnssecOk);
    let body = this.#cache.get(key, this.#nowMs());
    if (body === undefined) {
      const asked = await this.#ask(key, query, source);
      if (asked === undefined) {
        this.counters.failed++;
        return emptyAnswer(query, Rcode.serverFailure);
      }
      body = Uint8Array.from(asked);
    } else {
      this.counters.cached++;
    }
    this.#report(query, source, body);
    return finished(query, withoutFlag(body, Flag.authoritative));
  }

  async #ask(key: string, query: Query, source: DnsSource): Promise<Uint8Array | undefined> {
    const mine = this.#waiting.get(source.vm) ?? 0;
    if (this.#waitingTotal >= FORWARDED_MAX || mine >= FORWARDED_PER_SOURCE_MAX) {
      this.#options.onFailure?.(query.name, 'too many questions are waiting for an answer');
      return undefined;
    }
    this.#waitingTotal++;
    this.#waiting.set(source.vm, mine + 1);
    try {
      let answer = this.#onTheWay.get(key);
      if (answer === undefined) {
        this.counters.forwarded++;
        answer = this.#forward(key, query);
        this.#onTheWay.set(key, answer);
        const done = (): boolean => this.#onTheWay.delete(key);
        answer.then(done, done);
      }
      return await answer;
    } catch (error) {
      this.#options.onFailure?.(query.name, reasonOf(error));
      return undefined;
    } finally {
      this.#waitingTotal--;
      const left = (this.#waiting.get(source.vm) ?? 1) - 1;
      if (left === 0) this.#waiting.delete(source.vm);
      else this.#waiting.set(source.vm, left);
    }
  }

  async #forward(key: string, query: Query): Promise<Uint8Array> {
    const answer = await this.#options.upstream.ask({
      question: query.question,
      dnssecOk: query.edns?.dnssecOk ?? false,
      checkingDisabled: (query.flags & Flag.checkingDisabled) !== 0,
    });
    const end = layoutOf(answer)?.questionEnd ?? 0;
    if (!sameQuestion(answer.subarray(HEADER_BYTES, end), query.question)) {
      throw new NetError('ERR_ARCBOX_NET_DNS', 'what came back is no answer to the question');
    }
    this.#cache.put(key, answer, this.#nowMs());
    return answer;
  }

  #local(query: Query, source: DnsSource, result: LocalResult): Uint8Array {
    const name = query.spelt;
    const none = { authorities: [startOfAuthority(query)] };
    if (result.kind === 'no-such-name') return localAnswer(query, { ...none, rcode: Rcode.nameError });
    if (result.kind === 'pointer') {
      if (query.type !== RecordTypeCode.ptr) return localAnswer(query, none);
      return localAnswer(query, { answers: [{ type: 'PTR', name, ttl: LOCAL_TTL_S, data: result.name }] });
    }
    const wanted = result.addresses.filter(
      (address) => query.type === (address.includes(':') ? RecordTypeCode.aaaa : RecordTypeCode.a),
    );
    // The name exists; it has no record of this type (RFC 2308 §2.2).
    if (wanted.length === 0) return localAnswer(query, none);
    // Several containers of one name take turns.
    const first = this.#turn++ % wanted.length;
    const turned = [...wanted.slice(first), ...wanted.slice(0, first)];
    const answers = turned.map((address): Answer => {
      const type = address.includes(':') ? 'AAAA' : 'A';
      return { type, name, ttl: LOCAL_TTL_S, data: address };
    });
    const resolved = { source, name: query.name, addresses: turned, ttlS: LOCAL_TTL_S, local: true };
    this.#options.onAnswer?.(resolved);
    return localAnswer(query, { answers });
  }

  #report(query: Query, source: DnsSource, body: Uint8Array): void {
    const { onAnswer } = this.#options;
    if (onAnswer === undefined || !isAddressType(query.type)) return;
    const layout = layoutOf(body);
    if (layout === undefined) return;
    const addresses: string[] = [];
    let ttlS = Infinity;
    const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
    for (const record of layout.records) {
      if (record.section !== 0) continue;
      ttlS = Math.min(ttlS, view.getUint32(record.ttlAt));
      if (record.type === query.type && isAddressType(record.type)) {
        const bytes = body.subarray(record.dataAt, record.end);
        const family = record.type === RecordTypeCode.a ? 4 : 6;
        if (bytes.length !== (family === 4 ? 4 : 16)) continue;
        const value = BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
        addresses.push(formatIp(unmapped({ family, value })));
      }
    }
    if (addresses.length > 0) onAnswer({ source, name: query.name, addresses, ttlS, local: false });
  }
}

function isAddressType(type: number): boolean {
  return type === RecordTypeCode.a || type === RecordTypeCode.aaaa;
}

function withoutFlag(body: Uint8Array, flag: number): Uint8Array {
  const flags = u16(body, 2) & ~flag;
  body[2] = flags >>> 8;
  body[3] = flags;
  return body;
}

/** What a resolver caches a "no" by. */
function startOfAuthority(query: Query): Answer {
  const inside = query.name === LOCAL_DOMAIN || query.name.endsWith(`.${LOCAL_DOMAIN}`);
  const data = {
    mname: `ns.${LOCAL_DOMAIN}`,
    rname: `hostmaster.${LOCAL_DOMAIN}`,
    serial: 1,
    refresh: 3600,
    retry: 600,
    expire: 86_400,
    minimum: LOCAL_TTL_S,
  };
  // A name elsewhere that is ours is a zone of its own.
  return { type: 'SOA', name: inside ? LOCAL_DOMAIN : query.spelt, ttl: LOCAL_TTL_S, data };
}
