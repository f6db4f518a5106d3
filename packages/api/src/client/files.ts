/** A client's end of the files of containers: see `files/files-server.ts` for what goes over the wire. */
import { type IncomingMessage, request } from 'node:http';
import type { Readable } from 'node:stream';
import { RemoteError } from '../errors.ts';
import { readBody, remoteError, unreachable } from './client.ts';

export interface PathStat {
  readonly name: string;
  readonly size: number;
  /** st_mode. */
  readonly mode: number;
  readonly mtimeMs: number;
  /** Of a symbolic link, otherwise empty. */
  readonly linkTarget: string;
}

export interface ArchiveTarget {
  readonly container: string;
  readonly path: string;
  /** What the top entry is called; absent: its own name. */
  readonly name?: string;
}

/** Undefined when there is no such path. Throws `RemoteError`. */
export async function statPath(
  socketPath: string,
  container: string,
  path: string,
  options: { readonly follow?: boolean } = {},
): Promise<PathStat | undefined> {
  const query = new URLSearchParams({ path, ...(options.follow === true ? { follow: '1' } : {}) });
  const answer = await send(socketPath, 'HEAD', `${archivePath(container)}?${query}`);
  answer.resume();
  if (answer.statusCode !== 200) {
    const error = headerError(answer);
    if (error.code === 'ERR_ARCBOX_PATH_NOT_FOUND') return undefined;
    throw error;
  }
  const text = Buffer.from(String(answer.headers['arcbox-path-stat'] ?? ''), 'base64').toString('utf8');
  return JSON.parse(text) as PathStat;
}

/** The tar; throws `RemoteError`, also in the middle. */
export function getArchive(
  socketPath: string,
  { container, path, name }: ArchiveTarget,
): AsyncGenerator<Buffer> {
  const query = new URLSearchParams({ path, ...(name === undefined ? {} : { name }) });
  return body(socketPath, `${archivePath(container)}?${query}`);
}

/** The whole root as a tar; throws `RemoteError`, also in the middle. */
export function exportContainer(socketPath: string, container: string): AsyncGenerator<Buffer> {
  return body(socketPath, `/v1/containers/${encodeURIComponent(container)}/export`);
}

/** Unpacks a tar into a directory. Throws `RemoteError` and what reading `tar` throws. */
export async function putArchive(
  socketPath: string,
  { container, path, name }: ArchiveTarget,
  tar: Readable,
  options: { readonly keepOwners: boolean; readonly noOverwriteDirNonDir: boolean },
): Promise<void> {
  const query = new URLSearchParams({ path, ...(name === undefined ? {} : { name }) });
  if (!options.keepOwners) query.set('owner', 'root');
  if (options.noOverwriteDirNonDir) query.set('noOverwriteDirNonDir', '1');
  const answer = await send(socketPath, 'PUT', `${archivePath(container)}?${query}`, tar);
  const text = await readBody(answer, socketPath);
  if (answer.statusCode !== 200) throw remoteError(text, answer.statusCode ?? 0);
}

function archivePath(container: string): string {
  return `/v1/containers/${encodeURIComponent(container)}/archive`;
}

async function send(
  socketPath: string,
  method: string,
  path: string,
  source?: Readable,
): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const outgoing = request({ socketPath, method, path, agent: false }, (answer) => {
    // Whatever it says, there is no use in sending more.
    source?.unpipe(outgoing);
    source?.resume();
    resolve(answer);
  });
  outgoing.on('error', (cause) => reject(unreachable(socketPath, cause)));
  if (source === undefined) outgoing.end();
  else {
    source.on('error', (error) => {
      reject(error);
      outgoing.destroy();
    });
    source.pipe(outgoing);
  }
  return promise;
}

async function* body(socketPath: string, path: string): AsyncGenerator<Buffer> {
  const answer = await send(socketPath, 'GET', path);
  if (answer.statusCode !== 200)
    throw remoteError(await readBody(answer, socketPath), answer.statusCode ?? 0);
  try {
    try {
      for await (const part of answer as AsyncIterable<Buffer>) yield part;
    } catch (cause) {
      throw unreachable(socketPath, cause);
    }
    if (answer.trailers['arcbox-error'] !== undefined) throw parseError(answer.trailers['arcbox-error']);
  } finally {
    answer.destroy();
  }
}

function headerError(answer: IncomingMessage): RemoteError {
  const text = answer.headers['arcbox-error'];
  if (typeof text === 'string') return parseError(text);
  return new RemoteError('ERR_ARCBOX_INTERNAL', `the daemon answered with status ${answer.statusCode}`, 125);
}

function parseError(text: string): RemoteError {
  const { code, message } = JSON.parse(decodeURIComponent(text)) as { code: string; message: string };
  return new RemoteError(code, message, 125);
}
