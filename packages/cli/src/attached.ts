/** A person, or a pipe, on one side and a process in a container on the other: input, sizes and signals to it, until it ends. */
import { DEFAULT_DETACH_KEYS, DetachKeys, type ExitPayload, parseDetachKeys } from '@arcbox/api/client';
import { complain, Output } from './output.ts';
import { proxySignals, rawMode } from './terminal.ts';

/** Of a stream, what is needed here. */
export interface AttachedStream {
  readonly exited: Promise<ExitPayload>;
  write(data: Buffer): Promise<void>;
  end(): void;
  resize(rows: number, columns: number): void;
  signal?(number: number): void;
  detach(): void;
}

export interface AttachOptions {
  /** Our terminal, when it is one, becomes its terminal. */
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly sigProxy: boolean;
  readonly detachKeys?: string | undefined;
  /** What makes it run; called once we listen. */
  start(): Promise<void>;
}

/** What our standard output and error take of a stream. */
export class Outputs {
  readonly #outputs = { 1: new Output(1), 2: new Output(2) };

  readonly #wanted: ReadonlySet<1 | 2>;

  /** What is not wanted is read and dropped. */
  constructor(wanted: ReadonlySet<1 | 2> = new Set([1, 2])) {
    this.#wanted = wanted;
  }

  readonly onOutput = (channel: 1 | 2, data: Buffer): Promise<void> | undefined =>
    this.#wanted.has(channel) ? this.#outputs[channel].write(data) : undefined;

  async flushed(): Promise<void> {
    await Promise.all([this.#outputs[1].flushed(), this.#outputs[2].flushed()]);
  }
}

/** How it ended; undefined when the user left with the detach keys. Everything of it was written then. */
export async function attached(
  stream: AttachedStream,
  outputs: Outputs,
  options: AttachOptions,
): Promise<ExitPayload | undefined> {
  const { tty, stdin } = options;
  const interactive = tty && stdin && process.stdin.isTTY;
  const keys = new DetachKeys(parseDetachKeys(options.detachKeys || DEFAULT_DETACH_KEYS));
  const left = Promise.withResolvers<undefined>();
  const signals =
    interactive || !options.sigProxy ? { stop() {} } : proxySignals((signal) => stream.signal?.(signal));
  const terminal = interactive ? rawMode() : { restore() {} };
  const onResize = (): void => stream.resize(process.stdout.rows, process.stdout.columns);
  if (tty) process.stdout.on('resize', onResize);
  try {
    await options.start();
    if (stdin) void forwardInput(stream, interactive ? keys : undefined, () => left.resolve(undefined));
    const exit = await Promise.race([stream.exited, left.promise]);
    await outputs.flushed();
    if (exit !== undefined && exit.error !== '') complain(exit.error);
    return exit;
  } finally {
    signals.stop();
    if (tty) process.stdout.off('resize', onResize);
    terminal.restore();
  }
}

/** Of our terminal, when standard output is one. */
export function terminalSize(): { size?: { rows: number; columns: number } } {
  const { rows, columns } = process.stdout;
  return rows === undefined ? {} : { size: { rows, columns } };
}

/** An open standard input would keep us from ending. */
export function releaseStdin(): void {
  process.stdin.destroy();
}

async function forwardInput(
  stream: AttachedStream,
  keys: DetachKeys | undefined,
  detach: () => void,
): Promise<void> {
  try {
    for await (const data of process.stdin as AsyncIterable<Buffer>) {
      const taken = keys?.take(data) ?? { data, detach: false };
      if (taken.data.length > 0) await stream.write(taken.data);
      if (taken.detach) {
        detach();
        return;
      }
    }
  } catch {
    // Standard input failed, or was closed by us at the end: for the container it has ended.
  }
  stream.end();
}
