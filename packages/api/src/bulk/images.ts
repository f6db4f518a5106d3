/**
 * Images in bulk, as plain HTTP/1.1: a tar is the request's or the answer's body, never a message.
 *
 * `POST /v1/images/load` and `POST /v1/images/import?name=&change=&comment=&platform=` are answered while the body still
 * comes, with the envelopes of a Connect stream of `TransferProgress` (see rpc/stream-json.ts).
 * `GET /v1/images/save?name=&name=` is answered with a tar; an answer that is cut off is no archive.
 */
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { EngineError, type Runtime } from '@arcbox/engine';
import { parsePlatform } from '@arcbox/image';
import { create, toJson } from '@bufbuild/protobuf';
import { TransferProgressSchema } from '../gen/arcbox/v1/image_pb.ts';
import { outlastBody } from '../linger.ts';
import { END_FLAG, envelope, STREAM_CONTENT_TYPE } from '../rpc/stream-json.ts';
import { errorBody } from '../rpc/unary-json.ts';
import { imageMessage, transferMessages } from '../services/image-messages.ts';

const PREFIX = '/v1/images/';

/** Answers the request, when it is one of these; never rejects. */
export function serveImageBulk(
  runtime: Runtime,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> | undefined {
  return request.url?.startsWith(PREFIX) === true ? serve(runtime, request, response) : undefined;
}

async function serve(runtime: Runtime, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://localhost');
  const left = new AbortController();
  response.once('close', () => left.abort());
  const what = `${request.method} ${url.pathname.slice(PREFIX.length)}`;
  if (what === 'GET save') await save(runtime, url.searchParams, response);
  else if (what === 'POST load')
    await take(request, response, left.signal, load(runtime, request, left.signal));
  else if (what === 'POST import') {
    await take(request, response, left.signal, importImage(runtime, request, url.searchParams, left.signal));
  } else
    refuse(
      response,
      new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', `there is no ${request.method} ${url.pathname}`),
    );
}

type Messages = ReturnType<typeof transferMessages>;

function load({ images }: Runtime, request: IncomingMessage, signal: AbortSignal): Messages {
  return transferMessages(async (onProgress) => {
    const loaded = await images.load(request, { onProgress, signal });
    return { images: loaded.map(imageMessage), changed: true };
  });
}

function importImage(
  { images }: Runtime,
  request: IncomingMessage,
  query: URLSearchParams,
  signal: AbortSignal,
): Messages {
  return transferMessages(async (onProgress) => {
    const platform = query.get('platform');
    const image = await images.createFromLayer({
      layer: request,
      names: query.getAll('name'),
      changes: query.getAll('change'),
      comment: query.get('comment') ?? '',
      ...(platform === null ? {} : { platform: parsePlatform(platform) }),
      onProgress,
      signal,
    });
    return { images: [imageMessage(image)], changed: true };
  });
}

/** Tells of the transfer while the body comes. */
async function take(
  request: IncomingMessage,
  response: ServerResponse,
  left: AbortSignal,
  messages: Messages,
): Promise<void> {
  response.writeHead(200, { 'content-type': STREAM_CONTENT_TYPE });
  response.flushHeaders();
  let end = '{}';
  try {
    for await (const message of messages) {
      if (left.aborted) return;
      const json = JSON.stringify(toJson(TransferProgressSchema, create(TransferProgressSchema, message)));
      if (!response.write(envelope(0, json))) await once(response, 'drain', { signal: left });
    }
  } catch (error) {
    if (left.aborted) return;
    end = JSON.stringify({ error: errorBody(error).error });
  }
  if (!request.readableEnded) response.shouldKeepAlive = false;
  // The last message says that it is the last.
  response.write(envelope(END_FLAG, end));
  await outlastBody(request);
  response.end();
}

async function save({ images }: Runtime, query: URLSearchParams, response: ServerResponse): Promise<void> {
  try {
    const names = query.getAll('name');
    if (names.length === 0) throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', 'an image must be named');
    const archive = await images.save(names);
    response.writeHead(200, { 'content-type': 'application/x-tar' });
    await pipeline(archive, response).catch(() => {
      // The client has left, or the archive broke off: then the answer does, too.
      response.destroy();
    });
  } catch (error) {
    refuse(response, error);
  }
}

function refuse(response: ServerResponse, error: unknown): void {
  const told = errorBody(error);
  const json = JSON.stringify(told.error);
  response.writeHead(told.status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(json),
    connection: 'close',
  });
  response.end(json);
}
