/**
 * The host's side of `Hello`. The same frame, with the same nonce, is sent again until it is answered: an agent that
 * is still starting, or that was in the middle of an earlier connection's frame, may have missed the first ones. So
 * there can be more answers than one; those after the first are for the client to ignore.
 */
import { randomBytes } from 'node:crypto';
import { create, toBinary } from '@bufbuild/protobuf';
import type { Connection } from './connection.ts';
import { ProtocolError } from './errors.ts';
import { FrameType } from './frame.ts';
import { Agent, HelloRequestSchema } from './gen/arcbox/agent/v1/agent_pb.ts';
import { RequestSchema } from './gen/ttrpc/ttrpc_pb.ts';
import { type HelloAnswer, HelloScanner } from './hello.ts';
import { HELLO_RETRY_MS, HELLO_RETRY_MS_MAX, NONCE_BYTES, PROTOCOL_VERSION, SECRET_BYTES } from './limits.ts';

export const HELLO_STREAM_ID = 1;

export interface HelloOptions {
  /** `SECRET_BYTES` bytes, the same for every connection to one machine. */
  readonly secret: Uint8Array;
  /** How long until the agent must have answered. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** Rejects when there is no answer; the caller then ends the connection. */
export function sayHello(connection: Connection, options: HelloOptions): Promise<HelloAnswer> {
  if (options.secret.length !== SECRET_BYTES) {
    throw new ProtocolError(
      'ERR_ARCBOX_AGENT_LIMIT',
      `The secret has ${options.secret.length} bytes; it must have ${SECRET_BYTES}`,
    );
  }
  options.signal?.throwIfAborted();
  const nonce = randomBytes(NONCE_BYTES);
  const frame = helloFrame(nonce, options.secret);
  const scanner = new HelloScanner(HELLO_STREAM_ID, nonce);
  const { promise, resolve, reject } = Promise.withResolvers<HelloAnswer>();
  let retryMs = HELLO_RETRY_MS;
  let retry: NodeJS.Timeout | undefined;
  const send = (): void => {
    if (connection.ended !== undefined) return;
    connection.writer.send(HELLO_STREAM_ID, FrameType.request, 0, frame);
    retry = setTimeout(send, retryMs);
    retryMs = Math.min(retryMs * 2, HELLO_RETRY_MS_MAX);
  };
  connection.intercept((piece) => {
    const answer = scanner.push(piece);
    if (answer === undefined) return;
    connection.intercept(undefined);
    resolve(answer);
  });
  const timeout = setTimeout(() => {
    reject(
      new ProtocolError(
        'ERR_ARCBOX_AGENT_TIMEOUT',
        `The agent did not answer within ${options.timeoutMs} ms (${scanner.skippedBytes} other bytes were skipped)`,
      ),
    );
  }, options.timeoutMs);
  const abort = (): void => reject(options.signal?.reason);
  options.signal?.addEventListener('abort', abort, { once: true });
  void connection.closed.then(reject);
  send();
  return promise.finally(() => {
    clearTimeout(retry);
    clearTimeout(timeout);
    options.signal?.removeEventListener('abort', abort);
  });
}

function helloFrame(nonce: Uint8Array, secret: Uint8Array): Uint8Array {
  const hello = create(HelloRequestSchema, { protocolVersion: PROTOCOL_VERSION, nonce, secret });
  return toBinary(
    RequestSchema,
    create(RequestSchema, {
      service: Agent.typeName,
      method: Agent.method.hello.name,
      payload: toBinary(HelloRequestSchema, hello),
    }),
  );
}
