/** One repository of one registry (OCI distribution specification): manifests and blobs, with authorization and retries. */
import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { sha256 } from '../digest.ts';
import { ImageError, messageOf } from '../errors.ts';
import { ANSWER_BYTES_MAX, MANIFEST_BYTES_MAX, TRIES_MAX } from '../limits.ts';
import { INDEX_TYPES, MANIFEST_TYPES } from '../manifest.ts';
import { answerChallenge, parseChallenges } from './auth.ts';
import type { Credentials } from './credentials.ts';
import type { Endpoint } from './endpoints.ts';
import {
  discard,
  isTransient,
  type RequestOptions,
  Retry,
  readAll,
  redirectTarget,
  retryDelayMs,
  retrying,
  type Transport,
  TransportError,
} from './transport.ts';

export interface RepositoryOptions {
  readonly transport: Transport;
  readonly endpoint: Endpoint;
  /** Without the domain: `library/busybox`. */
  readonly path: string;
  readonly push: boolean;
  readonly signal: AbortSignal;
  credentials(): Promise<Credentials | undefined>;
}

export interface FetchedManifest {
  readonly bytes: Buffer;
  readonly mediaType: string | undefined;
  readonly digest: string;
}

const ACCEPTED = [...MANIFEST_TYPES, ...INDEX_TYPES].join(', ');

export class Repository {
  readonly #options: RepositoryOptions;
  readonly #scopes: Set<string>;
  #base: Promise<string> | undefined;
  #authorization: string | undefined;

  constructor(options: RepositoryOptions) {
    this.#options = options;
    this.#scopes = new Set([`repository:${options.path}:${options.push ? 'pull,push' : 'pull'}`]);
  }

  get host(): string {
    return this.#options.endpoint.host;
  }

  /** The manifest by tag or digest. Throws `ERR_ARCBOX_IMAGE_NOT_FOUND`, `ERR_ARCBOX_DIGEST_MISMATCH`, and what `#send` throws. */
  async manifest(reference: string): Promise<FetchedManifest> {
    const { signal, path } = this.#options;
    return retrying<FetchedManifest>(signal, async () => {
      const answer = await this.#send(`/manifests/${reference}`, { headers: { accept: ACCEPTED } });
      if (answer.statusCode === 404) {
        await discard(answer);
        throw new ImageError(
          'ERR_ARCBOX_IMAGE_NOT_FOUND',
          `the registry ${this.host} has no ${path}${reference.includes(':') ? '@' : ':'}${reference}`,
        );
      }
      const refused = await this.#refusal(answer, `the manifest of ${path}`);
      if (refused !== undefined) return refused;
      const bytes = await readAll(answer, MANIFEST_BYTES_MAX);
      const digest = sha256(bytes);
      const said = answer.headers['docker-content-digest'];
      const wanted = reference.includes(':') ? reference : said;
      if (typeof wanted === 'string' && wanted.startsWith('sha256:') && wanted !== digest) {
        throw new ImageError(
          'ERR_ARCBOX_DIGEST_MISMATCH',
          `the registry ${this.host} sent a manifest with the digest ${digest} for ${wanted}`,
        );
      }
      return { bytes, mediaType: answer.headers['content-type']?.split(';')[0], digest };
    });
  }

  /** A small blob, checked. */
  async document(digest: string, size: number, limit: number): Promise<Buffer> {
    if (size > limit)
      throw new ImageError('ERR_ARCBOX_IMAGE_LIMIT', `${digest} has ${size} bytes; the limit is ${limit}`);
    const parts: Buffer[] = [];
    for await (const part of this.blob(digest, size)) parts.push(part);
    const bytes = Buffer.concat(parts);
    if (sha256(bytes) !== digest) throw mismatch(this.host, digest, sha256(bytes));
    return bytes;
  }

  /**
   * A blob's bytes, exactly `size` of them; a transfer that breaks is taken up again where it stopped. The digest is the
   * reader's to check. Throws what `manifest` throws.
   */
  async *blob(digest: string, size: number): AsyncGenerator<Buffer, void, undefined> {
    const { signal } = this.#options;
    let done = 0;
    for (let tried = 1; done < size || tried === 1; tried += 1) {
      let retryAfter: string | undefined;
      let error: unknown;
      try {
        const headers: Record<string, string> = done === 0 ? {} : { range: `bytes=${done}-` };
        const answer = await this.#send(`/blobs/${digest}`, { headers });
        const refused = await this.#refusal(answer, `the blob ${digest}`);
        if (refused !== undefined) {
          ({ error, retryAfter } = refused);
        } else {
          for await (const part of resumed(answer, done)) {
            done += part.length;
            if (done > size)
              throw new ImageError(
                'ERR_ARCBOX_DIGEST_MISMATCH',
                `the registry ${this.host} sent more than the ${size} bytes of ${digest}`,
              );
            tried = 1;
            yield part;
          }
          if (done === size) return;
          error = new TransportError(`the connection ended after ${done} of ${size} bytes`);
        }
      } catch (cause) {
        if (cause instanceof ImageError) throw cause;
        signal.throwIfAborted();
        error = cause;
      }
      if (tried >= TRIES_MAX) throw this.#unreachable(error);
      await sleep(retryDelayMs(tried, retryAfter), undefined, { signal });
    }
  }

  async hasBlob(digest: string): Promise<boolean> {
    return retrying<boolean>(this.#options.signal, async () => {
      const answer = await this.#send(`/blobs/${digest}`, { method: 'HEAD' });
      await discard(answer);
      if (answer.statusCode === 404) return false;
      return (await this.#refusal(answer, `the blob ${digest}`)) ?? true;
    });
  }

  /** Has the registry take the blob from another repository; false: it has to be sent. */
  async mountBlob(digest: string, from: string): Promise<boolean> {
    this.#scopes.add(`repository:${from}:pull`);
    this.#authorization = undefined;
    const query = new URLSearchParams({ mount: digest, from });
    const answer = await this.#send(`/blobs/uploads/?${query}`, { method: 'POST' });
    await discard(answer);
    return answer.statusCode === 201;
  }

  /** Sends a blob, as a whole. */
  async uploadBlob(digest: string, bytes: number, open: () => Readable): Promise<void> {
    await retrying(this.#options.signal, async () => {
      const begun = await this.#send('/blobs/uploads/', { method: 'POST' });
      const refused = await this.#refusal(begun, 'an upload', [202]);
      if (refused !== undefined) return refused;
      await discard(begun);
      const { location } = begun.headers;
      if (location === undefined)
        throw new ImageError('ERR_ARCBOX_REGISTRY', `the registry ${this.host} does not say where to upload`);
      const base = new URL(await this.#baseUrl());
      const target = redirectTarget(location, base, this.#options.endpoint.insecure);
      target.searchParams.set('digest', digest);
      const answer = await this.#sendTo(target, {
        method: 'PUT',
        headers: { 'content-type': 'application/octet-stream' },
        body: { bytes, open },
      });
      const failed = await this.#refusal(answer, `the blob ${digest}`, [201]);
      await discard(answer);
      return failed ?? true;
    });
  }

  async putManifest(
    reference: string,
    mediaType: string,
    bytes: Buffer,
    open: () => Readable,
  ): Promise<void> {
    await retrying(this.#options.signal, async () => {
      const answer = await this.#send(`/manifests/${reference}`, {
        method: 'PUT',
        headers: { 'content-type': mediaType },
        body: { bytes: bytes.length, open },
      });
      const refused = await this.#refusal(answer, 'the manifest', [200, 201]);
      await discard(answer);
      return refused ?? true;
    });
  }

  async #send(path: string, options: Omit<RequestOptions, 'signal'>): Promise<IncomingMessage> {
    const base = await this.#baseUrl();
    return this.#sendTo(new URL(`/v2/${this.#options.path}${path}`, base), options);
  }

  /**
   * Sends with what authorization we have; asked for another one, gets it and sends again. Another host (a place for
   * uploads) gets none.
   */
  async #sendTo(url: URL, options: Omit<RequestOptions, 'signal'>): Promise<IncomingMessage> {
    const { transport, endpoint, signal } = this.#options;
    if (url.origin !== new URL(await this.#baseUrl()).origin) {
      return transport.request(url, false, { ...options, signal });
    }
    const send = (): Promise<IncomingMessage> =>
      transport.request(url, endpoint.insecure, {
        ...options,
        signal,
        headers: {
          ...options.headers,
          ...(this.#authorization === undefined ? {} : { authorization: this.#authorization }),
        },
      });
    let answer = await send();
    if (answer.statusCode !== 401) return answer;
    const challenges = parseChallenges(answer.headers['www-authenticate']);
    const authorization = await answerChallenge(challenges, [...this.#scopes], {
      transport,
      host: url.host,
      insecure: endpoint.insecure,
      signal,
      credentials: this.#options.credentials,
    });
    if (authorization === undefined) return answer;
    await discard(answer);
    this.#authorization = authorization;
    answer = await send();
    return answer;
  }

  /** Asks once which of the endpoint's addresses answers. */
  #baseUrl(): Promise<string> {
    this.#base ??= this.#probe();
    return this.#base;
  }

  async #probe(): Promise<string> {
    const { endpoint, transport, signal } = this.#options;
    const [only, ...others] = endpoint.bases;
    if (only !== undefined && others.length === 0) return only;
    let failure: unknown;
    for (const base of endpoint.bases) {
      try {
        const answer = await transport.request(new URL('/v2/', base), endpoint.insecure, { signal });
        await discard(answer);
        return base;
      } catch (error) {
        signal.throwIfAborted();
        failure ??= error;
        // The last address is plain http: what it says is the better explanation.
        if (base === endpoint.bases.at(-1)) failure = error;
      }
    }
    throw this.#unreachable(failure);
  }

  /** Undefined when the answer is what was hoped for; otherwise throws, or says that another try may help. */
  async #refusal(
    answer: IncomingMessage,
    what: string,
    good: readonly number[] = [200, 206],
  ): Promise<Retry | undefined> {
    const status = answer.statusCode ?? 0;
    if (good.includes(status)) return undefined;
    const said = explain(await readAll(answer, ANSWER_BYTES_MAX).catch(() => Buffer.alloc(0)));
    const { path, push } = this.#options;
    if (status === 401 || status === 403) {
      throw new ImageError(
        'ERR_ARCBOX_REGISTRY_DENIED',
        `${push ? 'push' : 'pull'} access denied for ${path} at ${this.host}: it does not exist or needs a login${said} (arcbox login ${this.host} keeps credentials for it, and docker's are used here too)`,
      );
    }
    const error = new ImageError(
      'ERR_ARCBOX_REGISTRY',
      `the registry ${this.host} refused ${what} with status ${status}${said}`,
    );
    if (!isTransient(status)) throw error;
    return new Retry(error, answer.headers['retry-after']);
  }

  #unreachable(error: unknown): ImageError {
    if (error instanceof ImageError) return error;
    return new ImageError(
      'ERR_ARCBOX_REGISTRY_UNREACHABLE',
      `the registry ${this.host} cannot be reached: ${messageOf(error)}`,
      { cause: error },
    );
  }

  /** For callers outside: a broken connection as an error of ours. */
  async translated<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof TransportError) throw this.#unreachable(error);
      throw error;
    }
  }
}

/** The body from `done` on, whether the registry heeded the range or sent all of it again. */
async function* resumed(answer: IncomingMessage, done: number): AsyncGenerator<Buffer, void, undefined> {
  let skip = done;
  if (done > 0 && answer.statusCode === 206) {
    const start = /^bytes (\d+)-/.exec(answer.headers['content-range'] ?? '')?.[1];
    skip = done - Number(start ?? Number.NaN);
    if (!(skip >= 0)) {
      answer.destroy();
      throw new TransportError('the registry sent another part of the blob than we asked for');
    }
  }
  for await (const part of answer as AsyncIterable<Buffer>) {
    if (skip >= part.length) {
      skip -= part.length;
      continue;
    }
    yield skip === 0 ? part : part.subarray(skip);
    skip = 0;
  }
}

/** What the registry says about it, when it speaks as the specification wants. */
function explain(body: Buffer): string {
  try {
    const { errors } = JSON.parse(body.toString('utf8')) as {
      errors?: { code?: unknown; message?: unknown }[];
    };
    const [first] = errors ?? [];
    const words = [first?.code, first?.message].filter((word) => typeof word === 'string' && word !== '');
    // Untrusted text: a sentence of it, without anything that a terminal would obey.
    return words.length === 0
      ? ''
      : ` (${words
          .join(': ')
          .replace(/\p{Cc}/gu, ' ')
          .slice(0, 300)})`;
  } catch {
    return '';
  }
}

export function mismatch(host: string, wanted: string, actual: string): ImageError {
  return new ImageError(
    'ERR_ARCBOX_DIGEST_MISMATCH',
    `the registry ${host} sent something with the digest ${actual} for ${wanted}`,
  );
}
