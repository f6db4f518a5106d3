/** `arcbox ps`, and what `inspect` says of a container: what containers there are, as docker's users know to ask for it. */
import type { ContainerJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { dockerContainer } from '../docker-shape.ts';
import { CliError } from '../errors.ts';
import { filterContainers } from '../filters.ts';
import { wholeNumber } from '../limit-flags.ts';
import { printList } from '../listing.ts';
import { hostEnd } from '../published-ports.ts';
import { ago, type ListingOptions, labelText, shortId } from '../table.ts';

const COMMAND_WIDTH = 20;

export interface PsOptions extends ListingOptions {
  readonly all?: boolean;
  readonly last?: string;
  readonly latest?: boolean;
  readonly filter?: readonly string[];
  /** `--no-trunc`. */
  readonly trunc?: boolean;
}

export async function ps(context: Context, options: PsOptions): Promise<number> {
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
      Ports: ({ ports = [] }) =>
        ports.map((port) => `${hostEnd(port)}->${port.containerPort}/${port.protocol}`).join(', '),
      State: (container) => container.state ?? '',
      Status: status,
      Size: () => '',
      Labels: ({ labels = {} }) => labelText(labels),
      Machine: ({ machine }) => machine ?? '',
      Label:
        ({ labels = {} }) =>
        (name: unknown) =>
          labels[String(name)] ?? '',
      Mounts: () => '',
      Networks: ({ host, networks = [] }) =>
        networks.length > 0 ? networks.map(({ name }) => name).join(',') : host?.networkMode,
      LocalVolumes: () => '0',
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
