/**
 * HTTP for registries, on `node:http` and `node:https`: bodies are plain streams with back-pressure, sockets are kept, and
 * nothing is loaded that is not used. (`fetch` would put a web stream between us and every byte, and brings an HTTP/2
 * client that no registry needs.)
 */
import { once } from 'node:events';
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { getCACertificates } from 'node:tls';
import { ImageError, messageOf } from '../errors.ts';
import {
  ANSWER_BYTES_MAX,
  ANSWER_TIMEOUT_MS,
  CONNECT_TIMEOUT_MS,
  REDIRECTS_MAX,
  RETRY_AFTER_MS_MAX,
  RETRY_MS_MAX,
  RETRY_MS_MIN,
  STALL_TIMEOUT_MS,
  TRANSFERS_MAX,
  TRIES_MAX,
} from '../limits.ts';
import { isLoopback } from './endpoints.ts';

export interface RequestOptions {
  readonly method?: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH';
  readonly headers?: Readonly<Record<string, string>>;
  /** Made anew for each try. */
  readonly body?: { readonly bytes: number; open(): Readable } | undefined;
  readonly signal: AbortSignal;
}

/** The connection failed or broke: worth another try, unless nobody was there from the beginning on. */
export class TransportError extends Error {
  override readonly name = 'TransportError';
  /** No connection came about, with a host that has not answered anything yet: trying again would only take time. */
  readonly nobodyThere: boolean;

  constructor(message: string, options: ErrorOptions & { readonly nobodyThere?: boolean } = {}) {
    super(message, options);
    this.nobodyThere = options.nobodyThere ?? false;
  }
}

/** By code, what keeps a connection from coming about; `$HOST` is who was called. */
const NOBODY_THERE: Readonly<Record<string, string>> = {
  ENOTFOUND: 'there is no host $HOST, or no name server that can be asked (ENOTFOUND)',
  EAI_AGAIN: 'no name server says where $HOST is (EAI_AGAIN)',
  ECONNREFUSED: '$HOST refuses connections (ECONNREFUSED)',
  ENETUNREACH: 'there is no route to $HOST (ENETUNREACH)',
  EHOSTUNREACH: 'there is no route to $HOST (EHOSTUNREACH)',
  ETIMEDOUT: '$HOST does not answer (ETIMEDOUT)',
};

interface ConnectError extends NodeJS.ErrnoException {
  readonly hostname?: string;
  readonly address?: string;
  readonly port?: number;
}

const USER_AGENT = 'arcbox';
const MAX_SOCKETS = 2 * TRANSFERS_MAX;

export class Transport implements Disposable {
  readonly #http = new HttpAgent({ keepAlive: true, maxSockets: MAX_SOCKETS, proxyEnv: process.env });
  /** Hosts that have answered. */
  readonly #answered = new Set<string>();
  #https: HttpsAgent | undefined;
  #unchecked: HttpsAgent | undefined;

  [Symbol.dispose](): void {
    this.#http.destroy();
    this.#https?.destroy();
    this.#unchecked?.destroy();
  }

  /**
   * One request, redirects followed. The answer's body is the caller's to read or destroy. Credentials go to the first
   * host only, and no other one's challenge is passed on. Throws `TransportError`, and what the signal was aborted with.
   */
  async request(url: URL, insecure: boolean, options: RequestOptions): Promise<IncomingMessage> {
    let target = url;
    let { headers = {} } = options;
    for (let redirects = 0; ; redirects += 1) {
      const answer = await this.#once(target, insecure && target.host === url.host, { ...options, headers });
      const { location } = answer.headers;
      const status = answer.statusCode ?? 0;
      const follows = options.method === undefined || options.method === 'GET' || options.method === 'HEAD';
      if (![301, 302, 303, 307, 308].includes(status) || location === undefined || !follows) {
        // Only whom we asked may ask who we are: another host's challenge would be answered with this one's secrets.
        if (target.host !== url.host) delete answer.headers['www-authenticate'];
        return answer;
      }
      void discard(answer);
      if (redirects >= REDIRECTS_MAX)
        throw new TransportError(`${url.host} redirects more than ${REDIRECTS_MAX} times`);
      const next = redirectTarget(location, target, insecure);
      if (next.host !== target.host) {
        const { authorization: _, ...rest } = headers;
        headers = rest;
      }
      target = next;
    }
  }

  async #once(url: URL, insecure: boolean, options: RequestOptions): Promise<IncomingMessage> {
    options.signal.throwIfAborted();
    const { method = 'GET', body, signal } = options;
    const headers: Record<string, string | number> = { 'user-agent': USER_AGENT, ...options.headers };
    if (body !== undefined) headers['content-length'] = body.bytes;
    else if (method !== 'GET' && method !== 'HEAD') headers['content-length'] = 0;
    const secure = url.protocol === 'https:';
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const outgoing = secure
      ? httpsRequest(url, { method, headers, agent: this.#httpsAgent(insecure), signal })
      : httpRequest(url, { method, headers, agent: this.#http, signal });
    outgoing.on('response', resolve);
    outgoing.on('error', reject);
    const noConnection = Object.assign(new Error('no connection came about'), { code: 'ETIMEDOUT' });
    let connecting: NodeJS.Timeout | undefined;
    outgoing.on('socket', (socket) => {
      if (!socket.connecting) return;
      connecting = setTimeout(() => outgoing.destroy(noConnection), CONNECT_TIMEOUT_MS);
      socket.once('connect', () => clearTimeout(connecting));
    });
    outgoing.setTimeout(body === undefined ? ANSWER_TIMEOUT_MS : STALL_TIMEOUT_MS, () =>
      outgoing.destroy(new Error('it did not answer in time')),
    );
    let sent: Promise<void> = Promise.resolve();
    if (body === undefined) outgoing.end();
    else sent = pipeline(body.open(), outgoing);
    // A registry that refuses may do so before it has taken everything.
    sent.catch(reject);
    try {
      const answer = await promise;
      this.#answered.add(url.host);
      answer.setTimeout(STALL_TIMEOUT_MS, () => answer.destroy(new Error('the transfer stood still')));
      return answer;
    } catch (error) {
      signal.throwIfAborted();
      const { code = '', hostname, address, port } = error as ConnectError;
      // With a proxy it is that one.
      const called = hostname ?? (address === undefined ? url.host : `${address}:${port}`);
      const reason = NOBODY_THERE[code]?.replace('$HOST', called);
      const nobodyThere = reason !== undefined && !this.#answered.has(url.host);
      throw new TransportError(reason ?? messageOf(error), { cause: error, nobodyThere });
    } finally {
      clearTimeout(connecting);
    }
  }

  #httpsAgent(insecure: boolean): HttpsAgent {
    const base = { keepAlive: true, maxSockets: MAX_SOCKETS, proxyEnv: process.env };
    if (insecure) {
      this.#unchecked ??= new HttpsAgent({ ...base, rejectUnauthorized: false });
      return this.#unchecked;
    }
    // Certificates that the system trusts count too: many companies have one of their own.
    this.#https ??= new HttpsAgent({
      ...base,
      ca: [...getCACertificates('default'), ...getCACertificates('system')],
    });
    return this.#https;
  }
}

const RETRIED = new Set([408, 429, 500, 502, 503, 504]);

/** Whether the status says that another try may help. */
export function isTransient(status: number): boolean {
  return RETRIED.has(status);
}

/** How long to wait before try `tried` + 1; the registry's own wish counts. */
export function retryDelayMs(tried: number, retryAfter: string | undefined): number {
  const own = Math.min(RETRY_MS_MIN * 2 ** (tried - 1), RETRY_MS_MAX) * (1 + Math.random() / 2);
  if (retryAfter === undefined) return own;
  const seconds = /^\d+$/.test(retryAfter)
    ? Number(retryAfter)
    : (Date.parse(retryAfter) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds * 1000, own), RETRY_AFTER_MS_MAX) : own;
}

/** What an attempt answers with when another one may help. */
export class Retry {
  readonly error: unknown;
  /** The registry's wish. */
  readonly retryAfter: string | undefined;

  constructor(error: unknown, retryAfter: string | undefined) {
    this.error = error;
    this.retryAfter = retryAfter;
  }
}

/** Tries until it works, fails for good, or has failed too often. */
export async function retrying<T>(signal: AbortSignal, attempt: () => Promise<T | Retry>): Promise<T> {
  for (let tried = 1; ; tried += 1) {
    let delayMs: number;
    try {
      const result = await attempt();
      if (!(result instanceof Retry)) return result;
      if (tried >= TRIES_MAX) throw result.error;
      delayMs = retryDelayMs(tried, result.retryAfter);
    } catch (error) {
      if (!(error instanceof TransportError) || error.nobodyThere || tried >= TRIES_MAX) throw error;
      delayMs = retryDelayMs(tried, undefined);
    }
    await sleep(delayMs, undefined, { signal });
  }
}

/** Reads a body to its end. Throws `TransportError`, `ERR_ARCBOX_IMAGE_LIMIT`. */
export async function readAll(answer: IncomingMessage, limit = ANSWER_BYTES_MAX): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of answer as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > limit)
        throw new ImageError('ERR_ARCBOX_IMAGE_LIMIT', `a registry's answer has more than ${limit} bytes`);
      parts.push(part);
    }
  } catch (error) {
    if (error instanceof ImageError) throw error;
    throw new TransportError(`the connection broke: ${messageOf(error)}`, { cause: error });
  }
  return Buffer.concat(parts);
}

/** Lets an answer go whose body nobody wants; a short one is read so that the connection can be used again. */
export async function discard(answer: IncomingMessage): Promise<void> {
  if (answer.readableEnded || answer.destroyed) return;
  let bytes = 0;
  // It need not say how long it is, and need not have an end.
  answer
    .on('error', () => {})
    .on('data', (part: Buffer) => {
      bytes += part.length;
      if (bytes > ANSWER_BYTES_MAX) answer.destroy();
    });
  await once(answer, 'close').catch(() => {});
}

/**
 * Plain http only stays on this computer, or on a host that the configuration calls insecure; other schemes are none.
 * Throws `ERR_ARCBOX_REGISTRY`.
 */
export function redirectTarget(location: string, from: URL, insecure: boolean): URL {
  const next = URL.parse(location, from);
  if (next === null || (next.protocol !== 'https:' && next.protocol !== 'http:')) {
    throw new ImageError('ERR_ARCBOX_REGISTRY', `${from.host} redirects to something that is no web address`);
  }
  const plainByWish = insecure && from.protocol === 'http:' && !isLoopback(from.hostname);
  if (next.protocol === 'http:' && !isLoopback(next.hostname) && !plainByWish) {
    throw new ImageError(
      'ERR_ARCBOX_REGISTRY',
      `${from.host} sends us to ${next.origin}, which is not encrypted`,
    );
  }
  return next;
}
