/** Commands that act on containers that are there. */
import { type ContainerJson, ContainerStream } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { complain, Output, print } from '../output.ts';
import { ago, type ListingOptions, printListing, shortId } from '../table.ts';

export async function ps(context: Context, options: ListingOptions & { all?: boolean }): Promise<number> {
  const { containers = [] } = await context.daemon.call('ContainerService/List', {
    all: options.all === true,
  });
  const newestFirst = containers.toReversed();
  printListing(options, newestFirst, (container) => shortId(container.id ?? ''), {
    'CONTAINER ID': (container) => shortId(container.id ?? ''),
    IMAGE: (container) => container.image ?? '',
    COMMAND: (container) => abbreviate((container.argv ?? []).join(' ')),
    CREATED: (container) => `${ago(Number(container.createdMs))} ago`,
    STATUS: status,
    NAMES: (container) => container.name ?? '',
  });
  return 0;
}

export async function logs(context: Context, id: string, options: { follow?: boolean }): Promise<number> {
  const outputs = { 1: new Output(1), 2: new Output(2) };
  const stream = new ContainerStream(context.daemon, {
    container: id,
    cursor: 'start',
    logs: { follow: options.follow === true },
    stdin: false,
    onOutput: (channel, data) => outputs[channel].write(data),
  });
  await openOrStart(context, stream);
  await stream.exited;
  await Promise.all([outputs[1].flushed(), outputs[2].flushed()]);
  stream.detach();
  return 0;
}

export async function stop(
  context: Context,
  ids: readonly string[],
  options: { time?: string },
): Promise<number> {
  const timeoutMs = options.time === undefined ? undefined : seconds(options.time) * 1000;
  return each(ids, (id) =>
    context.daemon.call('ContainerService/Stop', { id, ...(timeoutMs === undefined ? {} : { timeoutMs }) }),
  );
}

export function kill(
  context: Context,
  ids: readonly string[],
  options: { signal?: string },
): Promise<number> {
  return each(ids, (id) =>
    context.daemon.call('ContainerService/Kill', { id, signal: options.signal ?? '' }),
  );
}

export function remove(
  context: Context,
  ids: readonly string[],
  options: { force?: boolean },
): Promise<number> {
  return each(ids, (id) =>
    context.daemon.call('ContainerService/Remove', { id, force: options.force === true }),
  );
}

export async function wait(context: Context, ids: readonly string[]): Promise<number> {
  for (const id of ids) {
    const { exitCode = 0 } = await context.daemon.callIdempotent('ContainerService/Wait', { id });
    print(String(exitCode));
  }
  return 0;
}

export async function inspect(context: Context, ids: readonly string[]): Promise<number> {
  const answers = await Promise.all(ids.map((id) => context.daemon.call('ContainerService/Inspect', { id })));
  print(
    JSON.stringify(
      answers.map(({ container }) => container),
      undefined,
      2,
    ),
  );
  return 0;
}

/** Does the same to each, goes on past one that fails, and names those that it was done to. */
async function each(ids: readonly string[], act: (id: string) => Promise<unknown>): Promise<number> {
  let exitCode = 0;
  for (const id of ids) {
    try {
      await act(id);
      print(id);
    } catch (error) {
      complain(error instanceof Error ? error.message : String(error));
      exitCode = 1;
    }
  }
  return exitCode;
}

async function openOrStart(context: Context, stream: ContainerStream): Promise<void> {
  await context.daemon.call('SystemService/Ping', {});
  await stream.open();
}

function status(container: ContainerJson): string {
  const since = (ms: string | undefined): string => ago(Number(ms));
  switch (container.state) {
    case 'running':
      return `Up ${since(container.startedMs)}`;
    case 'exited':
      return `Exited (${container.exitCode ?? 0}) ${since(container.finishedMs)} ago`;
    case 'restarting':
      return `Restarting (${container.exitCode ?? 0}) ${since(container.finishedMs)} ago`;
    case 'created':
      return 'Created';
    default:
      return container.state ?? '';
  }
}

const COMMAND_WIDTH = 20;

function abbreviate(command: string): string {
  const quoted = JSON.stringify(command);
  return quoted.length <= COMMAND_WIDTH + 2 ? quoted : `${quoted.slice(0, COMMAND_WIDTH)}…"`;
}

function seconds(text: string): number {
  const value = Number(text);
  if (text === '' || !Number.isFinite(value) || value < 0) {
    throw new CliError(`${JSON.stringify(text)} is not a number of seconds`, 1);
  }
  return value;
}
