/** Our own standard output and error: in order, off the main loop, holding the sender back when the reader is slow. */
import { write } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

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

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Takes the bytes; a promise says that there is too much already, and when there is room again. */
  write(data: Buffer): Promise<void> | undefined {
    this.#queue.push(data);
    this.#queuedBytes += data.length;
    this.#writing ??= this.#drain();
    return this.#queuedBytes > QUEUE_BYTES ? this.#writing : undefined;
  }

  /** Resolves when everything was written. */
  async flushed(): Promise<void> {
    await this.#writing;
  }

  async #drain(): Promise<void> {
    try {
      while (this.#queue.length > 0) {
        const batch = this.#queue;
        this.#queue = [];
        for (const part of batch) await this.#writeAll(part);
        this.#queuedBytes = this.#queue.reduce((sum, part) => sum + part.length, 0);
      }
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

/** A line on standard output. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** One sentence on standard error, in our name. */
export function complain(message: string): void {
  process.stderr.write(`arcbox: ${message}\n`);
}
