/** The daemon's log: one JSON object a line on its standard error, which is a file. */
import { copyFileSync, fstatSync, ftruncateSync, renameSync, statSync, writeSync } from 'node:fs';
import type { LogFields, Logger } from '@arcbox/engine';
import { DAEMON_LOG_BYTES_MAX } from './limits.ts';

const STDERR = 2;

export class JsonLogger implements Logger {
  readonly #fd: number;
  /** The file behind the descriptor, opened for appending; it is set aside when it has grown too large. */
  readonly #path: string | undefined;
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(fd = STDERR, path?: string, bytesMax: number = DAEMON_LOG_BYTES_MAX) {
    this.#fd = fd;
    this.#path = path;
    this.#bytesMax = bytesMax;
  }

  info(event: string, fields?: LogFields): void {
    this.#write('info', event, fields);
  }
  warn(event: string, fields?: LogFields): void {
    this.#write('warn', event, fields);
  }
  error(event: string, fields?: LogFields): void {
    this.#write('error', event, fields);
  }

  #write(level: string, event: string, fields: LogFields | undefined): void {
    const line = `${JSON.stringify({ time: new Date().toISOString(), level, event, ...fields })}\n`;
    try {
      this.#bytes += writeSync(this.#fd, line);
      if (this.#path !== undefined && this.#bytes > this.#bytesMax) this.#setAside(this.#path);
    } catch {
      // The reader of the log has gone, or its disk is full: there is nowhere left to say so.
    }
  }

  /** Copied and emptied, since others write to the same open file: Node.js, if we crash. */
  #setAside(path: string): void {
    this.#bytes = 0;
    copyFileSync(path, `${path}.1`);
    ftruncateSync(this.#fd, 0);
  }
}

/** Whether the descriptor is the file at `path`. */
export function isOpenAs(fd: number, path: string): boolean {
  const file = statSync(path, { throwIfNoEntry: false });
  const open = fstatSync(fd);
  return file !== undefined && file.ino === open.ino && file.dev === open.dev;
}

/** Sets a large log aside, so that one generation is kept. */
export function rotateDaemonLog(path: string): void {
  try {
    if (statSync(path).size > DAEMON_LOG_BYTES_MAX) renameSync(path, `${path}.1`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
