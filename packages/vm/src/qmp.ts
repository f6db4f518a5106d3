/**
 * A client of QEMU's monitor (QMP): JSON objects, one a line, over a Unix socket.
 *
 * QEMU greets, the client negotiates capabilities, and then every command carries an id that its
 * answer repeats; events come in between. A command may carry descriptors (`getfd`, `add-fd`): they
 * must travel with the bytes of that very command, so nothing else may be in the socket's queue.
 */
import type { Socket } from 'node:net';
import { sendFds, socketFd } from '@arcbox/sys';
import { reasonOf, VmError } from './errors.ts';
import { QMP_LINE_BYTES_MAX, QMP_PENDING_MAX, QMP_TIMEOUT_MS } from './limits.ts';

type Json = Record<string, unknown>;

export interface QmpEvent {
  readonly name: string;
  readonly data: Json;
}

/** QEMU answered a command with an error. */
export class QmpError extends VmError {
  readonly command: string;
  /** QEMU's error class: `GenericError`, `DeviceNotFound`, … */
  readonly errorClass: string;

  constructor(command: string, errorClass: string, description: string) {
    super('ERR_ARCBOX_VM_MONITOR', `QEMU refused ${command}: ${description}`);
    this.command = command;
    this.errorClass = errorClass;
  }
}

interface Pending {
  readonly command: string;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

export interface ExecuteOptions {
  /** Sent along with the command. They stay the caller's. */
  readonly fds?: readonly number[];
  /** How long to wait for the answer, in ms. */
  readonly timeoutMs?: number;
}

export class QmpClient {
  /** As QEMU says: `7.2.22`. */
  readonly version: string;
  /** Settles when the connection has ended; never rejects. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #nextId = 1;
  #ended: VmError | undefined;
  /** Commands with descriptors wait for the socket's queue to be empty, so they form a line. */
  #sending: Promise<void> = Promise.resolve();

  private constructor(socket: Socket, version: string) {
    this.#socket = socket;
    this.version = version;
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
  }

  /**
   * Negotiates on a connected socket, which is the client's from here on, also on failure.
   *
   * @throws {VmError} `ERR_ARCBOX_VM_MONITOR`.
   */
  static async connect(socket: Socket, timeoutMs: number = QMP_TIMEOUT_MS): Promise<QmpClient> {
    const lines = new LineReader();
    let client: QmpClient | undefined;
    const greeted = Promise.withResolvers<QmpClient>();
    const fail = (error: VmError): void => {
      if (client === undefined) greeted.reject(error);
      else client.#end(error);
      socket.destroy();
    };
    socket.on('data', (data: Buffer) => {
      try {
        lines.push(data, (line) => {
          const message = parse(line);
          if (client === undefined) {
            client = new QmpClient(socket, versionOf(message));
            greeted.resolve(client);
          } else {
            client.#onMessage(message);
          }
        });
      } catch (error) {
        fail(error instanceof VmError ? error : new VmError('ERR_ARCBOX_VM_MONITOR', reasonOf(error)));
      }
    });
    socket.on('error', (cause) => {
      fail(
        new VmError('ERR_ARCBOX_VM_MONITOR', `The connection to QEMU's monitor failed: ${cause.message}`, {
          cause,
        }),
      );
    });
    socket.once('close', () => {
      fail(new VmError('ERR_ARCBOX_VM_MONITOR', "The connection to QEMU's monitor was closed"));
    });
    const timer = setTimeout(() => {
      fail(new VmError('ERR_ARCBOX_VM_TIMEOUT', `QEMU's monitor did not greet within ${timeoutMs} ms`));
    }, timeoutMs);
    // The answer follows the greeting; asking before it saves a round trip.
    socket.write('{"execute":"qmp_capabilities","id":0}\n');
    try {
      return await greeted.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Runs a command and answers with what it returned.
   *
   * @throws {QmpError} when QEMU refused it.
   * @throws {VmError} `ERR_ARCBOX_VM_MONITOR` when the connection ended, `ERR_ARCBOX_VM_TIMEOUT`.
   */
  async execute(command: string, args: Json = {}, options: ExecuteOptions = {}): Promise<Json> {
    if (this.#ended !== undefined) throw this.#ended;
    if (this.#pending.size >= QMP_PENDING_MAX) {
      throw new VmError(
        'ERR_ARCBOX_VM_MONITOR',
        `${QMP_PENDING_MAX} monitor commands wait for their answers already`,
      );
    }
    const id = this.#nextId++;
    const line = `${JSON.stringify({ execute: command, arguments: args, id })}\n`;
    const answer = Promise.withResolvers<unknown>();
    this.#pending.set(id, { command, resolve: answer.resolve, reject: answer.reject });
    // The answer may be rejected while we still wait for our turn to send.
    answer.promise.catch(() => undefined);
    const timeoutMs = options.timeoutMs ?? QMP_TIMEOUT_MS;
    const timer = setTimeout(() => {
      this.#pending.delete(id);
      answer.reject(
        new VmError('ERR_ARCBOX_VM_TIMEOUT', `QEMU did not answer ${command} within ${timeoutMs} ms`),
      );
    }, timeoutMs);
    const sent = this.#sending.then(() => this.#send(line, options.fds ?? []));
    this.#sending = sent.catch(() => undefined);
    try {
      await sent;
      const result = await answer.promise;
      return isObject(result) ? result : { value: result };
    } finally {
      clearTimeout(timer);
      this.#pending.delete(id);
    }
  }

  /** Calls `listener` for every event until the returned function is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * The next event that `accept` takes. Ask before the command that causes it.
   *
   * @throws {VmError} when the connection ended, `ERR_ARCBOX_VM_TIMEOUT`.
   */
  waitForEvent(
    accept: (event: QmpEvent) => boolean,
    what: string,
    timeoutMs = QMP_TIMEOUT_MS,
  ): Promise<QmpEvent> {
    const { promise, resolve, reject } = Promise.withResolvers<QmpEvent>();
    promise.catch(() => undefined);
    const stop = this.onEvent((event) => {
      if (accept(event)) resolve(event);
    });
    const timer = setTimeout(() => {
      reject(new VmError('ERR_ARCBOX_VM_TIMEOUT', `QEMU did not report within ${timeoutMs} ms that ${what}`));
    }, timeoutMs);
    void this.closed.then(() => reject(this.#ended));
    return promise.finally(() => {
      stop();
      clearTimeout(timer);
    });
  }

  /** Ends the connection; commands in flight reject. */
  close(): void {
    this.#end(new VmError('ERR_ARCBOX_VM_MONITOR', "The connection to QEMU's monitor was closed by us"));
    this.#socket.destroy();
  }

  async #send(line: string, fds: readonly number[]): Promise<void> {
    if (this.#ended !== undefined) throw this.#ended;
    if (fds.length === 0) {
      this.#socket.write(line);
      return;
    }
    const data = Buffer.from(line);
    for (let retryMs = 1; ; retryMs *= 2) {
      if (this.#ended !== undefined) throw this.#ended;
      if (this.#socket.writableLength === 0) {
        const sent = sendFds(socketFd(this.#socket), data, fds);
        if (sent > 0) {
          if (sent < data.length) this.#socket.write(data.subarray(sent));
          return;
        }
      }
      // The socket is full: QEMU reads it within a turn of its main loop.
      await new Promise<void>((resolve) => setTimeout(resolve, retryMs));
    }
  }

  #onMessage(message: Json): void {
    if (typeof message.event === 'string') {
      const data = isObject(message.data) ? message.data : {};
      const event = { name: message.event, data };
      for (const listener of [...this.#listeners]) listener(event);
      return;
    }
    const id = message.id;
    const pending = typeof id === 'number' ? this.#pending.get(id) : undefined;
    const error = message.error;
    if (pending === undefined) {
      if (!isObject(error)) return; // the negotiation's answer, or one that came after its time-out
      if (id === 0)
        throw new VmError('ERR_ARCBOX_VM_MONITOR', `QEMU refused to negotiate: ${String(error.desc)}`);
      return;
    }
    if (isObject(error)) {
      pending.reject(new QmpError(pending.command, String(error.class), String(error.desc)));
    } else {
      pending.resolve(message.return);
    }
  }

  #end(error: VmError): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
  }
}

/** Cuts a byte stream into lines of bounded length. */
class LineReader {
  #parts: Buffer[] = [];
  #length = 0;

  push(data: Buffer, onLine: (line: string) => void): void {
    let rest = data;
    for (let at = rest.indexOf(10); at >= 0; at = rest.indexOf(10)) {
      this.#parts.push(rest.subarray(0, at));
      const line = Buffer.concat(this.#parts).toString('utf8');
      this.#parts = [];
      this.#length = 0;
      rest = rest.subarray(at + 1);
      onLine(line);
    }
    if (rest.length === 0) return;
    this.#parts.push(rest);
    this.#length += rest.length;
    if (this.#length > QMP_LINE_BYTES_MAX) {
      throw new VmError(
        'ERR_ARCBOX_VM_MONITOR',
        `QEMU's monitor sent a line of more than ${QMP_LINE_BYTES_MAX} bytes`,
      );
    }
  }
}

function parse(line: string): Json {
  let message: unknown;
  try {
    message = JSON.parse(line);
  } catch (cause) {
    throw new VmError(
      'ERR_ARCBOX_VM_MONITOR',
      `QEMU's monitor sent something that is no JSON: ${line.slice(0, 100)}`,
      {
        cause,
      },
    );
  }
  if (!isObject(message))
    throw new VmError('ERR_ARCBOX_VM_MONITOR', "QEMU's monitor sent something that is no object");
  return message;
}

function versionOf(greeting: Json): string {
  const qmp = greeting.QMP;
  const version = isObject(qmp) && isObject(qmp.version) ? qmp.version.qemu : undefined;
  if (!isObject(version))
    throw new VmError('ERR_ARCBOX_VM_MONITOR', "QEMU's monitor did not greet as a monitor does");
  return `${String(version.major)}.${String(version.minor)}.${String(version.micro)}`;
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
