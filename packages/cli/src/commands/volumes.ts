/** `arcbox volume …`. */
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { printInspected } from '../inspected.ts';
import { complain, print } from '../output.ts';
import { formatSize, parseSize } from '../size.ts';
import { ago, type ListingOptions, printListing } from '../table.ts';

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
  options: ListingOptions & { dangling?: boolean },
): Promise<number> {
  const { volumes = [] } = await context.daemon.call('VolumeService/List', {
    dangling: options.dangling === true,
  });
  printListing(options, volumes, (volume) => volume.name ?? '', {
    'VOLUME NAME': (volume) => volume.name ?? '',
    CONTAINERS: (volume) => String(volume.containers ?? 0),
    CREATED: (volume) => `${ago(Number(volume.createdMs))} ago`,
    SIZE: (volume) => formatSize(Number(volume.usedBytes ?? 0)),
  });
  return 0;
}

export function volumeInspect(context: Context, names: readonly string[]): Promise<number> {
  return printInspected(names, {}, async (name) => {
    const { volume } = await context.daemon.call('VolumeService/Inspect', { name });
    return { ...volume };
  });
}

export async function volumeRemove(
  context: Context,
  names: readonly string[],
  options: { force?: boolean },
): Promise<number> {
  let exitCode = 0;
  for (const name of names) {
    try {
      await context.daemon.call('VolumeService/Remove', { name, force: options.force === true });
      print(name);
    } catch (error) {
      complain(error instanceof Error ? error.message : String(error));
      exitCode = 1;
    }
  }
  return exitCode;
}

export async function volumePrune(context: Context, options: { all?: boolean }): Promise<number> {
  const { names = [], freedBytes = '0' } = await context.daemon.call('VolumeService/Prune', {
    all: options.all === true,
  });
  for (const name of names) print(name);
  print(`Total reclaimed space: ${formatSize(Number(freedBytes))}`);
  return 0;
}
