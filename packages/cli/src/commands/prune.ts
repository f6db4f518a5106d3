/** What could go: `system prune`, and `prune` of containers, images, networks and volumes. All ask first. */

import { agreed } from '../confirm.ts';
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { print } from '../output.ts';
import { hasLabel } from '../row-filters.ts';
import { decimalSize, formatSize } from '../size.ts';
import { parseTime } from '../time.ts';
import { printRemovals } from './images.ts';

export interface PruneOptions {
  readonly all?: boolean;
  readonly volumes?: boolean;
  readonly force?: boolean;
  readonly filter?: readonly string[];
}

/** What `--filter` leaves. */
interface Wanted {
  /** Milliseconds since 1970. */
  readonly createdBeforeMs: number | undefined;
  readonly all: boolean;
  /** Whether something that was made then, and has these labels, may go. */
  admits(thing: { readonly createdMs?: string; readonly labels?: Readonly<Record<string, string>> }): boolean;
}

interface Kind {
  readonly filters: readonly string[];
}

const NETWORKS_THAT_STAY = new Set(['bridge', 'host', 'none']);

/** Throws `CliError` for a filter that this kind does not have. */
export function wantedOf(filters: readonly string[] = [], { filters: known }: Kind): Wanted {
  let createdBeforeMs: number | undefined;
  let all = false;
  const tests: ((labels: Readonly<Record<string, string>> | undefined) => boolean)[] = [];
  for (const filter of filters) {
    const [, key = '', not = '', value = ''] = /^(\w+)(!?)=(.*)$/s.exec(filter) ?? [];
    if (!known.includes(`${key}${not}`))
      throw new CliError(
        `${JSON.stringify(filter)} is no filter here; there are ${known.map((name) => `${name}=…`).join(', ')}`,
        1,
      );
    if (key === 'until') createdBeforeMs = parseTime(value);
    else if (key === 'all') all = /^(1|true)$/i.test(value);
    else tests.push((labels) => hasLabel(labels, value) !== (not === '!'));
  }
  return {
    createdBeforeMs,
    all,
    admits: ({ createdMs, labels }) =>
      (createdBeforeMs === undefined || Number(createdMs) < createdBeforeMs) &&
      tests.every((test) => test(labels)),
  };
}

const CREATED_AND_LABELS: Kind = { filters: ['until', 'label', 'label!'] };

export async function containerPrune(context: Context, options: PruneOptions): Promise<number> {
  const wanted = wantedOf(options.filter, CREATED_AND_LABELS);
  if (!(await agreed(options.force, ['containers that do not run']))) return 0;
  for (const id of await pruneContainers(context, options, wanted)) print(id);
  return 0;
}

async function pruneContainers(
  context: Context,
  { filter }: PruneOptions,
  wanted: Wanted,
): Promise<string[]> {
  const { daemon } = context;
  if (filter === undefined) return (await daemon.call('ContainerService/Prune', {})).ids ?? [];
  const { containers = [] } = await daemon.call('ContainerService/List', { all: true });
  const idle = containers.filter(({ state = '' }) => state === 'created' || state === 'exited');
  return removeEach(
    idle.filter((container) => wanted.admits(container)).map(({ id = '' }) => id),
    (id) => daemon.call('ContainerService/Remove', { id }),
  );
}

export async function networkPrune(context: Context, options: PruneOptions): Promise<number> {
  const wanted = wantedOf(options.filter, CREATED_AND_LABELS);
  if (!(await agreed(options.force, ['networks that no container is in']))) return 0;
  for (const name of await pruneNetworks(context, options, wanted)) print(name);
  return 0;
}

async function pruneNetworks(context: Context, { filter }: PruneOptions, wanted: Wanted): Promise<string[]> {
  const { daemon } = context;
  if (filter === undefined) return (await daemon.call('NetworkService/Prune', {})).names ?? [];
  const { networks = [] } = await daemon.call('NetworkService/List', {});
  const unused = networks.filter(
    ({ name = '', endpoints = [] }) => endpoints.length === 0 && !NETWORKS_THAT_STAY.has(name),
  );
  return removeEach(
    unused.filter((network) => wanted.admits(network)).map(({ name = '' }) => name),
    (network) => daemon.call('NetworkService/Remove', { network }),
  );
}

export async function volumePrune(context: Context, options: PruneOptions): Promise<number> {
  const { daemon } = context;
  const wanted = wantedOf(options.filter, { filters: ['label', 'label!', 'all'] });
  const all = options.all === true || wanted.all;
  const what = all ? 'all volumes that no container has' : 'anonymous volumes that no container has';
  if (!(await agreed(options.force, [`${what}, with everything in them`]))) return 0;
  let names: string[];
  let freedBytes: number;
  if (options.filter === undefined) {
    const pruned = await daemon.call('VolumeService/Prune', { all });
    names = pruned.names ?? [];
    freedBytes = Number(pruned.freedBytes ?? 0);
  } else {
    const { volumes = [] } = await daemon.call('VolumeService/List', { dangling: true });
    const going = volumes.filter((volume) => (all || volume.anonymous === true) && wanted.admits(volume));
    const bytesOf = new Map(going.map(({ name = '', usedBytes = '0' }) => [name, Number(usedBytes)]));
    names = await removeEach([...bytesOf.keys()], (name) => daemon.call('VolumeService/Remove', { name }));
    freedBytes = names.reduce((sum, name) => sum + (bytesOf.get(name) ?? 0), 0);
  }
  for (const name of names) print(name);
  print(`Total reclaimed space: ${formatSize(freedBytes)}`);
  return 0;
}

export async function imagePrune(context: Context, options: PruneOptions): Promise<number> {
  const all = options.all === true;
  const { createdBeforeMs } = wantedOf(options.filter, { filters: ['until'] });
  const what = all ? 'all images that no container uses' : 'images without a name that no container uses';
  if (!(await agreed(options.force, [what]))) return 0;
  const { removals = [], reclaimedBytes = '0' } = await context.daemon.call('ImageService/Prune', {
    all,
    ...(createdBeforeMs === undefined ? {} : { createdBeforeMs: String(createdBeforeMs) }),
  });
  if (removals.length > 0) print('Deleted Images:');
  printRemovals(removals);
  if (removals.length > 0) print('');
  print(`Total reclaimed space: ${decimalSize(Number(reclaimedBytes))}`);
  return 0;
}

export async function systemPrune(context: Context, options: PruneOptions): Promise<number> {
  const { daemon } = context;
  const wanted = wantedOf(options.filter, { filters: ['until'] });
  const { createdBeforeMs } = wanted;
  // As docker: nobody knows since when a volume has not been used.
  if (createdBeforeMs !== undefined && options.volumes === true)
    throw new CliError('the filter until does not go with --volumes', 1);
  const what = [
    'containers that do not run',
    'networks that no container is in',
    options.all === true ? 'images that no container uses' : 'images without a name that no container uses',
    ...(options.volumes === true ? ['anonymous volumes that no container has'] : []),
  ];
  if (!(await agreed(options.force, what))) return 0;
  list('Containers', await pruneContainers(context, options, wanted));
  list('Networks', await pruneNetworks(context, options, wanted));
  let freedBytes = 0;
  if (options.volumes === true) {
    const pruned = await daemon.call('VolumeService/Prune', {});
    list('Volumes', pruned.names ?? []);
    freedBytes += Number(pruned.freedBytes ?? 0);
  }
  const images = await daemon.call('ImageService/Prune', {
    all: options.all === true,
    ...(createdBeforeMs === undefined ? {} : { createdBeforeMs: String(createdBeforeMs) }),
  });
  if (images.removals !== undefined && images.removals.length > 0) {
    print('Images:');
    printRemovals(images.removals);
  }
  freedBytes += Number(images.reclaimedBytes ?? 0);
  print(`Total reclaimed space: ${formatSize(freedBytes)}`);
  return 0;
}

/** Those that went. What somebody began to use, or removed, meanwhile is no error of a prune. */
async function removeEach(
  names: readonly string[],
  remove: (name: string) => Promise<unknown>,
): Promise<string[]> {
  const removed: string[] = [];
  for (const name of names) {
    try {
      await remove(name);
      removed.push(name);
    } catch (error) {
      if (!isSuperseded(error)) throw error;
    }
  }
  return removed;
}

function isSuperseded(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return /^ERR_ARCBOX_(?:CONTAINER_STATE|NETWORK_IN_USE|VOLUME_IN_USE|\w+_NOT_FOUND)$/.test(code);
}

function list(kind: string, names: readonly string[]): void {
  if (names.length === 0) return;
  print(`${kind}:`);
  for (const name of names) print(`  ${name}`);
}
