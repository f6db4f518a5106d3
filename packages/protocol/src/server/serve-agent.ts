/**
 * The agent's side of the protocol, for tests and for the fake VM driver: `Hello`, unary calls, and `Attach` streams
 * with credit over objects that outlive the connection. What the operations do is the caller's.
 */
import type { Duplex } from 'node:stream';
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { decodeAttachFrame } from '../attach-codec.ts';
import { Connection } from '../connection.ts';
import { AgentCallError, ProtocolError, Status, violation } from '../errors.ts';
import { FrameFlag, FrameType } from '../frame.ts';
import {
  Agent,
  BatchRequestSchema,
  BatchResponseSchema,
  HelloRequestSchema,
  HelloResponseSchema,
  type Op,
  type OpResultSchema,
  WaitRequestSchema,
  WaitResponseSchema,
} from '../gen/arcbox/agent/v1/agent_pb.ts';
import { type Request, RequestSchema, ResponseSchema } from '../gen/ttrpc/ttrpc_pb.ts';
import { BATCH_OPS_MAX, CALLS_MAX, PROTOCOL_VERSION } from '../limits.ts';
import type { ServedObject } from './served-object.ts';
import { ServedStream } from './served-stream.ts';

type OpResultInit = Exclude<MessageInitShape<typeof OpResultSchema>, { $typeName: string }>;

/** What an operation answers with; nothing when it has no result. */
export type OpAnswer = NonNullable<OpResultInit['result']> | undefined;

/** Thrown by `AgentHandlers.op` to fail an operation, and with it the batch. */
export class OpFailure extends Error {
  override readonly name = 'OpFailure';
  /** Linux errno. */
  readonly errno: number;

  constructor(errno: number, message: string) {
    super(message);
    this.errno = errno;
  }
}

export interface AgentHandlers {
  /** What `Hello` answers, besides the nonce. Throw `AgentCallError` (`Status.permissionDenied`) to refuse. */
  hello?(
    secret: Uint8Array,
  ): Omit<MessageInitShape<typeof HelloResponseSchema>, '$typeName' | '$unknown' | 'nonce'>;
  /** Runs one operation. `signal` is aborted when the connection ends. */
  op(op: Op['op'], signal: AbortSignal): OpAnswer | Promise<OpAnswer>;
  /** Objects for `Wait` and `Attach`. */
  object(id: string): ServedObject | undefined;
}

export interface AgentSession extends AsyncDisposable {
  /** Settles when the connection ended; never rejects. */
  readonly closed: Promise<ProtocolError>;
  close(): Promise<void>;
}

/** Serves one connection. It owns the channel. */
export function serveAgent(channel: Duplex, handlers: AgentHandlers): AgentSession {
  return new Session(new Connection(channel), handlers);
}

class Session implements AgentSession {
  readonly closed: Promise<ProtocolError>;
  readonly #connection: Connection;
  readonly #handlers: AgentHandlers;
  readonly #abort = new AbortController();
  readonly #streams = new Map<number, ServedStream>();
  readonly #calls = new Set<number>();
  #nonce: Buffer | undefined;
  #lastStreamId = 0;

  constructor(connection: Connection, handlers: AgentHandlers) {
    this.#connection = connection;
    this.#handlers = handlers;
    this.closed = connection.closed;
    connection.start(
      (streamId, type, flags, data) => this.#onFrame(streamId, type, flags, data),
      (error) => {
        this.#abort.abort(error);
        for (const stream of this.#streams.values()) stream.release();
        this.#streams.clear();
      },
    );
  }

  async close(): Promise<void> {
    await this.#connection.close(
      new ProtocolError('ERR_ARCBOX_AGENT_CLOSED', 'The connection was closed by us'),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #onFrame(streamId: number, type: number, flags: number, data: Uint8Array): void {
    if (type === FrameType.request) {
      this.#onRequest(streamId, flags, decode(RequestSchema, new Uint8Array(data)));
      return;
    }
    if (type !== FrameType.data) throw violation('The host sent a response');
    // A stream that we have just ended may still have frames under way.
    if (streamId > this.#lastStreamId)
      throw violation(`The host sent a frame on stream ${streamId}, never opened`);
    this.#streams.get(streamId)?.onData(flags, data);
  }

  #onRequest(streamId: number, flags: number, request: Request): void {
    if (request.service !== Agent.typeName) {
      this.#answer(streamId, Status.unimplemented, `There is no service ${request.service}`);
      return;
    }
    if (request.method === Agent.method.hello.name) {
      this.#hello(streamId, request);
      return;
    }
    if (this.#nonce === undefined) throw violation(`The host called ${request.method} before Hello`);
    if (streamId % 2 === 0 || streamId <= this.#lastStreamId)
      throw violation(`The host opened stream ${streamId}`);
    this.#lastStreamId = streamId;
    if (this.#calls.size + this.#streams.size >= CALLS_MAX) {
      this.#answer(streamId, Status.resourceExhausted, `${CALLS_MAX} calls are in flight`);
    } else if (request.method === Agent.method.attach.name) {
      if ((flags & FrameFlag.remoteOpen) === 0)
        throw violation('Attach is a stream and was called without one');
      this.#attach(streamId, request);
    } else {
      this.#unary(streamId, request);
    }
  }

  #hello(streamId: number, request: Request): void {
    const { nonce, secret } = decode(HelloRequestSchema, request.payload);
    if (this.#nonce !== undefined && !this.#nonce.equals(nonce)) throw violation('The host said Hello twice');
    this.#nonce = Buffer.from(nonce);
    this.#lastStreamId = Math.max(this.#lastStreamId, streamId);
    try {
      const identity = this.#handlers.hello?.(secret) ?? { epoch: 1n, agentVersion: 'served' };
      this.#reply(streamId, HelloResponseSchema, { protocolVersion: PROTOCOL_VERSION, ...identity, nonce });
    } catch (error) {
      this.#refuse(streamId, error);
    }
  }

  #attach(streamId: number, request: Request): void {
    const open = decodeAttachFrame(request.payload);
    if (open.kind !== 'open') throw violation('A stream began with something other than its opening');
    const object = this.#handlers.object(open.id);
    if (object === undefined) {
      this.#answer(streamId, Status.notFound, `There is no object ${open.id}`);
      return;
    }
    const { writer } = this.#connection;
    try {
      const stream = new ServedStream(streamId, open, object, writer, (status, message) => {
        this.#streams.delete(streamId);
        this.#answer(streamId, status, message);
      });
      this.#streams.set(streamId, stream);
    } catch (error) {
      this.#refuse(streamId, error);
    }
  }

  #unary(streamId: number, request: Request): void {
    this.#calls.add(streamId);
    const done =
      request.method === Agent.method.batch.name
        ? this.#batch(streamId, request)
        : request.method === Agent.method.wait.name
          ? this.#wait(streamId, request)
          : Promise.reject(
              new AgentCallError(
                request.method,
                Status.unimplemented,
                `There is no method ${request.method}`,
              ),
            );
    void done.catch((error) => this.#refuse(streamId, error)).finally(() => this.#calls.delete(streamId));
  }

  async #batch(streamId: number, request: Request): Promise<void> {
    const { ops } = decode(BatchRequestSchema, request.payload);
    if (ops.length > BATCH_OPS_MAX) {
      throw new AgentCallError(
        'Batch',
        Status.invalidArgument,
        `${ops.length} operations; the limit is ${BATCH_OPS_MAX}`,
      );
    }
    const results: OpResultInit[] = [];
    for (const { op } of ops) {
      try {
        const result = await this.#handlers.op(op, this.#abort.signal);
        results.push(result === undefined ? {} : { result });
      } catch (error) {
        if (!(error instanceof OpFailure)) throw error;
        results.push({ errno: error.errno, error: error.message });
        break;
      }
    }
    this.#reply(streamId, BatchResponseSchema, { results });
  }

  async #wait(streamId: number, request: Request): Promise<void> {
    const { id } = decode(WaitRequestSchema, request.payload);
    const object = this.#handlers.object(id);
    if (object === undefined) throw new AgentCallError('Wait', Status.notFound, `There is no object ${id}`);
    const end = await object.end;
    this.#reply(streamId, WaitResponseSchema, end);
  }

  #refuse(streamId: number, error: unknown): void {
    if (error instanceof AgentCallError) this.#answer(streamId, error.status, error.detail);
    else if (error instanceof ProtocolError) this.#connection.fail(error);
    else this.#answer(streamId, Status.internal, error instanceof Error ? error.message : String(error));
  }

  #reply<Desc extends DescMessage>(streamId: number, schema: Desc, message: MessageInitShape<Desc>): void {
    this.#respond(streamId, { payload: toBinary(schema, create(schema, message)) });
  }

  #answer(streamId: number, code: number, message: string): void {
    this.#respond(streamId, code === Status.ok ? {} : { status: { code, message } });
  }

  #respond(streamId: number, response: MessageInitShape<typeof ResponseSchema>): void {
    if (this.#connection.ended !== undefined) return;
    const data = toBinary(ResponseSchema, create(ResponseSchema, response));
    this.#connection.writer.send(streamId, FrameType.response, 0, data);
  }
}

function decode<Desc extends DescMessage>(schema: Desc, data: Uint8Array) {
  try {
    return fromBinary(schema, data);
  } catch (cause) {
    throw violation(`The host sent something that is no ${schema.typeName}`, { cause });
  }
}
