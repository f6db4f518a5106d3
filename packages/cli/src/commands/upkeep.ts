/** What there is and what could go: `system df`, `system prune`, `container prune`. */
import type { UsageRowJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { printList } from '../listing.ts';
import { print } from '../output.ts';
import { formatSize } from '../size.ts';
import type { ListingOptions } from '../table.ts';
import { printRemovals } from './images.ts';

interface NamedRow extends UsageRowJson {
  readonly type: string;
}

export async function systemDf(context: Context, options: ListingOptions): Promise<number> {
  const { images, containers, volumes, machines } = await context.daemon.call('SystemService/DiskUsage', {});
  const rows: NamedRow[] = [
    { type: 'Images', ...images },
    { type: 'Containers', ...containers },
    { type: 'Volumes', ...volumes },
    { type: 'Machines', ...machines },
  ];
  printList(options, {
    rows,
    id: ({ type }) => type,
    columns: ['Type', 'TotalCount', 'Active', 'Size', 'Reclaimable'],
    headings: { TotalCount: 'TOTAL' },
    fields: {
      Type: ({ type }) => type,
      TotalCount: ({ count = 0 }) => String(count),
      Active: ({ active = 0 }) => String(active),
      Size: ({ bytes = '0' }) => formatSize(Number(bytes)),
      Reclaimable: ({ bytes = '0', reclaimableBytes = '0' }) => {
        const share = Number(bytes) === 0 ? 0 : Math.round((100 * Number(reclaimableBytes)) / Number(bytes));
        return `${formatSize(Number(reclaimableBytes))} (${share}%)`;
      },
    },
  });
  return 0;
}

export interface PruneOptions {
  readonly all?: boolean;
  readonly volumes?: boolean;
  readonly force?: boolean;
}

export async function systemPrune(context: Context, options: PruneOptions): Promise<number> {
  const what = [
    'containers that do not run',
    'networks that no container is in',
    options.all === true ? 'images that no container uses' : 'images without a name that no container uses',
    ...(options.volumes === true ? ['anonymous volumes that no container has'] : []),
  ];
  await mustAgree(options, what);
  const { daemon } = context;
  const { ids = [] } = await daemon.call('ContainerService/Prune', {});
  list('Containers', ids);
  const { names = [] } = await daemon.call('NetworkService/Prune', {});
  list('Networks', names);
  let freedBytes = 0;
  if (options.volumes === true) {
    const pruned = await daemon.call('VolumeService/Prune', {});
    list('Volumes', pruned.names ?? []);
    freedBytes += Number(pruned.freedBytes ?? 0);
  }
  const images = await daemon.call('ImageService/Prune', { all: options.all === true });
  if (images.removals !== undefined && images.removals.length > 0) {
    print('Images:');
    printRemovals(images.removals);
  }
  freedBytes += Number(images.reclaimedBytes ?? 0);
  print(`Total reclaimed space: ${formatSize(freedBytes)}`);
  return 0;
}

export async function containerPrune(context: Context, options: PruneOptions): Promise<number> {
  await mustAgree(options, ['containers that do not run']);
  const { ids = [] } = await context.daemon.call('ContainerService/Prune', {});
  for (const id of ids) print(id);
  return 0;
}

function list(kind: string, names: readonly string[]): void {
  if (names.length === 0) return;
  print(`${kind}:`);
  for (const name of names) print(`  ${name}`);
}

/** Asks, unless `--force` was given; a script that forgot it is told so. */
async function mustAgree(options: PruneOptions, what: readonly string[]): Promise<void> {
  if (options.force === true) return;
  if (!process.stdin.isTTY) throw new CliError('this removes things; say so with --force', 1);
  const { createInterface } = await import('node:readline/promises');
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    const answer = await terminal.question(
      `This removes:\n${what.map((line) => `  - ${line}\n`).join('')}Go on? [y/N] `,
    );
    if (!/^y(es)?$/i.test(answer.trim())) throw new CliError('nothing was removed', 1);
  } finally {
    terminal.close();
  }
}
