/** `arcbox run`: create, attach, start, wait. */
import { randomUUID } from 'node:crypto';
import { ContainerStream } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { type LifeFlags, lifeOptions } from '../life-flags.ts';
import { complain, Output, print } from '../output.ts';
import { parseSize } from '../size.ts';
import { proxySignals, rawMode } from '../terminal.ts';

export interface RunOptions extends LifeFlags {
  readonly rm?: boolean;
  readonly interactive?: boolean;
  readonly tty?: boolean;
  readonly detach?: boolean;
  readonly env?: readonly string[];
  readonly workdir?: string;
  readonly memory?: string;
  readonly name?: string;
  readonly hostname?: string;
  readonly entrypoint?: string;
  readonly user?: string;
}

/** Answers with what to exit with. */
export async function run(
  context: Context,
  image: string,
  command: readonly string[],
  options: RunOptions,
): Promise<number> {
  const { daemon } = context;
  const tty = options.tty === true;
  const interactive = options.interactive === true;
  const detach = options.detach === true;
  if (tty && interactive && !detach && !process.stdin.isTTY) {
    throw new CliError('standard input is not a terminal; leave -t out, or -i');
  }
  const { container } = await daemon.callIdempotent('ContainerService/Create', {
    image,
    command: [...command],
    env: environment(options.env ?? []),
    tty,
    openStdin: interactive,
    autoRemove: options.rm === true,
    workingDir: options.workdir ?? '',
    hostname: options.hostname ?? '',
    name: options.name ?? '',
    idempotencyKey: randomUUID(),
    life: lifeOptions(options),
    ...(options.entrypoint === undefined
      ? {}
      : { entrypoint: { argv: options.entrypoint === '' ? [] : [options.entrypoint] } }),
    ...(options.user === undefined ? {} : { user: options.user }),
    ...(options.memory === undefined ? {} : { memoryBytes: String(memoryBytes(options.memory)) }),
  });
  const id = container?.id ?? '';
  const { rows, columns } = process.stdout;
  const start = { id, run: 1, ...(tty && rows !== undefined ? { rows, columns } : {}) };
  if (detach) {
    await daemon.callIdempotent('ContainerService/Start', start);
    print(id);
    return 0;
  }

  const outputs = { 1: new Output(1), 2: new Output(2) };
  const stream = new ContainerStream(daemon, {
    container: id,
    stdin: interactive,
    onOutput: (channel, data) => outputs[channel].write(data),
    onError: ({ message }) => complain(message),
  });
  await stream.open();
  const signals = tty && interactive ? { stop() {} } : proxySignals((signal) => stream.signal(signal));
  const terminal = tty && interactive ? rawMode() : { restore() {} };
  const onResize = (): void => stream.resize(process.stdout.rows, process.stdout.columns);
  if (tty) process.stdout.on('resize', onResize);
  if (interactive) void forwardInput(stream);
  try {
    await daemon.callIdempotent('ContainerService/Start', start);
    const { exitCode, error } = await stream.exited;
    await Promise.all([outputs[1].flushed(), outputs[2].flushed()]);
    if (error !== '') complain(error);
    await stream.farewell();
    return exitCode;
  } finally {
    signals.stop();
    process.stdout.off('resize', onResize);
    terminal.restore();
    stream.detach();
    // An open standard input would keep us from ending.
    process.stdin.destroy();
  }
}

async function forwardInput(stream: ContainerStream): Promise<void> {
  try {
    for await (const data of process.stdin as AsyncIterable<Buffer>) await stream.write(data);
  } catch {
    // Standard input failed, or was closed by us at the end: for the container it has ended.
  }
  stream.end();
}

/** `-e KEY` takes the value from our own environment; a variable that is not set there is left out, as docker does. */
function environment(entries: readonly string[]): string[] {
  return entries.flatMap((entry) => {
    if (entry.includes('=')) return [entry];
    const value = process.env[entry];
    return value === undefined ? [] : [`${entry}=${value}`];
  });
}

function memoryBytes(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined) throw new CliError(`${JSON.stringify(text)} is not a size such as 64m or 1g`);
  return bytes;
}
