/**
 * Files of containers as plain HTTP bodies, which are never in memory as a whole:
 *
 *   HEAD, GET  /v1/containers/{id}/archive?path=P[&name=N]  the path as a tar, its top entry called N or by its own name
 *   PUT        /v1/containers/{id}/archive?path=P[&name=N]  unpacks a tar into the directory P, its top entry as N;
 *                                                           noOverwriteDirNonDir=1, owner=root
 *   GET        /v1/containers/{id}/export                   the whole root as a tar
 *
 * The answer's header `arcbox-path-stat` is the path's status as JSON in base64; `follow=1` follows it when it is a link.
 * A failure after the headers is in the trailer `arcbox-error`, as JSON, percent-encoded.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { EngineError, type Runtime } from '@arcbox/engine';
import { HTTP_STATUS, publicError } from '../error-mapping.ts';
import { outlastBody } from '../linger.ts';

const PATH = /^\/v1\/containers\/([^/]+)\/(archive|export)$/;
export const STAT_HEADER = 'arcbox-path-stat';
export const ERROR_TRAILER = 'arcbox-error';
const TAR = 'application/x-tar';

/** Undefined for a request that is none of these; otherwise settles when it was answered, and never rejects. */
export function serveFiles(
  runtime: Runtime,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> | undefined {
  const url = new URL(request.url ?? '/', 'http://localhost');
  const match = PATH.exec(url.pathname);
  if (match === null) return undefined;
  const [, id = '', what = ''] = match;
  return serve(runtime, request, response, {
    id: decodeURIComponent(id),
    what,
    query: url.searchParams,
  }).catch((error: unknown) => refuse(request, response, error));
}

interface Target {
  readonly id: string;
  readonly what: string;
  readonly query: URLSearchParams;
}

async function serve(
  runtime: Runtime,
  request: IncomingMessage,
  response: ServerResponse,
  { id, what, query }: Target,
): Promise<void> {
  const files = await runtime.files();
  if (what === 'export' && request.method === 'GET') {
    await send(response, files.exportRoot(id));
    return;
  }
  const path = query.get('path');
  if (what !== 'archive' || path === null || path === '')
    throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', `${request.method} ${what} needs a path`);
  const name = query.get('name') ?? '';
  if (name.includes('/')) throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', 'a name has no slash');
  switch (request.method) {
    case 'HEAD':
    case 'GET': {
      const stat = await files.stat(id, path, query.get('follow') === '1');
      response.setHeader(STAT_HEADER, Buffer.from(JSON.stringify(stat)).toString('base64'));
      if (request.method === 'HEAD') response.writeHead(200).end();
      else await send(response, files.pack(id, path, name));
      return;
    }
    case 'PUT':
      // Whoever stops reading must not end the connection, which has still to carry the answer.
      await files.unpack(id, path, request.iterator({ destroyOnReturn: false }), {
        noOverwriteDirNonDir: query.get('noOverwriteDirNonDir') === '1',
        numericOwnerRoot: query.get('owner') === 'root',
        baseName: name,
      });
      response.writeHead(200, { 'content-length': 0 }).end();
      return;
    default:
      throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', `${request.method} of an archive is not known`);
  }
}

async function send(
  response: ServerResponse,
  tar: AsyncGenerator<Uint8Array, void, undefined>,
): Promise<void> {
  // What cannot be begun is refused with a status of its own.
  const first = await tar.next();
  response.writeHead(200, { 'content-type': TAR, trailer: ERROR_TRAILER });
  async function* all(): AsyncGenerator<Uint8Array> {
    if (first.done === true) return;
    yield first.value;
    yield* tar;
  }
  try {
    await pipeline(Readable.from(all(), { objectMode: true, highWaterMark: 1 }), response, { end: false });
  } catch (error) {
    if (response.destroyed) return;
    const { code, message } = publicError(error);
    response.addTrailers({ [ERROR_TRAILER]: encodeURIComponent(JSON.stringify({ code, message })) });
  } finally {
    await tar.return();
  }
  response.end();
}

async function refuse(request: IncomingMessage, response: ServerResponse, error: unknown): Promise<void> {
  if (response.destroyed) return;
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const { code, rpcCode, message, exitCode } = publicError(error);
  const body = JSON.stringify({ code, message, exitCode });
  response.writeHead(HTTP_STATUS[rpcCode], {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    connection: 'close',
    // An answer to HEAD has no body.
    [ERROR_TRAILER]: encodeURIComponent(JSON.stringify({ code, message })),
  });
  // By its length it is whole for the client.
  if (request.method !== 'HEAD') response.write(body);
  await outlastBody(request);
  response.end();
}
