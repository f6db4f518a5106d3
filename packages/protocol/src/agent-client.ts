/**
 * The host's end of the agent protocol: one connection, from `Hello` to its end, is one epoch. Calls in flight end
 * with it; objects in the agent do not, so a program connects again and attaches again at the offsets it acknowledged.
 */
import type { Duplex } from 'node:stream';
import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { type Attachment, AttachmentStream, type AttachOptions } from './attachment.ts';
import { Connection } from './connection.ts';
import { AgentCallError, AgentOpError, ProtocolError, Status, violation } from './errors.ts';
import { FrameFlag, FrameType } from './frame.ts';
import {
  Agent,
  BatchRequestSchema,
  BatchResponseSchema,
  type HelloResponse,
  type OpResult,
  WaitRequestSchema,
  WaitResponseSchema,
} from './gen/arcbox/agent/v1/agent_pb.ts';
import { RequestSchema, ResponseSchema } from './gen/ttrpc/ttrpc_pb.ts';
import { HELLO_STREAM_ID, type HelloOptions, sayHello } from './handshake.ts';
import { BATCH_OPS_MAX, CALLS_MAX, OBJECT_ID_BYTES_MAX, PROTOCOL_VERSION } from './limits.ts';
import type { OpInput } from './op-input.ts';
import type { StreamHandler } from './stream-handler.ts';

export interface CallOptions {
  /** Rejects the call with the signal's reason. The agent goes on with what it has begun. */
  readonly signal?: AbortSignal;
  /** Rejects the call with `ERR_ARCBOX_AGENT_TIMEOUT` after so many milliseconds. */
  readonly timeoutMs?: number;
}

/** How an object ended, see `WaitResponse`. */
export interface ObjectEnd {
  readonly signaled: boolean;
  /** Exit code, or the signal's number when `signaled`; for other kinds an errno. */
  readonly code: number;
  readonly error: string;
}

/** A stream that the host has given up; what the agent still sends on it is nobody's. */
const ABANDONED: StreamHandler = { onResponse() {}, onData() {}, onEnd() {} };

const STREAM_ID_MAX = 0x7fffffff;

export class AgentClient implements AsyncDisposable {
  /**
   * Opens an epoch: sends `Hello`, skips everything before its answer, sends it again with back-off. The client owns
   * the channel from the call on, also when it rejects.
   *
   * Throws `ProtocolError` with `ERR_ARCBOX_AGENT_TIMEOUT`, `…_CLOSED`, `…_VERSION`, or the signal's reason.
   */
  static async connect(channel: Duplex, options: HelloOptions): Promise<AgentClient> {
    const connection = new Connection(channel);
    try {
      const { hello, rest } = await sayHello(connection, options);
      if (hello.protocolVersion !== PROTOCOL_VERSION) {
        throw new ProtocolError(
          'ERR_ARCBOX_AGENT_VERSION',
          `The agent ${hello.agentVersion} speaks version ${hello.protocolVersion} of the protocol, we speak ${PROTOCOL_VERSION}; restart its machine`,
        );
      }
      return new AgentClient(connection, hello, rest);
    } catch (cause) {
      const error =
        cause instanceof ProtocolError
          ? cause
          : new ProtocolError('ERR_ARCBOX_AGENT_CLOSED', 'The connection was given up', { cause });
      connection.fail(error);
      throw cause;
    }
  }

  /** What the agent said of itself. */
  readonly hello: HelloResponse;
  /** Settles when the connection ended; never rejects. */
  readonly closed: Promise<ProtocolError>;
  readonly #connection: Connection;
  readonly #streams = new Map<number, StreamHandler>();
  #nextStreamId = HELLO_STREAM_ID + 2;

  private constructor(connection: Connection, hello: HelloResponse, rest: Uint8Array) {
    this.#connection = connection;
    this.hello = hello;
    this.closed = connection.closed;
    // `Hello` was perhaps sent more than once, and then has more than one answer.
    this.#streams.set(HELLO_STREAM_ID, ABANDONED);
    connection.start(
      (streamId, type, flags, data) => this.#onFrame(streamId, type, flags, data),
      (error) => this.#onEnd(error),
      rest,
    );
  }

  /** Whether a call is in flight or a stream is open. */
  get busy(): boolean {
    return this.#streams.values().some((stream) => stream !== ABANDONED);
  }

  /**
   * Runs operations in order, up to the first that fails. Answers with one result for each.
   *
   * Throws `AgentOpError` when one failed; `AgentCallError` when the agent refused the whole batch; `ProtocolError`
   * when there was no answer (then it is not known what was done).
   */
  async batch(ops: readonly OpInput[], options: CallOptions = {}): Promise<OpResult[]> {
    if (ops.length > BATCH_OPS_MAX) {
      throw new ProtocolError(
        'ERR_ARCBOX_AGENT_LIMIT',
        `A batch of ${ops.length} operations is too long; the limit is ${BATCH_OPS_MAX}, send several`,
      );
    }
    const request: MessageInitShape<typeof BatchRequestSchema> = {
      // `OpInput` is the generated shape, but for numbers in the place of bigints, which serialize alike.
      ops: ops.map((op) => ({ op: op as never })),
    };
    const { results } = await this.#unary(
      Agent.method.batch.name,
      BatchRequestSchema,
      request,
      BatchResponseSchema,
      options,
    );
    const failed = results.findIndex((result) => result.errno !== 0);
    const failure = results[failed];
    if (failure !== undefined) {
      const op = ops[failed]?.case ?? 'unknown';
      throw new AgentOpError(failed, op, failure.errno, failure.error, results.slice(0, failed + 1));
    }
    if (results.length !== ops.length) {
      throw violation(`The agent answered ${results.length} of ${ops.length} operations and none had failed`);
    }
    return results;
  }

  /** How the object ended, once it has. Throws `AgentCallError` (`Status.notFound`) when there is none of that name. */
  async wait(id: string, options: CallOptions = {}): Promise<ObjectEnd> {
    const { signaled, code, error } = await this.#unary(
      Agent.method.wait.name,
      WaitRequestSchema,
      { id },
      WaitResponseSchema,
      options,
    );
    return { signaled, code, error };
  }

  /**
   * Moves an object's bytes. Answered when the agent has opened the stream; chunks can arrive before that.
   *
   * Throws `AgentCallError`: `Status.notFound` when there is no such object, `Status.outOfRange` when an offset was
   * already freed or not yet reached.
   */
  async attach(id: string, options: AttachOptions): Promise<Attachment> {
    if (Buffer.byteLength(id) > OBJECT_ID_BYTES_MAX) {
      throw new ProtocolError(
        'ERR_ARCBOX_AGENT_LIMIT',
        `The object name ${id.slice(0, OBJECT_ID_BYTES_MAX)}… is longer than ${OBJECT_ID_BYTES_MAX} bytes`,
      );
    }
    options.signal?.throwIfAborted();
    const streamId = this.#allocate();
    const stream = new AttachmentStream(id, streamId, options, {
      writer: this.#connection.writer,
      abandon: () => this.#abandon(streamId),
    });
    this.#streams.set(streamId, stream);
    const payload = toBinary(
      RequestSchema,
      create(RequestSchema, {
        service: Agent.typeName,
        method: Agent.method.attach.name,
        payload: stream.openMessage,
      }),
    );
    this.#connection.writer.send(streamId, FrameType.request, FrameFlag.remoteOpen, payload);
    const abort = (): void => stream.abort(options.signal?.reason);
    options.signal?.addEventListener('abort', abort, { once: true });
    try {
      await stream.opened;
    } finally {
      options.signal?.removeEventListener('abort', abort);
    }
    return stream;
  }

  /** Sends what is queued, ends the epoch and releases the channel. Calls in flight reject. */
  async close(): Promise<void> {
    await this.#connection.close(
      new ProtocolError('ERR_ARCBOX_AGENT_CLOSED', 'The connection was closed by us'),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #unary<Request extends DescMessage, Answer extends DescMessage>(
    method: string,
    requestSchema: Request,
    request: MessageInitShape<Request>,
    answerSchema: Answer,
    options: CallOptions,
  ): Promise<MessageShape<Answer>> {
    const { signal, timeoutMs } = options;
    signal?.throwIfAborted();
    const data = toBinary(
      RequestSchema,
      create(RequestSchema, {
        service: Agent.typeName,
        method,
        payload: toBinary(requestSchema, create(requestSchema, request)),
        timeoutNano: timeoutMs === undefined ? 0n : BigInt(Math.ceil(timeoutMs)) * 1_000_000n,
      }),
    );
    const streamId = this.#allocate();
    const { promise, resolve, reject } = Promise.withResolvers<MessageShape<Answer>>();
    this.#connection.writer.send(streamId, FrameType.request, 0, data);
    this.#streams.set(streamId, {
      onResponse: ({ status, payload }) => {
        if (status !== undefined && status.code !== Status.ok) {
          reject(new AgentCallError(method, status.code, status.message));
          return;
        }
        const answer = decode(answerSchema, payload);
        resolve(answer);
      },
      onData: () => {
        throw violation(`The agent sent stream data in answer to ${method}`);
      },
      onEnd: reject,
    });
    // Sending may have ended the connection, before it knew of this call.
    if (this.#connection.ended !== undefined) reject(this.#connection.ended);
    const giveUp = (reason: unknown): void => {
      this.#abandon(streamId);
      reject(reason);
    };
    const abort = (): void => giveUp(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    const timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            giveUp(
              new ProtocolError(
                'ERR_ARCBOX_AGENT_TIMEOUT',
                `The agent did not answer ${method} in ${timeoutMs} ms`,
              ),
            );
          }, timeoutMs);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  #allocate(): number {
    if (this.#connection.ended !== undefined) throw this.#connection.ended;
    if (this.#streams.size >= CALLS_MAX) {
      throw new ProtocolError(
        'ERR_ARCBOX_AGENT_LIMIT',
        `${CALLS_MAX} calls are in flight on this connection; wait for some of them`,
      );
    }
    const streamId = this.#nextStreamId;
    if (streamId > STREAM_ID_MAX) {
      throw new ProtocolError(
        'ERR_ARCBOX_AGENT_LIMIT',
        'The connection has used up its stream ids; connect again',
      );
    }
    this.#nextStreamId += 2;
    return streamId;
  }

  /** The agent may still answer; until it did the id stays known. */
  #abandon(streamId: number): void {
    if (this.#streams.has(streamId)) this.#streams.set(streamId, ABANDONED);
  }

  #onFrame(streamId: number, type: number, flags: number, data: Uint8Array): void {
    const stream = this.#streams.get(streamId);
    if (stream === undefined)
      throw violation(`The agent sent a frame on stream ${streamId}, which is not open`);
    if (type === FrameType.data) {
      stream.onData(flags, data);
    } else if (type === FrameType.response) {
      // The frame's bytes are valid only for now; an answer is kept. One that cannot be decoded ends the connection,
      // and the call with it.
      stream.onResponse(decode(ResponseSchema, new Uint8Array(data)));
      if (streamId !== HELLO_STREAM_ID) this.#streams.delete(streamId);
    } else {
      throw violation('The agent sent a request');
    }
  }

  #onEnd(error: ProtocolError): void {
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const stream of streams) stream.onEnd(error);
  }
}

function decode<Desc extends DescMessage>(schema: Desc, data: Uint8Array): MessageShape<Desc> {
  try {
    return fromBinary(schema, data);
  } catch (cause) {
    throw violation(`The agent sent something that is no ${schema.typeName}`, { cause });
  }
}
