/**
 * The daemon's end of the stdio stream: `POST /v1/containers/{id}/attach` with `Upgrade: arcbox-stream`.
 *
 * Query: `cursor` (a position in the log, `start`, or `end`, the default), `run` (which start of the container; default
 * the one that goes on or the next), `stdin=1`. With `logs=1` it is a reader of the log instead: no input, and with
 * `follow=1` until the run has ended. The answer's header `arcbox-cursor` is where the stream begins, `arcbox-run` the
 * run, `arcbox-input` the offset of the first byte of input that is taken.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type ContainerAttachment, EngineError, type LogBatch, type Runtime } from '@arcbox/engine';
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
  jsonFrame,
  numbersFrame,
  readNumbers,
  UPGRADE_PROTOCOL,
  writeFrameHeader,
} from './frames.ts';

/** Runs are stored and sent in 32 bits. */
const RUN_MAX = 0xffffffff;
const ATTACH_PATH = /^\/v1\/containers\/([^/]+)\/attach$/;

/** What of a client's bytes follows the request. */
export async function serveAttach(
  runtime: Runtime,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  // Whoever fails next tells; a socket that errs must not take the daemon with it.
  socket.on('error', () => socket.destroy());
  try {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const id = ATTACH_PATH.exec(url.pathname)?.[1];
    if (request.method !== 'POST' || id === undefined || request.headers.upgrade !== UPGRADE_PROTOCOL) {
      throw new EngineError(
        'ERR_ARCBOX_INVALID_ARGUMENT',
        `${request.method} ${url.pathname} cannot be upgraded to ${request.headers.upgrade}`,
      );
    }
    const containers = await runtime.containers();
    const cursor = readCursor(url.searchParams.get('cursor'));
    if (url.searchParams.get('logs') === '1') {
      const follow = url.searchParams.get('follow') === '1';
      const { reader, release } = await containers.logs(decodeURIComponent(id), {
        follow,
        cursor: cursor ?? 'start',
      });
      try {
        accept(socket, { 'arcbox-cursor': reader.position });
        new ClientInput(socket, head, undefined);
        await sendOutput(
          socket,
          () => reader.read(),
          () => reader.close(),
        );
        await finish(socket, jsonFrame(FrameType.exit, { exitCode: 0, error: '' }));
      } finally {
        await release();
      }
      return;
    }
    const run = readRun(url.searchParams.get('run'));
    const attachment = await containers.attach(decodeURIComponent(id), {
      ...(cursor === undefined ? {} : { cursor }),
      ...(run === undefined ? {} : { run }),
    });
    try {
      await serveAttachment(attachment, socket, head, url.searchParams.get('stdin') === '1');
    } finally {
      await attachment.close();
    }
  } catch (error) {
    refuse(socket, error);
  } finally {
    socket.end();
  }
}

async function serveAttachment(
  attachment: ContainerAttachment,
  socket: Duplex,
  head: Buffer,
  stdin: boolean,
): Promise<void> {
  accept(socket, {
    'arcbox-cursor': attachment.position,
    'arcbox-run': attachment.run,
    'arcbox-input': attachment.inputAccepted,
  });
  const input = new ClientInput(socket, head, attachment);
  if (stdin) void input.announce();
  await sendOutput(
    socket,
    () => attachment.read(),
    () => attachment.close(),
  );
  // A client that leaves now need not hear how it ended.
  const exit = await Promise.race([attachment.exited, input.gone]);
  if (exit !== undefined) await finish(socket, jsonFrame(FrameType.exit, exit), input.farewell);
}

/** Sends batches until there is no more, or the client is gone. */
async function sendOutput(
  socket: Duplex,
  read: () => Promise<LogBatch | undefined>,
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
function writeBatch(socket: Duplex, batch: LogBatch): Promise<void> {
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
  parts.push(numbersFrame(FrameType.cursor, 8, batch.position));
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
class ClientInput {
  /** Settles when the client has said that it has everything, or has closed its side. */
  readonly farewell: Promise<void>;
  /** Settles when the connection is gone. */
  readonly gone: Promise<undefined>;
  readonly #socket: Duplex;
  readonly #attachment: ContainerAttachment | undefined;
  readonly #bye = Promise.withResolvers<void>();
  #ended = false;
  #pending: Promise<void> = Promise.resolve();
  #queuedBytes = 0;

  constructor(socket: Duplex, head: Buffer, attachment: ContainerAttachment | undefined) {
    this.#socket = socket;
    this.#attachment = attachment;
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
    socket.on('end', () => this.#bye.resolve());
    socket.on('close', () => this.#bye.resolve());
  }

  /** Tells the client where its input stands, once that is known. */
  async announce(): Promise<void> {
    const position = await this.#attachment?.inputPosition();
    if (position === undefined || this.#socket.destroyed) return;
    this.#socket.write(numbersFrame(FrameType.input, 8, position.acknowledged, position.accepted));
  }

  #frame(type: number, payload: Buffer): void {
    const attachment = this.#attachment;
    switch (type) {
      case FrameType.stdin:
      case FrameType.stdinEnd:
        if (this.#ended) throw new ApiError('ERR_ARCBOX_STREAM_PROTOCOL', 'input after its end');
        this.#ended = type === FrameType.stdinEnd;
        if (attachment !== undefined) {
          this.#inOrder(payload.length, async () => {
            await attachment.write(payload, type === FrameType.stdinEnd);
            await this.announce();
          });
        }
        return;
      case FrameType.resize: {
        const [rows = 0, columns = 0] = readNumbers(payload, 4, 2);
        if (attachment !== undefined) this.#inOrder(0, () => attachment.resize({ rows, columns }));
        return;
      }
      case FrameType.signal: {
        const [signal = 0] = readNumbers(payload, 4, 1);
        // Not behind input that nobody takes.
        if (attachment !== undefined)
          attachment.signal(signal).catch((error: unknown) => this.#failed(error));
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

async function finish(socket: Duplex, last: Buffer, farewell?: Promise<void>): Promise<void> {
  if (socket.destroyed) return;
  socket.write(last);
  if (farewell === undefined) return;
  const { promise: tooLate, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, FAREWELL_TIMEOUT_MS);
  await Promise.race([farewell, tooLate]);
  clearTimeout(timer);
}

function accept(socket: Duplex, headers: Readonly<Record<string, number>>): void {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${UPGRADE_PROTOCOL}\r\n${lines.join('')}\r\n`,
  );
  accepted.add(socket);
}

/** Sockets that speak frames already: an error there is a frame, elsewhere an HTTP answer. */
const accepted = new WeakSet<Duplex>();

function refuse(socket: Duplex, error: unknown): void {
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

function readRun(text: string | null): number | undefined {
  if (text === null) return undefined;
  const run = Number(text);
  if (/^\d+$/.test(text) && run >= 1 && run <= RUN_MAX) return run;
  throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', `${JSON.stringify(text)} is not the number of a run`);
}

function readCursor(text: string | null): number | 'start' | 'end' | undefined {
  if (text === null) return undefined;
  if (text === 'start' || text === 'end') return text;
  const cursor = Number(text);
  if (Number.isSafeInteger(cursor) && cursor >= 0 && text !== '') return cursor;
  throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', `${JSON.stringify(text)} is not a position in a log`);
}
