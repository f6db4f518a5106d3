/**
 * The part of the Connect protocol that our own command speaks: unary calls in JSON over HTTP/1.1
 * (connectrpc.com/docs/protocol, *Unary-Request*). Everything else is `full.ts`, which is loaded when somebody asks for
 * it: it brings an HTTP/2 server and a fetch implementation, 26 MB that a daemon with no such client does without.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { EngineError, messageOf } from '@arcbox/engine';
import { create, type DescMessage, fromJson, type JsonValue, toBinary, toJson } from '@bufbuild/protobuf';
import { HTTP_STATUS, publicError } from '../error-mapping.ts';
import { ErrorDetailSchema } from '../gen/arcbox/v1/error_pb.ts';
import { MESSAGE_BYTES_MAX } from '../limits.ts';
import type { UnaryMethod } from './registration.ts';

/** Whether `serveUnaryJson` can answer. */
export function isUnaryJson(request: IncomingMessage, methods: ReadonlyMap<string, UnaryMethod>): boolean {
  return (
    request.method === 'POST' &&
    request.headers['content-type'] === 'application/json' &&
    (request.headers['content-encoding'] ?? 'identity') === 'identity' &&
    request.headers['connect-timeout-ms'] === undefined &&
    methods.has(request.url ?? '')
  );
}

/** Answers the call; never rejects. */
export async function serveUnaryJson(
  request: IncomingMessage,
  response: ServerResponse,
  methods: ReadonlyMap<string, UnaryMethod>,
): Promise<void> {
  let status = 200;
  let body: string;
  try {
    const method = methods.get(request.url ?? '');
    if (method === undefined)
      throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', `no method ${request.url}; ${MAY_BE_NEWER}`);
    const message = parseRequest(method.input, (await readBody(request)).toString('utf8'));
    const answer = create(method.output, await method.call(message));
    body = JSON.stringify(toJson(method.output, answer));
  } catch (error) {
    const told = errorBody(error);
    status = told.status;
    body = JSON.stringify(told.error);
  }
  if (response.destroyed) return;
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  });
  response.end(body);
}

/** An error as the Connect protocol writes it, and the HTTP status that goes with it. */
export function errorBody(error: unknown): { readonly status: number; readonly error: object } {
  const { code, rpcCode, message, exitCode } = publicError(error);
  const value = toBinary(ErrorDetailSchema, create(ErrorDetailSchema, { code, exitCode }));
  const detail = {
    type: ErrorDetailSchema.typeName,
    value: Buffer.from(value).toString('base64').replace(/=+$/, ''),
    debug: { code, exitCode },
  };
  return { status: HTTP_STATUS[rpcCode], error: { code: rpcCode, message, details: [detail] } };
}

/** After an upgrade the daemon of before goes on until somebody ends it. */
export const MAY_BE_NEWER =
  'if the command is newer than this daemon, end it with arcbox daemon stop: the next command starts its own';

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT` when the body is no such message. */
export function parseRequest(input: DescMessage, body: string): ReturnType<typeof create> {
  try {
    return fromJson(input, JSON.parse(body) as JsonValue);
  } catch (error) {
    throw new EngineError(
      'ERR_ARCBOX_INVALID_ARGUMENT',
      `the request is no ${input.typeName}: ${messageOf(error)}; ${MAY_BE_NEWER}`,
      { cause: error },
    );
  }
}

/** Throws `ERR_ARCBOX_LIMIT` past the limit. */
export async function readBody(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > MESSAGE_BYTES_MAX) {
      throw new EngineError('ERR_ARCBOX_LIMIT', `a request may have ${MESSAGE_BYTES_MAX} bytes`);
    }
    parts.push(part);
  }
  return Buffer.concat(parts);
}
