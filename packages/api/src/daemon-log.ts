/** The daemon's log: one JSON object a line on its standard error, which is a file. */
import { renameSync, statSync, writeSync } from 'node:fs';
import type { LogFields, Logger } from '@arcbox/engine';
import { DAEMON_LOG_BYTES_MAX } from './limits.ts';

const STDERR = 2;

export class JsonLogger implements Logger {
  readonly #fd: number;

  constructor(fd = STDERR) {
    this.#fd = fd;
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
      writeSync(this.#fd, line);
    } catch {
      // The reader of the log has gone, or its disk is full: there is nowhere left to say so.
    }
  }
}

/** Sets a large log aside, so that one generation is kept. */
export function rotateDaemonLog(path: string): void {
  try {
    if (statSync(path).size > DAEMON_LOG_BYTES_MAX) renameSync(path, `${path}.1`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
