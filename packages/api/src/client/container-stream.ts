/**
 * A client's end of the stdio stream, over the deaths of daemons: output goes on where it stopped, input that was not
 * taken is sent again (see stdio/frames.ts, *Resuming*).
 */
import { type IncomingMessage, request } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ApiError, RemoteError } from '../errors.ts';
import { CONNECT_RETRY_MS_MAX, CONNECT_RETRY_MS_MIN, INPUT_WINDOW_BYTES } from '../limits.ts';
import {
  type ErrorPayload,
  type ExitPayload,
  FrameDecoder,
  FrameType,
  frame,
  frameHeader,
  numbersFrame,
  readNumbers,
  UPGRADE_PROTOCOL,
} from '../stdio/frames.ts';
import { isUnreachable, readBody, remoteError, unreachable } from './client.ts';
import type { DaemonControl } from './daemon-control.ts';

export interface ContainerStreamOptions {
  /** ID or name. */
  readonly container: string;
  /** A position in the log, or one of its ends; default: where it is now. */
  readonly cursor?: number | 'start' | 'end';
  /** Read the log instead of attaching; `follow` until the container has exited. */
  readonly logs?: { readonly follow: boolean };
  readonly stdin: boolean;
  /** Output, in order. Until the promise settles no more is handed out, and the container may have to wait. */
  onOutput(channel: 1 | 2, data: Buffer): Promise<void> | undefined;
  /** Something the daemon could not do, that does not end the stream. */
  onError?(error: ErrorPayload): void;
}

interface UnackedInput {
  readonly offset: number;
  readonly data: Buffer;
}

export class ContainerStream {
  /** How it ended. Rejects when it cannot go on. */
  readonly exited: Promise<ExitPayload>;
  readonly #daemon: DaemonControl;
  readonly #options: ContainerStreamOptions;
  readonly #exit = Promise.withResolvers<ExitPayload>();
  /** The connection has been closed by the daemon after the exit: everything is settled there. */
  readonly #closed = Promise.withResolvers<void>();
  #socket: Socket | undefined;
  #run: string | undefined;
  /** Where the log stood at the last cursor frame. */
  #cursor: number | undefined;
  /** Bytes of output after it that were handed out, */
  #delivered = 0;
  /** and of those, how many a resumed stream has still to repeat. */
  #skip = 0;
  #done = false;
  #inputNext = 0;
  /** The daemon has taken the input before it; we send no more than a window past it. */
  #inputAccepted = 0;
  #room: PromiseWithResolvers<void> | undefined;
  #inputEnded = false;
  #inputHeld = false;
  readonly #unacked: UnackedInput[] = [];
  #busy = 0;

  constructor(daemon: DaemonControl, options: ContainerStreamOptions) {
    this.#daemon = daemon;
    this.#options = options;
    this.exited = this.#exit.promise;
    this.exited.catch(() => {});
  }

  /** Connects. Throws `RemoteError`, for example when there is no such container. */
  async open(): Promise<void> {
    const { headers } = await this.#connect();
    if (!this.#options.stdin) return;
    this.#inputNext = Number(headers['arcbox-input'] ?? 0);
    this.#inputAccepted = this.#inputNext;
  }

  /** Passes input on; resolves when there is room for more. */
  async write(data: Buffer): Promise<void> {
    if (this.#done || this.#inputEnded) return;
    this.#unacked.push({ offset: this.#inputNext, data });
    this.#inputNext += data.length;
    if (!this.#inputHeld) this.#sendInput(data);
    while (!this.#done && this.#inputNext - this.#inputAccepted >= INPUT_WINDOW_BYTES) {
      this.#room ??= Promise.withResolvers<void>();
      await this.#room.promise;
    }
  }

  /** Nothing follows on standard input. */
  end(): void {
    if (this.#inputEnded) return;
    this.#inputEnded = true;
    if (!this.#inputHeld) this.#send(frame(FrameType.stdinEnd));
  }

  resize(rows: number, columns: number): void {
    this.#send(numbersFrame(FrameType.resize, 4, rows, columns));
  }

  signal(number: number): void {
    this.#send(numbersFrame(FrameType.signal, 4, number));
  }

  /** After `exited`: says that everything arrived; answered when the daemon has settled the container. */
  async farewell(): Promise<void> {
    this.#send(frame(FrameType.farewell));
    await this.#closed.promise;
  }

  /** Leaves; the container goes on. */
  detach(): void {
    this.#finish();
    this.#socket?.destroy();
  }

  #send(bytes: Buffer): void {
    if (this.#socket?.writable === true) this.#socket.write(bytes);
  }

  #sendInput(data: Buffer): void {
    this.#socket?.cork();
    this.#send(frameHeader(FrameType.stdin, data.length));
    this.#send(data);
    this.#socket?.uncork();
  }

  async #connect(): Promise<IncomingMessage> {
    const { container, logs, stdin } = this.#options;
    const query = new URLSearchParams();
    const cursor = this.#cursor ?? this.#options.cursor;
    if (cursor !== undefined) query.set('cursor', String(cursor));
    if (this.#run !== undefined) query.set('run', this.#run);
    if (logs !== undefined) query.set('logs', '1');
    if (logs?.follow === true) query.set('follow', '1');
    if (stdin) query.set('stdin', '1');
    const { socketPath } = this.#daemon;
    const { promise, resolve, reject } = Promise.withResolvers<{
      answer: IncomingMessage;
      socket: Socket;
      head: Buffer;
    }>();
    const outgoing = request({
      socketPath,
      method: 'POST',
      path: `/v1/containers/${encodeURIComponent(container)}/attach?${query}`,
      agent: false,
      headers: { connection: 'Upgrade', upgrade: UPGRADE_PROTOCOL },
    });
    outgoing.on('error', (cause) => reject(unreachable(socketPath, cause)));
    outgoing.on('upgrade', (answer, socket, head) => resolve({ answer, socket, head }));
    outgoing.on('response', (answer) => {
      readBody(answer, socketPath).then((body) => reject(remoteError(body, answer.statusCode ?? 0)), reject);
    });
    outgoing.end();
    const { answer, socket, head } = await promise;
    this.#cursor ??= Number(answer.headers['arcbox-cursor']);
    this.#run ??= answer.headers['arcbox-run']?.toString();
    this.#skip = this.#delivered;
    this.#take(socket, head);
    return answer;
  }

  #take(socket: Socket, head: Buffer): void {
    this.#socket = socket;
    const decoder = new FrameDecoder((type, payload) => this.#frame(type, payload));
    const push = (bytes: Buffer): void => {
      try {
        decoder.push(bytes);
      } catch (error) {
        this.#fail(error);
      }
    };
    socket.on('data', push);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#lost());
    if (head.length > 0) push(head);
  }

  #frame(type: number, payload: Buffer): void {
    switch (type) {
      case FrameType.stdout:
      case FrameType.stderr:
        this.#output(type === FrameType.stdout ? 1 : 2, payload);
        return;
      case FrameType.cursor:
        this.#cursor = readNumbers(payload, 8, 1)[0];
        // A resumed stream may be cut into other pieces than the one before it.
        this.#delivered = this.#skip;
        return;
      case FrameType.input: {
        const [acknowledged = 0, accepted = 0] = readNumbers(payload, 8, 2);
        this.#inputTaken(acknowledged, accepted);
        return;
      }
      case FrameType.exit:
        this.#finish();
        this.#exit.resolve(JSON.parse(payload.toString('utf8')) as ExitPayload);
        return;
      case FrameType.error:
        this.#failed(JSON.parse(payload.toString('utf8')) as ErrorPayload);
        return;
      case FrameType.ping:
        return;
      default:
        throw new ApiError('ERR_ARCBOX_STREAM_PROTOCOL', `a daemon does not send frames of type ${type}`);
    }
  }

  #failed(error: ErrorPayload): void {
    if (error.final === true) this.#fail(new RemoteError(error.code, error.message, 125));
    else this.#options.onError?.(error);
  }

  #output(channel: 1 | 2, payload: Buffer): void {
    const data = this.#skip === 0 ? payload : payload.subarray(this.#skip);
    this.#skip -= payload.length - data.length;
    this.#delivered += data.length;
    if (data.length === 0) return;
    const written = this.#options.onOutput(channel, data);
    if (written === undefined) return;
    this.#busy += 1;
    this.#socket?.pause();
    written.then(
      () => {
        this.#busy -= 1;
        if (this.#busy === 0) this.#socket?.resume();
      },
      (error: unknown) => this.#fail(error),
    );
  }

  #inputTaken(acknowledged: number, accepted: number): void {
    this.#inputAccepted = accepted;
    this.#wakeInput();
    for (let first = this.#unacked[0]; first !== undefined; first = this.#unacked[0]) {
      if (first.offset + first.data.length > acknowledged) break;
      this.#unacked.shift();
    }
    if (!this.#inputHeld) return;
    // A new daemon knows what the process has taken; everything after that is sent again.
    this.#inputHeld = false;
    for (const { offset, data } of this.#unacked) {
      if (offset + data.length > accepted) this.#sendInput(data.subarray(Math.max(0, accepted - offset)));
    }
    if (this.#inputEnded) this.#send(frame(FrameType.stdinEnd));
  }

  #lost(): void {
    this.#socket = undefined;
    if (this.#done) {
      this.#closed.resolve();
      return;
    }
    // Until the next daemon has said where our input stands, there is no use in sending any.
    this.#inputHeld = this.#options.stdin;
    void this.#reconnect();
  }

  async #reconnect(): Promise<void> {
    for (
      let delayMs = CONNECT_RETRY_MS_MIN;
      !this.#done;
      delayMs = Math.min(delayMs * 2, CONNECT_RETRY_MS_MAX)
    ) {
      try {
        await this.#daemon.start();
        await this.#connect();
        return;
      } catch (error) {
        const transient =
          isUnreachable(error) || (error instanceof RemoteError && error.code === 'ERR_ARCBOX_SHUTTING_DOWN');
        if (!transient) {
          this.#fail(error);
          return;
        }
      }
      await sleep(delayMs);
    }
  }

  /** Nothing more is sent or resumed. */
  #finish(): void {
    this.#done = true;
    this.#wakeInput();
  }

  #wakeInput(): void {
    this.#room?.resolve();
    this.#room = undefined;
  }

  #fail(error: unknown): void {
    this.#finish();
    this.#exit.reject(error);
    this.#closed.resolve();
    this.#socket?.destroy();
  }
}
