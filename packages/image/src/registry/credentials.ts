/**
 * Credentials as Docker keeps them: `config.json` with `auths`, `credsStore` and `credHelpers`, and the helpers' own
 * protocol (a program `docker-credential-NAME get`, the host on its standard input, JSON on its output).
 */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { ImageError, messageOf } from '../errors.ts';
import { ANSWER_BYTES_MAX, HELPER_TIMEOUT_MS } from '../limits.ts';
import { DEFAULT_DOMAIN } from '../reference.ts';

export interface Credentials {
  readonly username: string;
  readonly password: string;
  /** Instead of a password: to be exchanged for an access token. */
  readonly identityToken?: string;
}

/** Docker Hub's entry has the name of a URL of long ago. */
const DOCKER_HUB_KEY = 'https://index.docker.io/v1/';
/** User name by which a helper says that the secret is an identity token. */
const TOKEN_USER = '<token>';

type Json = Record<string, unknown>;

/** What there is for the host; undefined: nothing. Throws `ERR_ARCBOX_CREDENTIALS`. */
export async function credentialsFor(
  host: string,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<Credentials | undefined> {
  const directory = environment.DOCKER_CONFIG || join(environment.HOME || homedir(), '.docker');
  const config = await readConfig(join(directory, 'config.json'));
  if (config === undefined) return undefined;
  const key = host === DEFAULT_DOMAIN ? DOCKER_HUB_KEY : host;
  const helper =
    text(record(config.credHelpers)[host === DEFAULT_DOMAIN ? DOCKER_HUB_KEY : host]) ||
    text(config.credsStore);
  if (helper !== '') {
    const found = await askHelper(helper, key, environment);
    if (found !== undefined) return found;
  }
  return fromAuths(record(config.auths), key, join(directory, 'config.json'));
}

async function readConfig(path: string): Promise<Json | undefined> {
  let bytes: string;
  try {
    bytes = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new ImageError('ERR_ARCBOX_CREDENTIALS', `cannot read ${path}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  try {
    return record(JSON.parse(bytes));
  } catch (error) {
    throw new ImageError('ERR_ARCBOX_CREDENTIALS', `${path} is not JSON: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function fromAuths(auths: Json, key: string, path: string): Credentials | undefined {
  // People write the host with or without scheme and path.
  const bare = (name: string): string => name.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
  const found = auths[key] ?? Object.entries(auths).find(([name]) => bare(name) === bare(key))?.[1];
  if (found === undefined) return undefined;
  const entry = record(found);
  const identityToken = text(entry.identitytoken);
  let username = text(entry.username);
  let password = text(entry.password);
  if (text(entry.auth) !== '') {
    const decoded = Buffer.from(text(entry.auth), 'base64').toString('utf8');
    const colon = decoded.indexOf(':');
    if (colon < 0) {
      throw new ImageError(
        'ERR_ARCBOX_CREDENTIALS',
        `the entry for ${key} in ${path} is not of the form user:password`,
      );
    }
    username = decoded.slice(0, colon);
    password = decoded.slice(colon + 1).replace(/\0+$/, '');
  }
  if (username === '' && identityToken === '') return undefined;
  return { username, password, ...(identityToken === '' ? {} : { identityToken }) };
}

async function askHelper(
  name: string,
  key: string,
  environment: NodeJS.ProcessEnv,
): Promise<Credentials | undefined> {
  if (!/^[A-Za-z0-9._-]+$/.test(name)) {
    throw new ImageError(
      'ERR_ARCBOX_CREDENTIALS',
      `${JSON.stringify(name)} is no name of a credential helper`,
    );
  }
  const program = `docker-credential-${name}`;
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
  const child = execFile(
    program,
    ['get'],
    { env: environment, timeout: HELPER_TIMEOUT_MS, maxBuffer: ANSWER_BYTES_MAX },
    (error, stdout, stderr) => {
      if (error === null) {
        resolve(stdout);
        return;
      }
      const said = `${stdout}${stderr}`.trim();
      if (/credentials not found/i.test(said)) resolve(undefined);
      else {
        const why = said === '' ? messageOf(error) : said;
        reject(
          new ImageError('ERR_ARCBOX_CREDENTIALS', `${program} failed for ${key}: ${why}`, { cause: error }),
        );
      }
    },
  );
  // A helper may end without reading.
  child.stdin?.on('error', () => {});
  child.stdin?.end(`${key}\n`);
  const answer = await promise;
  if (answer === undefined) return undefined;
  let parsed: Json;
  try {
    parsed = record(JSON.parse(answer));
  } catch (error) {
    throw new ImageError('ERR_ARCBOX_CREDENTIALS', `${program} answered with something that is not JSON`, {
      cause: error,
    });
  }
  const username = text(parsed.Username);
  const password = text(parsed.Secret);
  if (username === '' && password === '') return undefined;
  return username === TOKEN_USER
    ? { username: '', password: '', identityToken: password }
    : { username, password };
}

function record(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
