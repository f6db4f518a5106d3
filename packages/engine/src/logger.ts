/** Structured log lines: an event's name and its fields. Where they go is the daemon's business. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

export interface Logger {
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
}

export const SILENT: Logger = { info() {}, warn() {}, error() {} };
