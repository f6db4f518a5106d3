/** Calls that are answered with a stream, for our own command: see `rpc/stream-json.ts` for what goes over the wire. */
import { type IncomingMessage, request } from 'node:http';
import type { ContainerLogsRequestJson, ContainerLogsResponseJson } from '../gen/arcbox/v1/container_pb.ts';
import type {
  PullImageRequestJson,
  PushImageRequestJson,
  TransferProgressJson,
} from '../gen/arcbox/v1/image_pb.ts';
import type { CaptureNetworkRequestJson, CaptureNetworkResponseJson } from '../gen/arcbox/v1/network_pb.ts';
import type { EventJson, EventsRequestJson } from '../gen/arcbox/v1/system_pb.ts';
import { MESSAGE_BYTES_MAX } from '../limits.ts';
import { remoteError, unreachable } from './client.ts';

/** Request and messages of every method that answers with a stream. */
export interface StreamMethods {
  'ImageService/Pull': [PullImageRequestJson, TransferProgressJson];
  'ImageService/Push': [PushImageRequestJson, TransferProgressJson];
  'NetworkService/Capture': [CaptureNetworkRequestJson, CaptureNetworkResponseJson];
  'SystemService/Events': [EventsRequestJson, EventJson];
  'ContainerService/Logs': [ContainerLogsRequestJson, ContainerLogsResponseJson];
}

const ENVELOPE_BYTES = 5;
const END_FLAG = 2;
export const CONTENT_TYPE = 'application/connect+json';

/** Calls a method; leaving the loop leaves the call. Throws as `call` does, also in the middle. */
export async function* callStream<Method extends keyof StreamMethods>(
  socketPath: string,
  method: Method,
  message: StreamMethods[Method][0],
): AsyncGenerator<StreamMethods[Method][1]> {
  const json = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(ENVELOPE_BYTES);
  head.writeUInt32BE(json.length, 1);
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const outgoing = request(
    {
      socketPath,
      method: 'POST',
      path: `/arcbox.v1.${method}`,
      agent: false,
      headers: { 'content-type': CONTENT_TYPE, 'connect-protocol-version': '1' },
    },
    resolve,
  );
  outgoing.on('error', (cause) => reject(unreachable(socketPath, cause)));
  outgoing.end(Buffer.concat([head, json]));
  try {
    const answer = await promise;
    if (answer.headers['content-type'] !== CONTENT_TYPE) throw remoteError('', answer.statusCode ?? 0);
    yield* messagesOf<StreamMethods[Method][1]>(answer, socketPath);
  } finally {
    outgoing.destroy();
  }
}

/** The messages of an answer, until it has ended. Throws as `call` does. */
export async function* messagesOf<Message>(
  answer: IncomingMessage,
  socketPath: string,
): AsyncGenerator<Message, void, undefined> {
  for await (const [flags, body] of envelopes(answer, socketPath)) {
    if ((flags & END_FLAG) === 0) {
      yield JSON.parse(body) as Message;
      continue;
    }
    const { error } = JSON.parse(body) as { error?: unknown };
    if (error !== undefined) throw remoteError(JSON.stringify(error), 200);
    return;
  }
  throw unreachable(socketPath, new Error('the stream broke off'));
}

async function* envelopes(answer: IncomingMessage, socketPath: string): AsyncGenerator<[number, string]> {
  let held: Buffer = Buffer.alloc(0);
  try {
    for await (const part of answer as AsyncIterable<Buffer>) {
      held = held.length === 0 ? part : Buffer.concat([held, part]);
      while (held.length >= ENVELOPE_BYTES) {
        const length = held.readUInt32BE(1);
        if (length > MESSAGE_BYTES_MAX) throw new Error(`a message has more than ${MESSAGE_BYTES_MAX} bytes`);
        if (held.length < ENVELOPE_BYTES + length) break;
        yield [held[0] ?? 0, held.toString('utf8', ENVELOPE_BYTES, ENVELOPE_BYTES + length)];
        held = held.subarray(ENVELOPE_BYTES + length);
      }
    }
  } catch (cause) {
    throw unreachable(socketPath, cause);
  }
}
