/** `arcbox volume …`. */
import type { VolumeJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { eachNamed } from '../each-named.ts';
import { CliError } from '../errors.ts';
import { printList } from '../listing.ts';
import { print } from '../output.ts';
import { filterRows, hasLabel, parseFilters, type RowFilters, truth } from '../row-filters.ts';
import { formatSize, parseSize } from '../size.ts';
import { ago, type ListingOptions, labelText } from '../table.ts';
import { goMap } from '../template/evaluate.ts';

const FILTERS: RowFilters<VolumeJson> = {
  name: ({ name = '' }, value) => name.includes(value),
  label: ({ labels }, value) => hasLabel(labels, value),
  dangling: ({ containers = 0 }, value) => (containers === 0) === truth('dangling', value),
  driver: (_volume, value) => value === 'local',
};

export async function volumeCreate(
  context: Context,
  name: string | undefined,
  options: { label?: readonly string[]; size?: string },
): Promise<number> {
  const labels = Object.fromEntries(
    (options.label ?? []).map((label) => {
      const [key = '', value = ''] = label.split(/=(.*)/s);
      return [key, value];
    }),
  );
  const sizeBytes = options.size === undefined ? 0 : parseSize(options.size);
  if (sizeBytes === undefined)
    throw new CliError(`${JSON.stringify(options.size)} is not a size such as 10g`, 1);
  const { volume } = await context.daemon.call('VolumeService/Create', {
    name: name ?? '',
    labels,
    sizeBytes: String(sizeBytes),
  });
  print(volume?.name ?? '');
  return 0;
}

export async function volumeList(
  context: Context,
  options: ListingOptions & { dangling?: boolean; filter?: readonly string[] },
): Promise<number> {
  const { volumes = [] } = await context.daemon.call('VolumeService/List', {
    dangling: options.dangling === true,
  });
  printList<VolumeJson>(options, {
    rows: filterRows(volumes, parseFilters(options.filter ?? [], FILTERS), FILTERS),
    id: ({ name = '' }) => name,
    columns: ['Name', 'Containers', 'CreatedSince', 'Size'],
    headings: { Name: 'VOLUME NAME', CreatedSince: 'CREATED', Links: 'LINKS' },
    fields: {
      Name: ({ name = '' }) => name,
      Driver: () => 'local',
      Scope: () => 'local',
      Containers: ({ containers = 0 }) => String(containers),
      Links: ({ containers = 0 }) => String(containers),
      CreatedSince: ({ createdMs }) => `${ago(Number(createdMs))} ago`,
      Size: ({ usedBytes = '0' }) => formatSize(Number(usedBytes)),
      Labels: ({ labels = {} }) => labelText(labels),
      Label:
        ({ labels = {} }) =>
        (key: unknown) =>
          labels[String(key)] ?? '',
    },
  });
  return 0;
}

/** As `docker volume inspect` shows it. */
export async function describeVolume(context: Context, name: string): Promise<Record<string, unknown>> {
  const { volume } = await context.daemon.call('VolumeService/Inspect', { name });
  const { labels = {}, createdMs, sizeBytes, usedBytes, containers, anonymous } = volume ?? {};
  return {
    Name: volume?.name ?? '',
    Driver: 'local',
    Scope: 'local',
    CreatedAt: new Date(Number(createdMs ?? 0)).toISOString(),
    Labels: goMap(labels),
    // It is a disk of a machine, and mounted nowhere on this host.
    Mountpoint: '',
    Options: goMap({ size: sizeBytes ?? '0' }),
    Anonymous: anonymous === true,
    UsageData: { RefCount: containers ?? 0, Size: Number(usedBytes ?? 0) },
  };
}

export function volumeRemove(
  context: Context,
  names: readonly string[],
  options: { force?: boolean },
): Promise<number> {
  return eachNamed(names, (name) =>
    context.daemon.call('VolumeService/Remove', { name, force: options.force === true }),
  );
}
