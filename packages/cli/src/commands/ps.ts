/** `arcbox ps`, and what `inspect` says of a container: what containers there are, as docker's users know to ask for it. */
import type { ContainerJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { dockerContainer } from '../docker-shape.ts';
import { CliError } from '../errors.ts';
import { filterContainers } from '../filters.ts';
import { wholeNumber } from '../limit-flags.ts';
import { printList } from '../listing.ts';
import { portText } from '../published-ports.ts';
import { ago, type ListingOptions, labelText, shortId } from '../table.ts';

const COMMAND_WIDTH = 20;
const MOUNT_WIDTH = 15;
/** Why there is no `-s`. */
export const NO_SIZE =
  "-s is not supported: what a container wrote is on its machine's disk, which is counted as a whole; system df shows it, and diff what was written";

export interface PsOptions extends ListingOptions {
  readonly size?: boolean;
  readonly all?: boolean;
  readonly last?: string;
  readonly latest?: boolean;
  readonly filter?: readonly string[];
  /** `--no-trunc`. */
  readonly trunc?: boolean;
}

export async function ps(context: Context, options: PsOptions): Promise<number> {
  if (options.size === true) throw new CliError(NO_SIZE, 1);
  const last =
    options.latest === true ? 1 : options.last === undefined ? -1 : wholeNumber('--last', options.last);
  const { containers = [] } = await context.daemon.call('ContainerService/List', { all: true });
  const filtered = filterContainers(containers.toReversed(), options.filter ?? [], {
    all: options.all === true || last >= 0,
  });
  const full = options.trunc === false;
  const id = (container: ContainerJson): string =>
    full ? (container.id ?? '') : shortId(container.id ?? '');
  printList(options, {
    rows: last >= 0 ? filtered.slice(0, last) : filtered,
    columns: ['ID', 'Image', 'Command', 'RunningFor', 'Status', 'Ports', 'Names'],
    headings: { ID: 'CONTAINER ID', RunningFor: 'CREATED' },
    id,
    fields: {
      ID: id,
      Names: (container) => container.name ?? '',
      Image: (container) => container.image ?? '',
      Command: (container) => quoted((container.argv ?? []).join(' '), full),
      CreatedAt: (container) => dateTime(Number(container.createdMs)),
      RunningFor: (container) => `${ago(Number(container.createdMs))} ago`,
      Ports: portText,
      State: (container) => container.state ?? '',
      Status: status,
      // It is on its machine's disk, which is counted as a whole (see `system df`).
      Size: () => 'N/A',
      Labels: ({ labels = {} }) => labelText(labels),
      Machine: ({ machine }) => machine ?? '',
      Label:
        ({ labels = {} }) =>
        (name: unknown) =>
          labels[String(name)] ?? '',
      Mounts: (container) =>
        volumesOf(container)
          .map((name) => (full || name.length <= MOUNT_WIDTH ? name : `${name.slice(0, MOUNT_WIDTH - 1)}…`))
          .join(','),
      Networks: ({ host, networks = [] }) =>
        networks.length > 0 ? networks.map(({ name }) => name).join(',') : host?.networkMode,
      LocalVolumes: (container) => String(volumesOf(container).length),
      Platform: () => 'linux',
    },
  });
  return 0;
}

export async function describeContainer(context: Context, id: string): Promise<Record<string, unknown>> {
  const { container } = await context.daemon.call('ContainerService/Inspect', { id });
  if (container === undefined) throw new CliError(`no such container: ${id}`, 1);
  return dockerContainer(container);
}

function volumesOf({ mounts = [] }: ContainerJson): string[] {
  return mounts.filter(({ type }) => type === 'volume').map(({ source = '' }) => source);
}

/** As docker says it: Up 3 minutes (Paused), Exited (0) 2 hours ago. */
export function status(container: ContainerJson): string {
  const since = (ms: string | undefined): string => ago(Number(ms));
  switch (container.state) {
    case 'running':
      return `Up ${since(container.startedMs)}${health(container)}`;
    case 'paused':
      return `Up ${since(container.startedMs)} (Paused)`;
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

/** Docker's words: (healthy), (unhealthy), (health: starting). */
function health({ health: state }: ContainerJson): string {
  if (state?.status === undefined) return '';
  return state.status === 'starting' ? ' (health: starting)' : ` (${state.status})`;
}

function quoted(command: string, full: boolean): string {
  if (full || command.length <= COMMAND_WIDTH) return JSON.stringify(command);
  return JSON.stringify(`${command.slice(0, COMMAND_WIDTH - 1)}…`);
}

/** `2026-11-22 01:02:03 +0000 UTC`. */
function dateTime(unixMs: number): string {
  return `${new Date(unixMs).toISOString().replace('T', ' ').slice(0, 19)} +0000 UTC`;
}
