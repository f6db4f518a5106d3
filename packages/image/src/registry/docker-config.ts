/** Docker's `config.json`: where it is, which of its entries are a registry's, and writing it without losing the rest. */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, realpath, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { ImageError, messageOf } from '../errors.ts';
import { DEFAULT_DOMAIN } from '../reference.ts';

export type Json = Record<string, unknown>;

/** Docker Hub's entry has the name of a URL of long ago. */
const DOCKER_HUB_KEY = 'https://index.docker.io/v1/';

export function configPath(environment: NodeJS.ProcessEnv): string {
  return join(environment.DOCKER_CONFIG || join(environment.HOME || homedir(), '.docker'), 'config.json');
}

/** Undefined when there is none. Throws `ERR_ARCBOX_CREDENTIALS`. */
export async function readConfig(path: string): Promise<Json | undefined> {
  let bytes: string;
  try {
    bytes = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw failed(`cannot read ${path}: ${messageOf(error)}`, error);
  }
  try {
    return record(JSON.parse(bytes));
  } catch (error) {
    throw failed(`${path} is not JSON: ${messageOf(error)}`, error);
  }
}

/** For its owner's eyes; aside and renamed, where a link leads to. Throws `ERR_ARCBOX_CREDENTIALS`. */
export async function writeConfig(path: string, config: Json): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const target = await realpath(path).catch(() => path);
    const aside = `${target}.${randomBytes(6).toString('hex')}`;
    try {
      await writeFile(aside, `${JSON.stringify(config, undefined, '\t')}\n`, { mode: 0o600, flag: 'wx' });
      await rename(aside, target);
    } catch (error) {
      await rm(aside, { force: true });
      throw error;
    }
  } catch (error) {
    throw failed(`cannot write ${path}: ${messageOf(error)}`, error);
  }
}

/** What the host's entries are called, here and by helpers. */
export function keyOf(host: string): string {
  return host === DEFAULT_DOMAIN ? DOCKER_HUB_KEY : host;
}

/** The program that keeps the host's credentials; empty: they are in the file. */
export function helperOf(config: Json, host: string): string {
  return text(record(config.credHelpers)[keyOf(host)]) || text(config.credsStore);
}

/** The names of all entries of `auths` that are the host's: people write it with or without scheme and path. */
export function entriesOf(config: Json, host: string): string[] {
  const bare = (name: string): string => name.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
  const names = Object.keys(record(config.auths));
  const key = keyOf(host);
  const others = names.filter((name) => name !== key && bare(name) === bare(key));
  return names.includes(key) ? [key, ...others] : others;
}

export function record(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

export function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function failed(message: string, cause: unknown): ImageError {
  return new ImageError('ERR_ARCBOX_CREDENTIALS', message, { cause });
}
