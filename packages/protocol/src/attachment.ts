/**
 * The host's end of an `Attach` stream.
 *
 * Output: the agent may send up to the limit we gave, in order and without gaps; a byte beyond it, before it or twice
 * ends the connection. What was acknowledged the agent forgets, so `ack` is called when the bytes are where they
 * survive. Acknowledgements are coalesced: one goes out when a quarter of the window has become free, otherwise after
 * `CREDIT_DELAY_MS`, and at the end of the channel.
 *
 * Input: bytes are kept from `write` until the agent acknowledges them, that is until the object's descriptor took
 * them. When the epoch ends first, `unacked` gives them back, to be handed to the next epoch's `attach`.
 */
import {
  type ChunkFrame,
  type CreditFrame,
  decodeAttachFrame,
  encodeChunkHead,
  encodeCredit,
  encodeOpen,
} from './attach-codec.ts';
import { AgentCallError, ProtocolError, Status, violation } from './errors.ts';
import { FrameFlag, FrameType } from './frame.ts';
import type { FrameWriter } from './frame-writer.ts';
import type { Response } from './gen/ttrpc/ttrpc_pb.ts';
import {
  CHUNK_DATA_BYTES_MAX,
  CREDIT_DELAY_MS,
  CREDIT_SHARE,
  INPUT_UNACKED_BYTES_MAX,
  STREAM_WINDOW_BYTES,
} from './limits.ts';
import type { StreamHandler } from './stream-handler.ts';

export type OutputChannel = 1 | 2;

export interface OutputChunk {
  readonly channel: OutputChannel;
  /** Of the first byte of `data`. */
  readonly offset: number;
  /** A view, valid until the handler returns: copy what has to stay. */
  readonly data: Uint8Array;
  /** Nothing comes after this chunk on this channel. */
  readonly eof: boolean;
}

export interface ChannelStart {
  /** Where the host goes on; everything before it is acknowledged. */
  readonly offset: number;
  /** How far the agent may run ahead of `ack`; default `STREAM_WINDOW_BYTES`. */
  readonly windowBytes?: number;
}

/** Input bytes that were written and not acknowledged. */
export interface UnackedInput {
  /** Of the first byte. */
  readonly offset: number;
  readonly data: readonly Uint8Array[];
  readonly eof: boolean;
}

export interface AttachOptions {
  /** Channel 1; default from offset 0. */
  readonly output?: ChannelStart;
  /** Channel 2; default from offset 0. */
  readonly error?: ChannelStart;
  /** What an earlier epoch's attachment had not delivered (`Attachment.unacked`): it is delivered first. */
  readonly input?: UnackedInput;
  /** Gives up the opening. */
  readonly signal?: AbortSignal;
  /**
   * Called synchronously for each chunk, in order. When it throws the attachment is detached and its `closed` rejects
   * with what was thrown.
   */
  onChunk(chunk: OutputChunk): void;
}

export interface Attachment {
  readonly id: string;
  /** The bytes of the channel before `offset` are where they survive: the agent may forget them and send more. */
  ack(channel: OutputChannel, offset: number): void;
  /**
   * Sends input; answered when it is queued within the agent's credit (not yet acknowledged). The bytes belong to the
   * attachment until they are acknowledged: do not change them. Calls are served in order.
   *
   * Throws `ProtocolError` when the stream or the epoch ends first, or the object takes no input
   * (`ERR_ARCBOX_AGENT_STREAM_ENDED`, `…_CLOSED`).
   */
  write(data: Uint8Array, options?: { eof?: boolean }): Promise<void>;
  /** Input offset before which the object has taken everything. */
  readonly inputAcked: number;
  /** Input that was written and is not acknowledged; for the next epoch's `attach`. */
  unacked(): UnackedInput;
  /**
   * Settles when the agent ended the stream: the object has ended and all its output was delivered and acknowledged.
   * Also after `detach`. Rejects with `ProtocolError` when the epoch ended first, with `AgentCallError`
   * (`Status.aborted`) when another attachment took the object or it was released.
   */
  readonly closed: Promise<void>;
  /** Ends the stream; the object stays. No chunk is handed out afterwards. */
  detach(): void;
}

interface OutputState {
  readonly windowBytes: number;
  /** Offset of the next byte. */
  next: number;
  acked: number;
  ackedSent: number;
  limitSent: number;
  eof: boolean;
}

interface PendingInput {
  readonly offset: number;
  readonly data: Uint8Array;
  readonly eof: boolean;
}

export interface StreamContext {
  readonly writer: FrameWriter;
  /** The client ignores what still comes on the stream. */
  abandon(): void;
}

export class AttachmentStream implements Attachment, StreamHandler {
  readonly id: string;
  readonly opened: Promise<void>;
  readonly closed: Promise<void>;
  readonly #streamId: number;
  readonly #context: StreamContext;
  readonly #onChunk: (chunk: OutputChunk) => void;
  readonly #outputs: readonly [OutputState, OutputState];
  readonly #opening = Promise.withResolvers<void>();
  readonly #closing = Promise.withResolvers<void>();
  #state: 'opening' | 'open' | 'ended' = 'opening';
  /** Why nothing can be written any more. */
  #endReason: Error | undefined;
  #ackTimer: NodeJS.Timeout | undefined;
  /** Offset after the last byte that was sent. */
  #inputNext = 0;
  #inputAcked = 0;
  #inputLimit = 0;
  #inputEof = false;
  #inputStarted = false;
  #takesNoInput = false;
  #pending: PendingInput[] = [];
  #resumed: UnackedInput | undefined;
  #credit: PromiseWithResolvers<void> | undefined;
  #lastWrite: Promise<void> = Promise.resolve();

  constructor(id: string, streamId: number, options: AttachOptions, context: StreamContext) {
    this.id = id;
    this.#streamId = streamId;
    this.#context = context;
    this.#onChunk = (chunk) => options.onChunk(chunk);
    this.#outputs = [outputState(options.output), outputState(options.error)];
    this.#resumed = options.input;
    if (options.input !== undefined) {
      this.#inputAcked = options.input.offset;
      this.#inputNext = options.input.offset;
    }
    this.opened = this.#opening.promise;
    this.closed = this.#closing.promise;
    // Whoever does not ask how the stream ended need not be told.
    this.opened.catch(() => {});
    this.closed.catch(() => {});
  }

  get openMessage(): Uint8Array {
    const [output, error] = this.#outputs;
    return encodeOpen(
      this.id,
      { acked: output.acked, limit: output.limitSent },
      { acked: error.acked, limit: error.limitSent },
    );
  }

  get inputAcked(): number {
    return this.#inputAcked;
  }

  unacked(): UnackedInput {
    if (this.#resumed !== undefined) return this.#resumed;
    return {
      offset: this.#inputAcked,
      data: this.#pending
        .map(({ offset, data }) =>
          offset < this.#inputAcked ? data.subarray(this.#inputAcked - offset) : data,
        )
        .filter((data) => data.length > 0),
      eof: this.#pending.some(({ eof }) => eof),
    };
  }

  ack(channel: OutputChannel, offset: number): void {
    const output = this.#outputs[channel - 1 === 0 ? 0 : 1];
    if (offset > output.next || !Number.isSafeInteger(offset)) {
      throw new ProtocolError(
        'ERR_ARCBOX_AGENT_LIMIT',
        `Offset ${offset} of channel ${channel} of ${this.id} cannot be acknowledged; ${output.next} was received`,
      );
    }
    if (offset <= output.acked || this.#state === 'ended') return;
    output.acked = offset;
    const atEnd = output.eof && offset === output.next;
    if (atEnd || offset - output.ackedSent >= output.windowBytes * CREDIT_SHARE)
      this.#sendCredit(channel, output);
    else this.#ackTimer ??= setTimeout(() => this.#sendCredits(), CREDIT_DELAY_MS);
  }

  write(data: Uint8Array, options: { eof?: boolean } = {}): Promise<void> {
    const written = this.#lastWrite.then(() => this.#write(data, options.eof ?? false));
    this.#lastWrite = written.catch(() => {});
    return written;
  }

  detach(): void {
    if (this.#state === 'ended') return;
    this.#sendCredits();
    this.#leave(undefined);
  }

  /** Gives up the opening. */
  abort(reason: unknown): void {
    if (this.#state !== 'opening') return;
    this.#opening.reject(reason);
    this.#leave(reason);
  }

  onData(flags: number, data: Uint8Array): void {
    if ((flags & FrameFlag.noData) !== 0) return;
    const frame = decodeAttachFrame(data);
    if (frame.kind === 'chunk') this.#takeChunk(frame);
    else if (frame.kind === 'credit') this.#takeCredit(frame);
    else throw violation('The agent opened a stream');
  }

  onResponse({ status }: Response): void {
    if (status === undefined || status.code === Status.ok) {
      this.#opening.resolve();
      this.#end(undefined);
      return;
    }
    this.#end(new AgentCallError('Attach', status.code, status.message));
  }

  onEnd(error: ProtocolError): void {
    this.#end(error);
  }

  #takeChunk(chunk: ChunkFrame): void {
    const { channel, offset, data, eof } = chunk;
    if (channel !== 1 && channel !== 2)
      throw violation(`The agent sent a chunk of channel ${channel} of ${this.id}`);
    const output = this.#outputs[channel - 1 === 0 ? 0 : 1];
    if (output.eof)
      throw violation(`The agent sent a chunk after the end of channel ${channel} of ${this.id}`);
    if (offset !== output.next) {
      throw violation(
        `The agent sent offset ${offset} of channel ${channel} of ${this.id}; ${output.next} is next`,
      );
    }
    if (data.length > CHUNK_DATA_BYTES_MAX || offset + data.length > output.limitSent) {
      throw violation(
        `The agent sent ${data.length} bytes at ${offset} of channel ${channel} of ${this.id}; its limit is ${output.limitSent}`,
      );
    }
    if (this.#state === 'ended') return;
    output.next += data.length;
    output.eof = eof;
    this.#open();
    try {
      this.#onChunk({ channel, offset, data, eof });
    } catch (error) {
      this.#leave(error);
    }
  }

  #takeCredit({ channel, acked, limit }: CreditFrame): void {
    if (channel !== 0) throw violation(`The agent gave credit for channel ${channel} of ${this.id}`);
    if (!this.#inputStarted) {
      this.#inputStarted = true;
      this.#startInput(acked, limit);
    } else {
      if (acked < this.#inputAcked || acked > this.#inputNext || limit < this.#inputLimit) {
        throw violation(
          `The agent acknowledged ${acked} with the limit ${limit} for ${this.id}; ${this.#inputAcked} was acknowledged and ${this.#inputNext} sent`,
        );
      }
      this.#inputAcked = acked;
      this.#inputLimit = limit;
    }
    let done = 0;
    for (const { offset, data, eof } of this.#pending) {
      // The end itself has no offset: it stays until the stream is over, and is sent again in a new epoch.
      if (offset + data.length > acked || eof) break;
      done++;
    }
    if (done > 0) this.#pending.splice(0, done);
    this.#credit?.resolve();
    this.#credit = undefined;
    this.#open();
  }

  /** The first credit says where the agent's input stands; what it already took of the earlier epoch's is dropped. */
  #startInput(acked: number, limit: number): void {
    this.#inputLimit = limit;
    this.#takesNoInput = limit === 0;
    const resumed = this.#resumed;
    this.#resumed = undefined;
    if (resumed === undefined) {
      this.#inputAcked = acked;
      this.#inputNext = acked;
      return;
    }
    const bytes = resumed.data.reduce((sum, data) => sum + data.length, 0);
    if (acked < resumed.offset || acked > resumed.offset + bytes) {
      throw violation(
        `The agent has taken ${acked} bytes of the input of ${this.id}; we have those from ${resumed.offset} to ${resumed.offset + bytes}`,
      );
    }
    this.#inputAcked = acked;
    this.#inputNext = acked;
    let skip = acked - resumed.offset;
    const writes: Promise<void>[] = [];
    for (const data of resumed.data) {
      if (skip < data.length) writes.push(this.write(data.subarray(skip)));
      skip = Math.max(0, skip - data.length);
    }
    if (resumed.eof) writes.push(this.write(new Uint8Array(0), { eof: true }));
    // When it cannot be delivered, `closed` says why.
    for (const write of writes) write.catch(() => {});
  }

  async #write(data: Uint8Array, eof: boolean): Promise<void> {
    if (this.#inputEof) {
      throw new ProtocolError(
        'ERR_ARCBOX_AGENT_STREAM_ENDED',
        `The input of ${this.id} has already been ended`,
      );
    }
    if (this.#endReason !== undefined) throw this.#endReason;
    if (this.#takesNoInput) {
      if (data.length === 0) return;
      throw new ProtocolError(
        'ERR_ARCBOX_AGENT_STREAM_ENDED',
        `${this.id} takes no input; it has to be made with standard input for that`,
      );
    }
    let at = 0;
    while (at < data.length || eof) {
      if (this.#endReason !== undefined) throw this.#endReason;
      // A hostile agent gives any credit and never acknowledges: what we hold for it has a limit of our own.
      const limit = Math.min(this.#inputLimit, this.#inputAcked + INPUT_UNACKED_BYTES_MAX);
      const room = limit - this.#inputNext;
      if (at < data.length && room <= 0) {
        this.#credit ??= Promise.withResolvers<void>();
        await this.#credit.promise;
        continue;
      }
      const ready = this.#context.writer.ready();
      if (ready !== undefined) {
        await ready;
        if (this.#endReason !== undefined) throw this.#endReason;
      }
      const bytes = Math.min(data.length - at, room, CHUNK_DATA_BYTES_MAX);
      const last = at + bytes === data.length;
      this.#sendChunk(data.subarray(at, at + bytes), eof && last);
      at += bytes;
      if (last) return;
    }
  }

  #sendChunk(data: Uint8Array, eof: boolean): void {
    const offset = this.#inputNext;
    this.#pending.push({ offset, data, eof });
    this.#inputNext += data.length;
    if (eof) this.#inputEof = true;
    const head = encodeChunkHead(0, offset, eof, data.length);
    this.#context.writer.send(this.#streamId, FrameType.data, 0, head, data);
  }

  #sendCredits(): void {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    const [output, error] = this.#outputs;
    if (output.acked > output.ackedSent) this.#sendCredit(1, output);
    if (error.acked > error.ackedSent) this.#sendCredit(2, error);
  }

  #sendCredit(channel: OutputChannel, output: OutputState): void {
    if (this.#state === 'ended') return;
    output.ackedSent = output.acked;
    output.limitSent = output.acked + output.windowBytes;
    const credit = encodeCredit(channel, output.ackedSent, output.limitSent);
    this.#context.writer.send(this.#streamId, FrameType.data, 0, credit);
  }

  #open(): void {
    if (this.#state !== 'opening') return;
    this.#state = 'open';
    this.#opening.resolve();
  }

  /** Ends the stream from our side. */
  #leave(error: unknown): void {
    if (this.#state === 'ended') return;
    this.#context.abandon();
    const flags = FrameFlag.remoteClosed | FrameFlag.noData;
    this.#context.writer.send(this.#streamId, FrameType.data, flags, new Uint8Array(0));
    this.#end(error);
  }

  #end(error: unknown): void {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    clearTimeout(this.#ackTimer);
    this.#endReason =
      error instanceof Error
        ? error
        : new ProtocolError('ERR_ARCBOX_AGENT_STREAM_ENDED', `The stream of ${this.id} has ended`);
    this.#credit?.reject(this.#endReason);
    this.#credit = undefined;
    if (error === undefined) {
      this.#opening.resolve();
      this.#closing.resolve();
    } else {
      this.#opening.reject(error);
      this.#closing.reject(error);
    }
  }
}

function outputState(start: ChannelStart | undefined): OutputState {
  const offset = start?.offset ?? 0;
  const windowBytes = start?.windowBytes ?? STREAM_WINDOW_BYTES;
  if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(windowBytes) || windowBytes < 1) {
    throw new ProtocolError(
      'ERR_ARCBOX_AGENT_LIMIT',
      `A stream cannot begin at offset ${offset} with a window of ${windowBytes} bytes`,
    );
  }
  const limit = offset + windowBytes;
  return { windowBytes, next: offset, acked: offset, ackedSent: offset, limitSent: limit, eof: false };
}
