/**
 * A client's end of an exec's stream. It does not outlive the daemon: the command does not either, so a connection that
 * is lost is the command's end, and told.
 */
import { type IncomingMessage, request } from 'node:http';
import type { Socket } from 'node:net';
import { ApiError } from '../errors.ts';
import {
  type ErrorPayload,
  type ExitPayload,
  FrameDecoder,
  FrameType,
  frame,
  frameHeader,
  numbersFrame,
  UPGRADE_PROTOCOL,
} from '../stdio/frames.ts';
import { readBody, remoteError, unreachable } from './client.ts';

export interface ExecStreamOptions {
  readonly socketPath: string;
  /** The exec, which was created. */
  readonly id: string;
  readonly stdin: boolean;
  /** Of the terminal, when it has one. */
  readonly size?: { readonly rows: number; readonly columns: number };
  /** Output, in order. Until the promise settles no more is handed out, and the command may have to wait. */
  onOutput(channel: 1 | 2, data: Buffer): Promise<void> | undefined;
  /** Something the daemon could not do, that does not end the stream. */
  onError?(error: ErrorPayload): void;
}

export class ExecStream {
  /** How the command ended. Rejects when that cannot be known any more. */
  readonly exited: Promise<ExitPayload>;
  readonly #options: ExecStreamOptions;
  readonly #exit = Promise.withResolvers<ExitPayload>();
  #socket: Socket | undefined;
  #busy = 0;

  constructor(options: ExecStreamOptions) {
    this.#options = options;
    this.exited = this.#exit.promise;
    this.exited.catch(() => {});
  }

  /** Starts the command. Throws `RemoteError` when it cannot be. */
  async start(): Promise<void> {
    const { socketPath, id, stdin, size } = this.#options;
    const query = new URLSearchParams();
    if (stdin) query.set('stdin', '1');
    if (size !== undefined) {
      query.set('rows', String(size.rows));
      query.set('columns', String(size.columns));
    }
    const { promise, resolve, reject } = Promise.withResolvers<{ socket: Socket; head: Buffer }>();
    const outgoing = request({
      socketPath,
      method: 'POST',
      path: `/v1/execs/${encodeURIComponent(id)}/start?${query}`,
      agent: false,
      headers: { connection: 'Upgrade', upgrade: UPGRADE_PROTOCOL },
    });
    outgoing.on('error', (cause) => reject(unreachable(socketPath, cause)));
    outgoing.on('upgrade', (_answer: IncomingMessage, socket, head) => resolve({ socket, head }));
    outgoing.on('response', (answer) => {
      readBody(answer, socketPath).then((body) => reject(remoteError(body, answer.statusCode ?? 0)), reject);
    });
    outgoing.end();
    const { socket, head } = await promise;
    this.#take(socket, head);
  }

  /** Passes input on; resolves when there is room for more. */
  async write(data: Buffer): Promise<void> {
    const socket = this.#socket;
    if (socket?.writable !== true) return;
    socket.cork();
    socket.write(frameHeader(FrameType.stdin, data.length));
    const room = socket.write(data);
    socket.uncork();
    if (room) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    socket.once('drain', resolve);
    socket.once('close', resolve);
    await promise;
  }

  /** Nothing follows on standard input. */
  end(): void {
    this.#send(frame(FrameType.stdinEnd));
  }

  resize(rows: number, columns: number): void {
    this.#send(numbersFrame(FrameType.resize, 4, rows, columns));
  }

  /** Leaves; the command goes on without anybody who takes its output. */
  detach(): void {
    this.#send(frame(FrameType.farewell));
    this.#socket?.destroy();
  }

  #send(bytes: Buffer): void {
    if (this.#socket?.writable === true) this.#socket.write(bytes);
  }

  #take(socket: Socket, head: Buffer): void {
    this.#socket = socket;
    const decoder = new FrameDecoder((type, payload) => this.#frame(type, payload));
    const push = (bytes: Buffer): void => {
      try {
        decoder.push(bytes);
      } catch (error) {
        this.#exit.reject(error);
        socket.destroy();
      }
    };
    socket.on('data', push);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      this.#exit.reject(
        new ApiError(
          'ERR_ARCBOX_DAEMON_UNREACHABLE',
          'the daemon has gone while the command ran, and the command with it',
        ),
      );
    });
    if (head.length > 0) push(head);
  }

  #frame(type: number, payload: Buffer): void {
    switch (type) {
      case FrameType.stdout:
      case FrameType.stderr:
        this.#output(type === FrameType.stdout ? 1 : 2, payload);
        return;
      case FrameType.exit:
        this.#exit.resolve(JSON.parse(payload.toString('utf8')) as ExitPayload);
        return;
      case FrameType.error:
        this.#options.onError?.(JSON.parse(payload.toString('utf8')) as ErrorPayload);
        return;
      case FrameType.ping:
        return;
      default:
        throw new ApiError('ERR_ARCBOX_STREAM_PROTOCOL', `a daemon does not send frames of type ${type}`);
    }
  }

  #output(channel: 1 | 2, payload: Buffer): void {
    const written = this.#options.onOutput(channel, payload);
    if (written === undefined) return;
    this.#busy += 1;
    this.#socket?.pause();
    written.then(
      () => {
        this.#busy -= 1;
        if (this.#busy === 0) this.#socket?.resume();
      },
      (error: unknown) => {
        this.#exit.reject(error);
        this.#socket?.destroy();
      },
    );
  }
}
