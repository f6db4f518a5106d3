/** What a registry asks for (RFC 9110 challenges: `Basic`, `Bearer`) and the tokens that answer it (Docker token authentication, OAuth2). */
import { Readable } from 'node:stream';
import { ImageError } from '../errors.ts';
import { ANSWER_BYTES_MAX } from '../limits.ts';
import type { Credentials } from './credentials.ts';
import { isLoopback } from './endpoints.ts';
import { readAll, type Transport, TransportError } from './transport.ts';

export interface Challenge {
  readonly scheme: 'basic' | 'bearer';
  readonly parameters: Readonly<Record<string, string>>;
}

/** The challenges of a `WWW-Authenticate` header that we know how to answer. */
export function parseChallenges(header: string | undefined): Challenge[] {
  const challenges: Challenge[] = [];
  let rest = (header ?? '').slice(0, ANSWER_BYTES_MAX);
  while (rest !== '') {
    const start = /^[\s,]*([A-Za-z][A-Za-z0-9-]*)(?=\s|,|$)\s*/.exec(rest);
    if (start === null) return challenges;
    rest = rest.slice(start[0].length);
    const parameters: Record<string, string> = {};
    for (;;) {
      const found = /^[\s,]*([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/.exec(rest);
      if (found === null) break;
      parameters[(found[1] ?? '').toLowerCase()] = found[2]?.replace(/\\(.)/g, '$1') ?? found[3] ?? '';
      rest = rest.slice(found[0].length);
    }
    const scheme = (start[1] ?? '').toLowerCase();
    if (scheme === 'basic' || scheme === 'bearer') challenges.push({ scheme, parameters });
    rest = rest.replace(/^[\s,]+/, '');
  }
  return challenges;
}

export interface AuthContext {
  readonly transport: Transport;
  /** The registry that asks. */
  readonly host: string;
  readonly insecure: boolean;
  readonly signal: AbortSignal;
  credentials(): Promise<Credentials | undefined>;
}

/** The `Authorization` header that answers the challenge; undefined: we have nothing for it. */
export async function answerChallenge(
  challenges: readonly Challenge[],
  scopes: readonly string[],
  context: AuthContext,
): Promise<string | undefined> {
  const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
  if (bearer !== undefined) return `Bearer ${await fetchToken(bearer, scopes, context)}`;
  if (!challenges.some(({ scheme }) => scheme === 'basic')) return undefined;
  const credentials = await context.credentials();
  return credentials === undefined || credentials.username === '' ? undefined : basic(credentials);
}

function basic({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

async function fetchToken(
  challenge: Challenge,
  scopes: readonly string[],
  context: AuthContext,
): Promise<string> {
  const { realm, service } = challenge.parameters;
  let url: URL;
  try {
    url = new URL(realm ?? '');
  } catch (cause) {
    throw new ImageError(
      'ERR_ARCBOX_REGISTRY',
      'the registry asks for a token and does not say where to get one',
      {
        cause,
      },
    );
  }
  const plain = url.protocol === 'http:' && context.insecure;
  // The registry alone decides where our password goes; in the clear it goes nowhere but to itself or this computer.
  if (url.protocol !== 'https:' && !(plain && (url.host === context.host || isLoopback(url.hostname)))) {
    throw new ImageError(
      'ERR_ARCBOX_REGISTRY',
      `the registry sends us to ${url.origin} for a token, which is not encrypted`,
    );
  }
  const credentials = await context.credentials();
  const { transport, signal } = context;
  // Certificates of other hosts are checked.
  const insecure = context.insecure && (url.host === context.host || isLoopback(url.hostname));
  const oauth = credentials?.identityToken;
  const answer =
    oauth === undefined
      ? await transport.request(withQuery(url, service, scopes), insecure, {
          headers: credentials === undefined ? {} : { authorization: basic(credentials) },
          signal,
        })
      : await transport.request(url, insecure, {
          method: 'POST',
          headers: { 'content-type': 'application/x-www-form-urlencoded' },
          body: bodyOf(
            new URLSearchParams({
              grant_type: 'refresh_token',
              service: service ?? '',
              client_id: 'arcbox',
              scope: scopes.join(' '),
              refresh_token: oauth,
            }),
          ),
          signal,
        });
  const body = await readAll(answer);
  const status = answer.statusCode ?? 0;
  if (status === 401 || status === 403) {
    throw new ImageError(
      'ERR_ARCBOX_REGISTRY_DENIED',
      `${url.host} does not accept ${credentials === undefined ? 'a request without credentials' : 'the credentials'}; log in with arcbox login ${context.host}`,
    );
  }
  if (status >= 500)
    throw new TransportError(`${url.host} answered with status ${status} when asked for a token`);
  try {
    const { token, access_token } = JSON.parse(body.toString('utf8')) as Record<string, unknown>;
    const found = token ?? access_token;
    if (status === 200 && typeof found === 'string' && /^[\x21-\x7e]+$/.test(found)) return found;
  } catch {
    // Said below.
  }
  throw new ImageError('ERR_ARCBOX_REGISTRY', `${url.host} gave no token (status ${status})`);
}

function withQuery(url: URL, service: string | undefined, scopes: readonly string[]): URL {
  const result = new URL(url);
  if (service !== undefined) result.searchParams.set('service', service);
  for (const scope of scopes) result.searchParams.append('scope', scope);
  return result;
}

function bodyOf(form: URLSearchParams): { bytes: number; open(): Readable } {
  const bytes = Buffer.from(form.toString());
  return { bytes: bytes.length, open: () => Readable.from([bytes]) };
}
