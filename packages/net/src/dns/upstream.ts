/**
 * Asks the host's resolvers: each question from a socket, and so a port, of its own, with a random id; the next
 * resolver when one fails or says nothing; TCP when an answer does not fit (RFC 7766).
 */
import { randomInt } from 'node:crypto';
import dgram from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import { NetError } from '../errors.ts';
import { putU16, u16 } from '../wire/index.ts';
import { ATTEMPT_MS, FORWARD_MS, UDP_BYTES_UPSTREAM, UPSTREAM_TCP_MS } from './limits.ts';
import type { Resolver, ResolverSource } from './resolvers.ts';
import { Flag, HEADER_BYTES, layoutOf, optRecord, Rcode, sameQuestion, withoutOpt } from './wire.ts';

export interface UpstreamQuestion {
  /** Name, type and class on the wire. */
  readonly question: Uint8Array;
  readonly dnssecOk: boolean;
  readonly checkingDisabled: boolean;
}

/** Asks; gives the answer without its OPT record. */
export interface Upstream {
  /** @throws {NetError} `ERR_ARCBOX_NET_DNS` when no resolver answered. */
  ask(question: UpstreamQuestion): Promise<Uint8Array>;
}

/** How long to wait for resolvers, in milliseconds. */
export interface UpstreamPatience {
  /** One question to one resolver, in the first and in later rounds. */
  readonly attemptMs: readonly number[];
  /** A question to all resolvers. */
  readonly forwardMs: number;
}

export class ForwardingUpstream implements Upstream {
  readonly #source: ResolverSource;
  readonly #patience: UpstreamPatience;

  constructor(
    source: ResolverSource,
    patience: UpstreamPatience = { attemptMs: ATTEMPT_MS, forwardMs: FORWARD_MS },
  ) {
    this.#source = source;
    this.#patience = patience;
  }

  async ask(question: UpstreamQuestion): Promise<Uint8Array> {
    const resolvers = await this.#source.resolvers();
    const endMs = performance.now() + this.#patience.forwardMs;
    const reasons: string[] = [];
    let failure: Uint8Array | undefined;
    for (const attemptMs of this.#patience.attemptMs) {
      for (const resolver of resolvers) {
        const leftMs = endMs - performance.now();
        if (leftMs <= 0) break;
        try {
          const answer = await askOne(resolver, question, Math.min(attemptMs, leftMs));
          const rcode = u16(answer, 2) & Flag.rcode;
          if (rcode === Rcode.noError || rcode === Rcode.nameError) return answer;
          // Another resolver may know; if none does, the client hears what the last one said.
          failure = answer;
        } catch (error) {
          reasons.push(`${resolver.address}: ${error instanceof Error ? error.message : String(error)}`);
        }
      }
      if (failure !== undefined) return failure;
    }
    throw new NetError('ERR_ARCBOX_NET_DNS', `no resolver answered (${reasons.join('; ')})`);
  }
}

async function askOne(resolver: Resolver, question: UpstreamQuestion, limitMs: number): Promise<Uint8Array> {
  const message = await askUdp(resolver, encodeQuestion(question, true), limitMs);
  const answer = soundAnswer(message, question);
  if (answer === undefined) throw new Error('its answer is malformed');
  const flags = u16(answer, 2);
  const rcode = flags & Flag.rcode;
  if (rcode === Rcode.formatError || rcode === Rcode.notImplemented) {
    // A resolver from before EDNS (RFC 6891 §7).
    const plain = soundAnswer(await askUdp(resolver, encodeQuestion(question, false), limitMs), question);
    if (plain !== undefined && (u16(plain, 2) & Flag.truncated) === 0) return plain;
  }
  if ((flags & Flag.truncated) === 0) return answer;
  const whole = soundAnswer(
    await askTcp(resolver, encodeQuestion(question, true), UPSTREAM_TCP_MS),
    question,
  );
  if (whole === undefined) throw new Error('its answer over TCP is malformed');
  return whole;
}

function encodeQuestion({ question, dnssecOk, checkingDisabled }: UpstreamQuestion, edns: boolean): Buffer {
  const head = new Uint8Array(HEADER_BYTES);
  putU16(head, 0, randomInt(0x10000));
  putU16(head, 2, Flag.recursionDesired | (checkingDisabled ? Flag.checkingDisabled : 0));
  putU16(head, 4, 1);
  if (!edns) return Buffer.concat([head, question]);
  putU16(head, 10, 1);
  return Buffer.concat([head, question, optRecord(UDP_BYTES_UPSTREAM, 0, dnssecOk ? 0x8000 : 0)]);
}

/** Whether a message is the answer to what was sent: its id, and the question if it has one. */
function answers(message: Uint8Array, sent: Uint8Array): boolean {
  return (
    message.length >= HEADER_BYTES &&
    u16(message, 0) === u16(sent, 0) &&
    (u16(message, 2) & Flag.response) !== 0
  );
}

/** The answer without OPT record, when it is sound and to this question. */
function soundAnswer(message: Uint8Array, { question }: UpstreamQuestion): Uint8Array | undefined {
  const rcode = u16(message, 2) & Flag.rcode;
  if (u16(message, 4) === 0 && rcode !== Rcode.noError) {
    // An error without the question: put it back.
    const bare = Buffer.concat([message.subarray(0, HEADER_BYTES), question]);
    bare.fill(0, 4, HEADER_BYTES);
    putU16(bare, 4, 1);
    return bare;
  }
  const layout = layoutOf(message);
  if (layout === undefined) return undefined;
  if (!sameQuestion(message.subarray(HEADER_BYTES, layout.questionEnd), question)) return undefined;
  return withoutOpt(message, layout);
}

function askUdp(resolver: Resolver, sent: Buffer, limitMs: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const socket = dgram.createSocket(isIPv6(resolver.address) ? 'udp6' : 'udp4');
    let open = true;
    const end = (settle: () => void): void => {
      if (!open) return;
      open = false;
      clearTimeout(timer);
      socket.close();
      settle();
    };
    const fail = (error: Error): void => end(() => reject(error));
    const timer = setTimeout(() => fail(new Error(`no answer in ${Math.round(limitMs)} ms`)), limitMs);
    // A refusal of the port arrives as an event or at the next send, whichever is first.
    socket.on('error', fail);
    // Connected: the kernel drops what others send, and tells us when nobody listens there.
    socket.connect(resolver.port, resolver.address, () => {
      if (!open) return;
      socket.send(sent, (error) => {
        if (error !== null && error !== undefined) fail(error);
      });
    });
    socket.on('message', (message) => {
      // Anything else is a guess of somebody else, or an answer that was late; the right one may still come.
      if (answers(message, sent)) end(() => resolve(message));
    });
  });
}

function askTcp(resolver: Resolver, sent: Buffer, limitMs: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: resolver.address, port: resolver.port });
    const chunks: Buffer[] = [];
    let received = 0;
    const end = (settle: () => void): void => {
      clearTimeout(timer);
      socket.destroy();
      settle();
    };
    const timer = setTimeout(
      () => end(() => reject(new Error(`no answer over TCP in ${limitMs} ms`))),
      limitMs,
    );
    socket.on('error', (error) => end(() => reject(error)));
    socket.once('close', () => end(() => reject(new Error('it closed the TCP connection'))));
    const length = Buffer.alloc(2);
    length.writeUInt16BE(sent.length);
    socket.write(Buffer.concat([length, sent]));
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      received += chunk.length;
      const all = received >= 2 ? Buffer.concat(chunks) : undefined;
      if (all === undefined || all.length < 2 + all.readUInt16BE(0)) return;
      const message = all.subarray(2, 2 + all.readUInt16BE(0));
      end(() =>
        answers(message, sent) ? resolve(message) : reject(new Error('it answered another question')),
      );
    });
  });
}
