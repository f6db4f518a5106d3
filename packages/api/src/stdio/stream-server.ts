/** What both kinds of stdio stream have on the daemon's side: output on its way out, a client's frames on their way in. */
import type { Duplex } from 'node:stream';
import type { TerminalSize } from '@arcbox/engine';
import { publicError } from '../error-mapping.ts';
import { ApiError } from '../errors.ts';
import {
  FAREWELL_TIMEOUT_MS,
  FRAME_BYTES_MAX,
  INPUT_FRAME_COST_BYTES,
  INPUT_QUEUE_BYTES,
  SMALL_RECORD_BYTES,
} from '../limits.ts';
import {
  FRAME_HEADER_BYTES,
  FrameDecoder,
  FrameType,
  frame,
  jsonFrame,
  numbersFrame,
  readNumbers,
  UPGRADE_PROTOCOL,
  writeFrameHeader,
} from './frames.ts';

/** Output, in order. */
export interface OutputBatch {
  readonly records: readonly { readonly channel: number; readonly data: Buffer }[];
  /** Where to resume after it; absent: it cannot be resumed. */
  readonly position?: number;
}

/** Where a client's input goes. */
export interface InputTarget {
  /** Resolves when there is room for more. */
  write(data: Uint8Array, eof: boolean): Promise<void>;
  resize(size: TerminalSize): Promise<void>;
  signal(number: number): Promise<void>;
  /** For input that can be sent again. */
  inputPosition?(): Promise<{ readonly acknowledged: number; readonly accepted: number } | undefined>;
}

/** Sends batches until there is no more, or the client is gone. */
export async function sendOutput(
  socket: Duplex,
  read: () => Promise<OutputBatch | undefined>,
  stop: () => Promise<void>,
): Promise<void> {
  const gone = (): void => void stop();
  socket.once('close', gone);
  try {
    for (let batch = await read(); batch !== undefined && !socket.destroyed; batch = await read()) {
      // Until they are written the bytes belong to the batch, and the batch is ours until we ask for the next.
      await writeBatch(socket, batch);
    }
  } finally {
    socket.off('close', gone);
  }
}

/** One frame for each stretch of records of the same channel, then where the client stands. */
function writeBatch(socket: Duplex, batch: OutputBatch): Promise<void> {
  const parts: Buffer[] = [];
  let at = 0;
  const { records } = batch;
  while (at < records.length) {
    const channel = records[at]?.channel;
    let end = at;
    let bytes = 0;
    for (; end < records.length; end += 1) {
      const record = records[end];
      if (record === undefined || record.channel !== channel || bytes + record.data.length > FRAME_BYTES_MAX)
        break;
      bytes += record.data.length;
    }
    const run = records.slice(at, end);
    at = end;
    if (bytes === 0) continue;
    const small = bytes / run.length < SMALL_RECORD_BYTES;
    const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES + (small ? bytes : 0));
    writeFrameHeader(header, 0, channel === 1 ? FrameType.stdout : FrameType.stderr, bytes);
    parts.push(header);
    let filled = FRAME_HEADER_BYTES;
    for (const { data } of run) {
      if (small) filled += data.copy(header, filled);
      else parts.push(data);
    }
  }
  if (batch.position !== undefined) parts.push(numbersFrame(FrameType.cursor, 8, batch.position));
  const { promise, resolve } = Promise.withResolvers<void>();
  const last = parts.pop();
  socket.cork();
  for (const part of parts) socket.write(part);
  // Also called when it cannot be written any more, because the client has gone.
  socket.write(last, () => resolve());
  socket.uncork();
  return promise;
}

/** Everything that comes from a client. */
export class ClientInput {
  /** Settles when the client has said that it has everything, or has closed its side. */
  readonly farewell: Promise<void>;
  /** Settles when the connection is gone. */
  readonly gone: Promise<undefined>;
  readonly #socket: Duplex;
  readonly #target: InputTarget | undefined;
  readonly #bye = Promise.withResolvers<void>();
  #ended = false;
  #pending: Promise<void> = Promise.resolve();
  #queuedBytes = 0;

  constructor(socket: Duplex, head: Buffer, target: InputTarget | undefined) {
    this.#socket = socket;
    this.#target = target;
    this.farewell = this.#bye.promise;
    const gone = Promise.withResolvers<undefined>();
    this.gone = gone.promise;
    if (socket.destroyed) gone.resolve(undefined);
    socket.once('close', () => gone.resolve(undefined));
    const decoder = new FrameDecoder((type, payload) => this.#frame(type, payload));
    const push = (bytes: Buffer): void => {
      try {
        decoder.push(bytes);
      } catch (error) {
        refuse(socket, error);
        socket.destroy();
      }
    };
    if (head.length > 0) push(head);
    socket.on('data', push);
    // A client that closes its side without a word has no more to say, and still wants to hear.
    // One that was killed has closed both sides, which only a write finds out.
    socket.on('end', () => {
      this.#bye.resolve();
      if (socket.writable) socket.write(frame(FrameType.ping));
    });
    socket.on('close', () => this.#bye.resolve());
  }

  /** Tells the client where its input stands, once that is known. */
  async announce(): Promise<void> {
    const position = await this.#target?.inputPosition?.();
    if (position === undefined || this.#socket.destroyed) return;
    this.#socket.write(numbersFrame(FrameType.input, 8, position.acknowledged, position.accepted));
  }

  #frame(type: number, payload: Buffer): void {
    const target = this.#target;
    switch (type) {
      case FrameType.stdin:
      case FrameType.stdinEnd:
        if (this.#ended) throw new ApiError('ERR_ARCBOX_STREAM_PROTOCOL', 'input after its end');
        this.#ended = type === FrameType.stdinEnd;
        if (target !== undefined) {
          this.#inOrder(payload.length, async () => {
            await target.write(payload, type === FrameType.stdinEnd);
            await this.announce();
          });
        }
        return;
      case FrameType.resize: {
        const [rows = 0, columns = 0] = readNumbers(payload, 4, 2);
        if (target !== undefined) this.#inOrder(0, () => target.resize({ rows, columns }));
        return;
      }
      case FrameType.signal: {
        const [signal = 0] = readNumbers(payload, 4, 1);
        // Not behind input that nobody takes.
        if (target !== undefined) target.signal(signal).catch((error: unknown) => this.#failed(error));
        return;
      }
      case FrameType.farewell:
        this.#bye.resolve();
        return;
      default:
        throw new ApiError('ERR_ARCBOX_STREAM_PROTOCOL', `a client does not send frames of type ${type}`);
    }
  }

  /**
   * One after the other. A client that keeps to its window is always read, so that its signals and its leaving are seen
   * while its input waits for room; one that does not has to wait.
   */
  #inOrder(bytes: number, work: () => Promise<void>): void {
    const cost = bytes + INPUT_FRAME_COST_BYTES;
    this.#queuedBytes += cost;
    if (this.#queuedBytes > INPUT_QUEUE_BYTES) this.#socket.pause();
    this.#pending = this.#pending
      .then(work)
      .catch((error: unknown) => this.#failed(error))
      .finally(() => {
        this.#queuedBytes -= cost;
        if (this.#queuedBytes <= INPUT_QUEUE_BYTES && this.#socket.isPaused()) this.#socket.resume();
      });
  }

  #failed(error: unknown): void {
    const { code, message } = publicError(error);
    // A process that has just ended takes neither signals nor sizes; its exit tells.
    if (!this.#socket.writable || code === 'ERR_ARCBOX_AGENT_OP') return;
    this.#socket.write(jsonFrame(FrameType.error, { code, message }));
  }
}

export async function finish(socket: Duplex, last: Buffer, farewell?: Promise<void>): Promise<void> {
  if (socket.destroyed) return;
  socket.write(last);
  if (farewell === undefined) return;
  const { promise: tooLate, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, FAREWELL_TIMEOUT_MS);
  await Promise.race([farewell, tooLate]);
  clearTimeout(timer);
}

export function accept(socket: Duplex, headers: Readonly<Record<string, number>>): void {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${UPGRADE_PROTOCOL}\r\n${lines.join('')}\r\n`,
  );
  accepted.add(socket);
}

/** Sockets that speak frames already: an error there is a frame, elsewhere an HTTP answer. */
const accepted = new WeakSet<Duplex>();

export function refuse(socket: Duplex, error: unknown): void {
  if (!socket.writable) return;
  const { code, message, exitCode } = publicError(error);
  if (accepted.has(socket)) {
    socket.write(jsonFrame(FrameType.error, { code, message, final: true }));
    return;
  }
  const body = JSON.stringify({ code, message, exitCode });
  const status = code.endsWith('_NOT_FOUND') ? '404 Not Found' : '400 Bad Request';
  socket.write(
    `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
