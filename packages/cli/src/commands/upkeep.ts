/** What everything takes: `system df`. */
import type { UsageRowJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { printList } from '../listing.ts';
import { print } from '../output.ts';
import { formatSize } from '../size.ts';
import type { ListingOptions } from '../table.ts';
import { images as listImages } from './images.ts';
import { machineList } from './machines.ts';
import { ps } from './ps.ts';
import { volumeList } from './volumes.ts';

interface NamedRow extends UsageRowJson {
  readonly type: string;
}

export async function systemDf(
  context: Context,
  options: ListingOptions & { readonly verbose?: boolean },
): Promise<number> {
  if (options.verbose === true) return eachThing(context, options);
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

/** `-v`: the images, containers, volumes and machines themselves. */
async function eachThing(context: Context, { format = 'table' }: ListingOptions): Promise<number> {
  if (format !== 'table')
    throw new CliError('-v has tables; for a format ask image ls, ps -a, volume ls and machine ls', 1);
  const listings: readonly [string, () => Promise<number>][] = [
    ['Images', () => listImages(context, undefined, {})],
    ['Containers', () => ps(context, { all: true })],
    ['Volumes', () => volumeList(context, {})],
    ['Machines', () => machineList(context, {})],
  ];
  for (const [index, [title, show]] of listings.entries()) {
    print(`${index === 0 ? '' : '\n'}${title}:`);
    await show();
  }
  return 0;
}
