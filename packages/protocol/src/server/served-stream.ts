/** The agent's end of an `Attach` stream. */
import {
  type CreditFrame,
  decodeAttachFrame,
  encodeChunkHead,
  encodeCredit,
  type OpenFrame,
} from '../attach-codec.ts';
import { AgentCallError, Status, violation } from '../errors.ts';
import { FrameFlag, FrameType } from '../frame.ts';
import type { FrameWriter } from '../frame-writer.ts';
import { CHUNK_DATA_BYTES_MAX } from '../limits.ts';
import type { OutputLog } from './output-log.ts';
import type { ServedObject } from './served-object.ts';

interface Output {
  readonly channel: 1 | 2;
  readonly log: OutputLog;
  next: number;
  limit: number;
  eofSent: boolean;
}

export class ServedStream {
  readonly #streamId: number;
  readonly #object: ServedObject;
  readonly #writer: FrameWriter;
  readonly #onDone: (status: number, message: string) => void;
  readonly #outputs: readonly [Output, Output];
  #inputStart = 0;
  #creditDue = false;
  #pumping = false;
  #again = false;
  #ended = false;

  /** Throws `AgentCallError` (`Status.outOfRange`) when the host cannot go on where it wants to. */
  constructor(
    streamId: number,
    open: OpenFrame,
    object: ServedObject,
    writer: FrameWriter,
    onDone: (status: number, message: string) => void,
  ) {
    this.#streamId = streamId;
    this.#object = object;
    this.#writer = writer;
    this.#onDone = onDone;
    this.#outputs = [output(1, object.output, open.output), output(2, object.error, open.error)];
    for (const { log, next } of this.#outputs) log.ack(next);
    object.detach?.();
    object.detach = () => this.end(Status.aborted, 'Another stream was attached');
    const notify = (): void => this.#pump();
    object.output.onMore = notify;
    object.error.onMore = notify;
    this.#inputStart = object.input?.received ?? 0;
    this.#sendCredit();
    if (object.input !== undefined) {
      object.input.onAcked = () => {
        if (this.#creditDue) return;
        this.#creditDue = true;
        setImmediate(() => this.#sendDueCredit());
      };
    }
    this.#pump();
  }

  onData(flags: number, data: Uint8Array): void {
    if ((flags & FrameFlag.noData) === 0) this.#takeFrame(data);
    if ((flags & FrameFlag.remoteClosed) !== 0) this.end(Status.ok, '');
  }

  /** Ends the stream, with an answer when the connection is still there. */
  end(status: number, message: string): void {
    if (!this.#release()) return;
    this.#onDone(status, message);
  }

  /** The connection ended: the object goes on. */
  release(): void {
    this.#release();
  }

  #release(): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    this.#object.output.onMore = undefined;
    this.#object.error.onMore = undefined;
    if (this.#object.input !== undefined) this.#object.input.onAcked = undefined;
    this.#object.detach = undefined;
    return true;
  }

  #takeFrame(data: Uint8Array): void {
    const frame = decodeAttachFrame(data);
    if (frame.kind === 'open') throw violation('A stream was opened twice');
    if (frame.kind === 'credit') {
      this.#takeCredit(frame);
      return;
    }
    const { input, id } = this.#object;
    if (frame.channel !== 0) throw violation(`The host sent a chunk of channel ${frame.channel} of ${id}`);
    if (input === undefined || input.ended) throw violation(`The host sent input and ${id} takes none`);
    if (frame.offset !== input.received || frame.data.length > CHUNK_DATA_BYTES_MAX) {
      throw violation(
        `The host sent ${frame.data.length} bytes at ${frame.offset} to ${id}; ${input.received} is next`,
      );
    }
    if (frame.offset + frame.data.length > Math.max(input.limit, this.#inputStart)) {
      throw violation(
        `The host sent bytes to ${id} up to ${frame.offset + frame.data.length}, past ${input.limit}`,
      );
    }
    input.push(new Uint8Array(frame.data), frame.eof);
  }

  #takeCredit({ channel, acked, limit }: CreditFrame): void {
    const output = channel === 1 ? this.#outputs[0] : channel === 2 ? this.#outputs[1] : undefined;
    if (output === undefined)
      throw violation(`The host gave credit for channel ${channel} of ${this.#object.id}`);
    if (acked > output.next || limit < output.limit) {
      throw violation(
        `The host acknowledged ${acked} with the limit ${limit} of channel ${channel} of ${this.#object.id}; ${output.next} was sent`,
      );
    }
    output.log.ack(acked);
    output.limit = limit;
    this.#pump();
  }

  #sendDueCredit(): void {
    this.#creditDue = false;
    if (this.#ended) return;
    this.#sendCredit();
    this.#pump();
  }

  #sendCredit(): void {
    const { input } = this.#object;
    // What was received in an earlier epoch is in the port: the host need not keep it.
    const acked = Math.max(input?.acked ?? 0, this.#inputStart);
    const limit = Math.max(input?.limit ?? 0, this.#inputStart);
    const credit = encodeCredit(0, acked, limit);
    this.#writer.send(this.#streamId, FrameType.data, 0, credit);
  }

  #pump(): void {
    this.#again = true;
    if (this.#pumping) return;
    this.#pumping = true;
    // It rejects only when the connection ended, and then `release` is called.
    this.#pumpAll().catch(() => {});
  }

  async #pumpAll(): Promise<void> {
    while (this.#again && !this.#ended) {
      this.#again = false;
      for (const output of this.#outputs) {
        if (await this.#sendSome(output)) this.#again = true;
      }
    }
    this.#pumping = false;
    const over = this.#outputs.every(({ eofSent, log }) => eofSent && log.acked === log.end);
    if (over && this.#object.ended) this.end(Status.ok, '');
  }

  /** One chunk, so that the channels take turns. */
  async #sendSome(output: Output): Promise<boolean> {
    const ready = this.#writer.ready();
    if (ready !== undefined) await ready;
    if (this.#ended || output.eofSent) return false;
    const room = Math.min(output.limit - output.next, CHUNK_DATA_BYTES_MAX);
    const data = room > 0 ? output.log.read(output.next, room) : new Uint8Array(0);
    const eof = output.log.finished && output.next + data.length === output.log.end;
    if (data.length === 0 && !eof) return false;
    const head = encodeChunkHead(output.channel, output.next, eof, data.length);
    output.next += data.length;
    output.eofSent = eof;
    this.#writer.send(this.#streamId, FrameType.data, 0, head, data);
    return true;
  }
}

function output(channel: 1 | 2, log: OutputLog, credit: CreditFrame | undefined): Output {
  const start = credit?.acked ?? 0;
  if (start < log.acked || start > log.end) {
    throw new AgentCallError(
      'Attach',
      Status.outOfRange,
      `Channel ${channel} has the bytes from ${log.acked} to ${log.end}, not ${start}`,
    );
  }
  return { channel, log, next: start, limit: credit?.limit ?? start, eofSent: false };
}
