/** What everything takes: `system df`. */
import type { UsageRowJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { printList } from '../listing.ts';
import { formatSize } from '../size.ts';
import type { ListingOptions } from '../table.ts';

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
