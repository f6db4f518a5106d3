/** Images in bulk: what `bulk/images.ts` of the daemon takes and gives. */
import { type IncomingMessage, request } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { TransferProgressJson } from '../gen/arcbox/v1/image_pb.ts';
import { readBody, remoteError, unreachable } from './client.ts';
import { CONTENT_TYPE, messagesOf } from './stream-call.ts';

/** `name`, `change`, `comment`, `platform`: see there. */
export type BulkQuery = readonly (readonly [string, string])[];

/** Sends a tar and tells how it goes; leaving the loop leaves the call. Throws as `call` does. */
export async function* uploadImages(
  socketPath: string,
  method: 'load' | 'import',
  query: BulkQuery,
  body: Readable,
): AsyncGenerator<TransferProgressJson, void, undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const outgoing = request(
    {
      socketPath,
      method: 'POST',
      path: path(method, query),
      agent: false,
      headers: { 'content-type': 'application/x-tar' },
    },
    resolve,
  );
  outgoing.on('error', (cause) => reject(unreachable(socketPath, cause)));
  let failed: unknown;
  // Not waited for at the end: a body may be in the middle of something that does not end.
  pipeline(body, outgoing).catch((error: unknown) => {
    // A daemon that refuses does not read the rest; what it says comes as the answer.
    failed = body.errored ?? undefined;
    reject(unreachable(socketPath, error));
  });
  try {
    const answer = await promise;
    if (answer.headers['content-type'] !== CONTENT_TYPE) {
      throw remoteError(await readBody(answer, socketPath), answer.statusCode ?? 0);
    }
    yield* messagesOf<TransferProgressJson>(answer, socketPath);
  } catch (error) {
    throw failed ?? error;
  } finally {
    outgoing.destroy();
    body.destroy();
  }
}

/** A tar of the images. Throws as `call` does. */
export async function downloadImages(socketPath: string, names: readonly string[]): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const query = names.map((name) => ['name', name] as const);
  const outgoing = request({ socketPath, path: path('save', query), agent: false }, resolve);
  outgoing.on('error', (cause) => reject(unreachable(socketPath, cause)));
  outgoing.end();
  const answer = await promise;
  if (answer.statusCode === 200) return answer;
  throw remoteError(await readBody(answer, socketPath), answer.statusCode ?? 0);
}

function path(method: string, query: BulkQuery): string {
  return `/v1/images/${method}?${new URLSearchParams(query.map(([key, value]) => [key, value]))}`;
}
