/** Our own standard output and error: in order, off the main loop, holding the sender back when the reader is slow. */
import { write } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { CliError } from './errors.ts';

const writeFd = promisify(write);
/** Past this much, whoever writes has to wait. */
const QUEUE_BYTES = 1024 * 1024;
const RETRY_MS_MAX = 20;
const SIGPIPE = 13;

export class Output {
  readonly #fd: number;
  #queue: Buffer[] = [];
  #queuedBytes = 0;
  #writing: Promise<void> | undefined;
  /** Why nothing can be written any more; what still comes is dropped. */
  #failure: { readonly error: unknown } | undefined;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Takes the bytes; a promise says that there is too much already, or that they cannot be written. */
  write(data: Buffer): Promise<void> | undefined {
    if (this.#failure !== undefined) return this.flushed();
    this.#queue.push(data);
    this.#queuedBytes += data.length;
    this.#writing ??= this.#drain();
    return this.#queuedBytes > QUEUE_BYTES ? this.flushed() : undefined;
  }

  /** Resolves when everything was written. Throws `CliError` when it could not be. */
  async flushed(): Promise<void> {
    await this.#writing;
    if (this.#failure !== undefined) throw outputError(this.#fd, this.#failure.error);
  }

  /** Never rejects: whoever writes next, or waits for the end, is told. */
  async #drain(): Promise<void> {
    try {
      while (this.#queue.length > 0) {
        const batch = this.#queue;
        this.#queue = [];
        for (const part of batch) await this.#writeAll(part);
        this.#queuedBytes = this.#queue.reduce((sum, part) => sum + part.length, 0);
      }
    } catch (error) {
      this.#failure = { error };
      this.#queue = [];
    } finally {
      this.#writing = undefined;
    }
  }

  async #writeAll(data: Buffer): Promise<void> {
    let done = 0;
    let delayMs = 1;
    while (done < data.length) {
      try {
        const { bytesWritten } = await writeFd(this.#fd, data, done, data.length - done);
        done += bytesWritten;
        delayMs = 1;
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code;
        // As a program in C would end: the reader of our output has gone, and with it the reason to go on.
        if (code === 'EPIPE') process.exit(128 + SIGPIPE);
        if (code !== 'EAGAIN') throw error;
        // Somebody made the descriptor that we share non-blocking.
        await sleep(delayMs);
        delayMs = Math.min(delayMs * 2, RETRY_MS_MAX);
      }
    }
  }
}

function outputError(fd: number, cause: unknown): CliError {
  const name = fd === 1 ? 'standard output' : 'standard error';
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new CliError(`${name} cannot be written: ${reason}`, 1);
}

const guarded = new WeakSet<NodeJS.WriteStream>();

/** Text on one of our own streams; when its reader has gone we end as a program in C would. */
export function put(stream: NodeJS.WriteStream, text: string): void {
  if (!guarded.has(stream)) {
    guarded.add(stream);
    stream.on('error', (error: NodeJS.ErrnoException) => {
      process.exit(error.code === 'EPIPE' ? 128 + SIGPIPE : 1);
    });
  }
  stream.write(text);
}

/** A line on standard output. */
export function print(line: string): void {
  put(process.stdout, `${line}\n`);
}

/** One sentence on standard error, in our name. */
export function complain(message: string): void {
  put(process.stderr, `arcbox: ${message}\n`);
}
