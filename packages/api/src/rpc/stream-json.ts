/**
 * The other part of the Connect protocol that our own command speaks: calls that are answered with a stream of messages,
 * in JSON over HTTP/1.1 (connectrpc.com/docs/protocol, *Streaming-Request*). A message is a byte of flags, its length
 * as four bytes, big-endian, and its bytes; the last one has the flag `END` and says how it went.
 */
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { EngineError } from '@arcbox/engine';
import { create, toJson } from '@bufbuild/protobuf';
import type { StreamMethod } from './registration.ts';
import { errorBody, MAY_BE_NEWER, parseRequest, readBody } from './unary-json.ts';

export const STREAM_CONTENT_TYPE = 'application/connect+json';
export const ENVELOPE_BYTES = 5;
export const END_FLAG = 2;

/** Whether `serveStreamJson` can answer. */
export function isStreamJson(request: IncomingMessage, methods: ReadonlyMap<string, StreamMethod>): boolean {
  return (
    request.method === 'POST' &&
    request.headers['content-type'] === STREAM_CONTENT_TYPE &&
    (request.headers['connect-content-encoding'] ?? 'identity') === 'identity' &&
    request.headers['connect-timeout-ms'] === undefined &&
    methods.has(request.url ?? '')
  );
}

/** Answers the call; never rejects. A client that is slow is waited for, one that leaves ends the stream. */
export async function serveStreamJson(
  request: IncomingMessage,
  response: ServerResponse,
  methods: ReadonlyMap<string, StreamMethod>,
): Promise<void> {
  const left = new AbortController();
  response.once('close', () => left.abort());
  response.writeHead(200, { 'content-type': STREAM_CONTENT_TYPE });
  response.flushHeaders();
  let end = '{}';
  try {
    const method = methods.get(request.url ?? '');
    if (method === undefined)
      throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', `no method ${request.url}; ${MAY_BE_NEWER}`);
    const body = await readBody(request);
    if (
      body.length < ENVELOPE_BYTES ||
      body[0] !== 0 ||
      body.readUInt32BE(1) !== body.length - ENVELOPE_BYTES
    ) {
      throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', 'the request is not one enveloped message');
    }
    const message = parseRequest(method.input, body.toString('utf8', ENVELOPE_BYTES));
    for await (const answer of method.call(message, { signal: left.signal })) {
      const json = JSON.stringify(toJson(method.output, create(method.output, answer)));
      if (left.signal.aborted) return;
      if (!response.write(envelope(0, json))) await once(response, 'drain', { signal: left.signal });
    }
  } catch (error) {
    if (left.signal.aborted) return;
    end = JSON.stringify({ error: errorBody(error).error });
  }
  response.end(envelope(END_FLAG, end));
  await once(response, 'finish', { signal: left.signal }).catch(() => {});
}

export function envelope(flags: number, json: string): Buffer {
  const length = Buffer.byteLength(json);
  const message = Buffer.allocUnsafe(ENVELOPE_BYTES + length);
  message[0] = flags;
  message.writeUInt32BE(length, 1);
  message.write(json, ENVELOPE_BYTES);
  return message;
}
