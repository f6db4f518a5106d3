/** Commands about the images that are here. */
import type { ImageHistoryEntryJson, ImageJson, ImageRemovalJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { familiar } from '../image-names.ts';
import { printList } from '../listing.ts';
import { complain, print } from '../output.ts';
import { hasLabel } from '../row-filters.ts';
import { decimalSize } from '../size.ts';
import { ago, type ListingOptions, shortId } from '../table.ts';

const NONE = '<none>';

export interface ImagesOptions extends ListingOptions {
  readonly digests?: boolean;
  readonly filter?: readonly string[];
  /** `--no-trunc`. */
  readonly trunc?: boolean;
}

/** One line: an image under one of its names. */
interface Row {
  readonly image: ImageJson;
  readonly repository: string;
  readonly tag: string;
  readonly digest: string;
}

export async function images(
  context: Context,
  name: string | undefined,
  options: ImagesOptions,
): Promise<number> {
  const { images: all = [] } = await context.daemon.call('ImageService/List', {});
  const id = ({ image }: Row): string =>
    options.trunc === false ? (image.id ?? '') : shortId(image.id ?? '');
  const rows = filtered(all, options.filter ?? [])
    .flatMap(rowsOf)
    .filter((row) => name === undefined || matches(row, name));
  // With IDs alone, a second name is nothing new.
  const shown = options.quiet === true ? [...new Map(rows.map((row) => [row.image.id, row])).values()] : rows;
  printList(options, {
    rows: shown,
    columns: [
      'Repository',
      'Tag',
      ...(options.digests === true ? ['Digest'] : []),
      'ID',
      'CreatedSince',
      'Size',
    ],
    headings: { ID: 'IMAGE ID', CreatedSince: 'CREATED' },
    id,
    fields: {
      ID: id,
      Repository: ({ repository }) => repository,
      Tag: ({ tag }) => tag,
      Digest: ({ digest }) => digest,
      CreatedSince: ({ image }) => `${ago(Date.parse(image.created ?? ''))} ago`,
      CreatedAt: ({ image }) => image.created ?? '',
      Size: ({ image }) => decimalSize(Number(image.sizeBytes ?? 0)),
      Containers: () => 'N/A',
      SharedSize: () => 'N/A',
      UniqueSize: () => 'N/A',
    },
  });
  return 0;
}

function rowsOf(image: ImageJson): Row[] {
  const digests = new Map((image.digests ?? []).map((name) => split(familiar(name), '@')));
  const rows = (image.names ?? []).map((name): Row => {
    const [repository, tag] = split(familiar(name), ':');
    return { image, repository, tag, digest: digests.get(repository) ?? NONE };
  });
  if (rows.length > 0) return rows;
  const [first] = digests;
  return [{ image, repository: first?.[0] ?? NONE, tag: NONE, digest: first?.[1] ?? NONE }];
}

function split(name: string, separator: string): [string, string] {
  const at = name.lastIndexOf(separator);
  return [name.slice(0, at), name.slice(at + 1)];
}

function matches({ repository, tag }: Row, wanted: string): boolean {
  const text = familiar(wanted);
  const pattern = new RegExp(
    `^${text
      .replace(/[.+^${}()|[\]\\]/g, '\\$&')
      .replaceAll('*', '[^/]*')
      .replaceAll('?', '[^/]')}$`,
  );
  return pattern.test(repository) || pattern.test(`${repository}:${tag}`);
}

function filtered(all: readonly ImageJson[], filters: readonly string[]): readonly ImageJson[] {
  return filters.reduce<readonly ImageJson[]>((left, filter) => {
    const [key, value] = [filter.split('=', 1)[0] ?? '', filter.slice(filter.indexOf('=') + 1)];
    if (!filter.includes('='))
      throw new CliError(`${JSON.stringify(filter)} is not a filter of the form KEY=VALUE`, 1);
    switch (key) {
      case 'dangling':
        return left.filter(({ names = [] }) => (names.length === 0) === (value === 'true' || value === '1'));
      case 'label':
        return left.filter(({ labels }) => hasLabel(labels, value));
      case 'reference':
        return left.filter((image) => rowsOf(image).some((row) => matches(row, value)));
      case 'before':
      case 'since': {
        const wanted = familiar(value);
        const pivot = all.find(
          ({ id = '', names = [] }) =>
            id.replace('sha256:', '').startsWith(value.replace('sha256:', '')) ||
            names.some((name) => familiar(name) === wanted || familiar(name) === `${wanted}:latest`),
        );
        if (pivot === undefined) throw new CliError(`no such image: ${value}`, 1);
        const than = Date.parse(pivot.created ?? '');
        return left.filter(({ created = '' }) =>
          key === 'before' ? Date.parse(created) < than : Date.parse(created) > than,
        );
      }
      default:
        throw new CliError(
          `${JSON.stringify(key)} is no filter of images; there are before, dangling, label, reference and since`,
          1,
        );
    }
  }, all);
}

export async function tag(context: Context, source: string, target: string): Promise<number> {
  await context.daemon.call('ImageService/Tag', { source, target });
  return 0;
}

export async function remove(
  context: Context,
  names: readonly string[],
  options: { force?: boolean },
): Promise<number> {
  let exitCode = 0;
  for (const name of names) {
    try {
      const { removals = [] } = await context.daemon.call('ImageService/Remove', {
        name,
        force: options.force === true,
      });
      printRemovals(removals);
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : '';
      // As docker: with -f an image that is not there is as good as removed.
      if (options.force === true && code === 'ERR_ARCBOX_IMAGE_NOT_FOUND') continue;
      complain(error instanceof Error ? error.message : String(error));
      exitCode = 1;
    }
  }
  return exitCode;
}

/** What became of names and images. */
export function printRemovals(removals: readonly ImageRemovalJson[]): void {
  for (const { untagged = '', deleted = '' } of removals) {
    print(deleted === '' ? `Untagged: ${untagged}` : `Deleted: ${deleted}`);
  }
}

export async function history(
  context: Context,
  name: string,
  options: ListingOptions & { trunc?: boolean; human?: string | boolean },
): Promise<number> {
  const { entries = [] } = await context.daemon.call('ImageService/History', { name });
  const full = options.trunc === false;
  const human = options.human !== false && options.human !== 'false';
  const id = (entry: ImageHistoryEntryJson): string => {
    if (entry.id === undefined || entry.id === '') return '<missing>';
    return full ? entry.id : shortId(entry.id);
  };
  const short = (text: string, width: number): string =>
    full || text.length <= width ? text : `${text.slice(0, width - 1)}…`;
  printList(options, {
    rows: entries,
    columns: ['ID', 'CreatedSince', 'CreatedBy', 'Size', 'Comment'],
    headings: { ID: 'IMAGE', CreatedSince: 'CREATED' },
    id,
    fields: {
      ID: id,
      CreatedSince: ({ created = '' }) => (human ? `${ago(Date.parse(created))} ago` : created),
      CreatedAt: ({ created = '' }) => created,
      CreatedBy: ({ createdBy = '' }) => short(createdBy.replaceAll('\t', ' '), 45),
      Size: ({ sizeBytes = '0' }) => (human ? decimalSize(Number(sizeBytes)) : sizeBytes),
      Comment: ({ comment = '' }) => comment,
    },
  });
  return 0;
}

export async function describeImage(context: Context, name: string): Promise<Record<string, unknown>> {
  const {
    image = {},
    config = '{}',
    diffIds = [],
  } = await context.daemon.call('ImageService/Inspect', { name });
  return dockerImage(image, JSON.parse(config) as Record<string, unknown>, diffIds);
}

/** As `docker image inspect` shows it, which is what templates and scripts are written for. */
function dockerImage(
  image: ImageJson,
  config: Record<string, unknown>,
  diffIds: readonly string[],
): Record<string, unknown> {
  return {
    Id: image.id ?? '',
    RepoTags: (image.names ?? []).map(familiar),
    RepoDigests: (image.digests ?? []).map(familiar),
    Comment: typeof config.comment === 'string' ? config.comment : '',
    Created: image.created ?? '',
    Author: typeof config.author === 'string' ? config.author : '',
    Config: config.config ?? {},
    Architecture: image.architecture ?? '',
    ...(typeof config.variant === 'string' ? { Variant: config.variant } : {}),
    Os: image.os ?? '',
    Size: Number(image.sizeBytes ?? 0),
    RootFS: { Type: 'layers', Layers: diffIds },
  };
}
