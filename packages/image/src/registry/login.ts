/** Whether a registry takes credentials: asked at its root, where every registry that has any says that it wants some. */
import type { IncomingMessage } from 'node:http';
import { ImageError, messageOf } from '../errors.ts';
import type { JobContext } from '../worker/context.ts';
import { answerChallenge, parseChallenges } from './auth.ts';
import type { Credentials } from './credentials.ts';
import { endpointsOf, type RegistryConfig } from './endpoints.ts';
import { discard, Transport, TransportError } from './transport.ts';

export interface LoginJob {
  readonly kind: 'login';
  /** `docker.io`, `registry.example.com:5000`. */
  readonly domain: string;
  readonly credentials: Credentials;
  readonly registries: RegistryConfig;
}

/** Throws `ERR_ARCBOX_REGISTRY_DENIED`, `ERR_ARCBOX_REGISTRY_UNREACHABLE`, `ERR_ARCBOX_REGISTRY`. */
export async function login(
  { domain, credentials, registries }: LoginJob,
  { signal }: JobContext,
): Promise<undefined> {
  using transport = new Transport();
  const endpoint = endpointsOf(domain, registries).at(-1);
  if (endpoint === undefined) throw new Error(`no endpoint for ${domain}`);
  const { insecure } = endpoint;
  const ask = (url: URL, headers: Record<string, string>): Promise<IncomingMessage> =>
    transport.request(url, insecure, { signal, headers });
  let failure: unknown;
  for (const base of endpoint.bases) {
    try {
      const url = new URL('/v2/', base);
      let answer = await ask(url, {});
      if (answer.statusCode === 401) {
        const challenges = parseChallenges(answer.headers['www-authenticate']);
        await discard(answer);
        const context = { transport, host: url.host, insecure, signal, credentials: async () => credentials };
        const authorization = await answerChallenge(challenges, [], context);
        if (authorization === undefined)
          throw new ImageError(
            'ERR_ARCBOX_REGISTRY',
            `${domain} asks for a login in a way that we do not know`,
          );
        answer = await ask(url, { authorization });
      }
      await discard(answer);
      assertTaken(domain, answer.statusCode ?? 0);
      return undefined;
    } catch (error) {
      if (!(error instanceof TransportError)) throw error;
      // The last address is plain http: what it says is the better explanation.
      failure = error;
    }
  }
  throw new ImageError(
    'ERR_ARCBOX_REGISTRY_UNREACHABLE',
    `the registry ${domain} cannot be reached: ${messageOf(failure)}`,
    { cause: failure },
  );
}

function assertTaken(domain: string, status: number): void {
  if (status === 200) return;
  if (status === 401 || status === 403)
    throw new ImageError(
      'ERR_ARCBOX_REGISTRY_DENIED',
      `${domain} does not accept this user name and password`,
    );
  throw new ImageError(
    'ERR_ARCBOX_REGISTRY',
    `${domain} answered with status ${status} when asked for a login; is it a registry?`,
  );
}
