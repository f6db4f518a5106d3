/**
 * Credentials as Docker keeps them: `config.json` with `auths`, `credsStore` and `credHelpers`, and the programs that the
 * last two name. What one of us leaves there the other finds.
 */
import { ImageError } from '../errors.ts';
import { callHelper } from './credential-helper.ts';
import {
  configPath,
  entriesOf,
  helperOf,
  type Json,
  keyOf,
  readConfig,
  record,
  text,
  writeConfig,
} from './docker-config.ts';

export interface Credentials {
  readonly username: string;
  readonly password: string;
  /** Instead of a password: to be exchanged for an access token. */
  readonly identityToken?: string;
}

/** User name by which a helper says that the secret is an identity token. */
const TOKEN_USER = '<token>';

/** What there is for the host; undefined: nothing. Throws `ERR_ARCBOX_CREDENTIALS`. */
export async function credentialsFor(
  host: string,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<Credentials | undefined> {
  const path = configPath(environment);
  const config = await readConfig(path);
  if (config === undefined) return undefined;
  const helper = helperOf(config, host);
  if (helper !== '') {
    const found = await askHelper(helper, keyOf(host), environment);
    if (found !== undefined) return found;
  }
  return fromAuths(config, host, path);
}

/**
 * Keeps credentials for the host, where the configuration says: with a helper, or in the file. Answers with the file when
 * they are in that, readable. Throws `ERR_ARCBOX_CREDENTIALS`.
 */
export async function storeCredentials(
  host: string,
  { username, password, identityToken }: Credentials,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<string | undefined> {
  const path = configPath(environment);
  const config = (await readConfig(path)) ?? {};
  const helper = helperOf(config, host);
  const key = keyOf(host);
  if (helper !== '') {
    const secret =
      identityToken === undefined
        ? { Username: username, Secret: password }
        : { Username: TOKEN_USER, Secret: identityToken };
    await callHelper(helper, 'store', key, JSON.stringify({ ServerURL: key, ...secret }), environment);
  }
  const auth = Buffer.from(`${username}:${password}`).toString('base64');
  const entry =
    helper === '' ? { auth, ...(identityToken === undefined ? {} : { identitytoken: identityToken }) } : {};
  await writeConfig(path, { ...config, auths: { ...without(config, host), [key]: entry } });
  return helper === '' ? path : undefined;
}

/** Forgets what there is for the host; false: there was nothing. Throws `ERR_ARCBOX_CREDENTIALS`. */
export async function eraseCredentials(
  host: string,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<boolean> {
  const path = configPath(environment);
  const config = await readConfig(path);
  if (config === undefined) return false;
  const helper = helperOf(config, host);
  const inHelper = helper !== '' && (await askHelper(helper, keyOf(host), environment)) !== undefined;
  if (inHelper) await callHelper(helper, 'erase', keyOf(host), keyOf(host), environment);
  const inFile = entriesOf(config, host).length > 0;
  if (inFile) await writeConfig(path, { ...config, auths: without(config, host) });
  return inHelper || inFile;
}

/** The other hosts' entries. */
function without(config: Json, host: string): Json {
  const own = new Set(entriesOf(config, host));
  return Object.fromEntries(Object.entries(record(config.auths)).filter(([name]) => !own.has(name)));
}

function fromAuths(config: Json, host: string, path: string): Credentials | undefined {
  const [name] = entriesOf(config, host);
  if (name === undefined) return undefined;
  const entry = record(record(config.auths)[name]);
  const identityToken = text(entry.identitytoken);
  let username = text(entry.username);
  let password = text(entry.password);
  if (text(entry.auth) !== '') {
    const decoded = Buffer.from(text(entry.auth), 'base64').toString('utf8');
    const colon = decoded.indexOf(':');
    if (colon < 0) {
      throw new ImageError(
        'ERR_ARCBOX_CREDENTIALS',
        `the entry for ${name} in ${path} is not of the form user:password`,
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
  const answer = await callHelper(name, 'get', key, key, environment);
  if (answer === undefined) return undefined;
  let parsed: Json;
  try {
    parsed = record(JSON.parse(answer));
  } catch (error) {
    throw new ImageError(
      'ERR_ARCBOX_CREDENTIALS',
      `docker-credential-${name} answered with something that is not JSON`,
      { cause: error },
    );
  }
  const username = text(parsed.Username);
  const password = text(parsed.Secret);
  if (username === '' && password === '') return undefined;
  return username === TOKEN_USER
    ? { username: '', password: '', identityToken: password }
    : { username, password };
}
