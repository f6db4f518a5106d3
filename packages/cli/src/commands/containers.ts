/** Commands that act on containers that are there. */
import type { Context } from '../context.ts';
import { eachNamed } from '../each-named.ts';
import { CliError } from '../errors.ts';
import { type LimitFlags, limitsRequest, stopDurationMs } from '../limit-flags.ts';
import { print } from '../output.ts';
import { hostEnd, type PublishedPort } from '../published-ports.ts';

export interface StopOptions {
  readonly time?: string;
  readonly timeout?: string;
  readonly signal?: string;
}

export async function stop(context: Context, ids: readonly string[], options: StopOptions): Promise<number> {
  const how = stopRequest(options);
  return eachNamed(ids, (id) => context.daemon.call('ContainerService/Stop', { id, ...how }));
}

export async function restart(
  context: Context,
  ids: readonly string[],
  options: StopOptions,
): Promise<number> {
  const how = stopRequest(options);
  return eachNamed(ids, (id) => context.daemon.call('ContainerService/Restart', { id, ...how }));
}

export function kill(
  context: Context,
  ids: readonly string[],
  options: { signal?: string },
): Promise<number> {
  return eachNamed(ids, (id) =>
    context.daemon.call('ContainerService/Kill', { id, signal: options.signal ?? '' }),
  );
}

export function pause(context: Context, ids: readonly string[]): Promise<number> {
  return eachNamed(ids, (id) => context.daemon.call('ContainerService/Pause', { id }));
}

export function unpause(context: Context, ids: readonly string[]): Promise<number> {
  return eachNamed(ids, (id) => context.daemon.call('ContainerService/Unpause', { id }));
}

export async function rename(context: Context, id: string, name: string): Promise<number> {
  await context.daemon.call('ContainerService/Rename', { id, name });
  return 0;
}

export async function update(
  context: Context,
  ids: readonly string[],
  { restart = '', ...flags }: LimitFlags & { readonly restart?: string },
): Promise<number> {
  const limits = limitsRequest(flags);
  if (Object.keys(limits).length === 0 && restart === '')
    throw new CliError('there is nothing to change: give a limit such as -m 64m, or --restart', 1);
  return eachNamed(ids, (id) => context.daemon.call('ContainerService/Update', { id, limits, restart }));
}

export function remove(
  context: Context,
  ids: readonly string[],
  options: { force?: boolean; volumes?: boolean },
): Promise<number> {
  return eachNamed(ids, (id) =>
    context.daemon.call('ContainerService/Remove', {
      id,
      force: options.force === true,
      volumes: options.volumes === true,
    }),
  );
}

const CONDITIONS = {
  'not-running': 'CONDITION_UNSPECIFIED',
  'next-exit': 'CONDITION_NEXT_EXIT',
  removed: 'CONDITION_REMOVED',
} as const;

export async function wait(
  context: Context,
  ids: readonly string[],
  options: { condition: string },
): Promise<number> {
  const condition = CONDITIONS[options.condition as keyof typeof CONDITIONS];
  if (condition === undefined)
    throw new CliError(
      `${JSON.stringify(options.condition)} is no condition; there are ${Object.keys(CONDITIONS).join(', ')}`,
      1,
    );
  for (const id of ids) {
    const { exitCode = 0 } = await context.daemon.callIdempotent('ContainerService/Wait', { id, condition });
    print(String(exitCode));
  }
  return 0;
}

/** All of them, or where `wanted` (`80`, `53/udp`) leads. */
export async function port(context: Context, id: string, wanted?: string): Promise<number> {
  const { container } = await context.daemon.call('ContainerService/Inspect', { id });
  const ports = container?.ports ?? [];
  const name = (of: PublishedPort): string => `${of.containerPort}/${of.protocol}`;
  const full = wanted === undefined || wanted.includes('/') ? wanted : `${wanted}/tcp`;
  const chosen = full === undefined ? ports : ports.filter((each) => name(each) === full);
  if (full !== undefined && chosen.length === 0)
    throw new CliError(`no public port '${full}' published for ${id}`, 1);
  for (const each of chosen) print(full === undefined ? `${name(each)} -> ${hostEnd(each)}` : hostEnd(each));
  return 0;
}

function stopRequest({ time, timeout, signal }: StopOptions): { timeoutMs?: number; signal: string } {
  const text = time ?? timeout;
  if (text === undefined) return { signal: signal ?? '' };
  return {
    timeoutMs: stopDurationMs(time === undefined ? '--timeout' : '--time', text),
    signal: signal ?? '',
  };
}
