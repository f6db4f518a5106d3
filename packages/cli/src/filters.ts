/** `ps --filter`: docker's filters. */
import type { ContainerJson } from '@arcbox/api/client';
import { CliError } from './errors.ts';
import { familiar } from './image-names.ts';
import { overlaps, type PortRange, portRange } from './published-ports.ts';
import { filterRows, hasLabel, parseFilters, type RowFilters, truth } from './row-filters.ts';

const FILTERS: RowFilters<ContainerJson> = {
  id: (container, value) => (container.id ?? '').startsWith(value),
  name: (container, value) => pattern(value).test(container.name ?? ''),
  status: (container, value) => {
    if (!STATES.includes(value))
      throw new CliError(`${JSON.stringify(value)} is no status; there are ${STATES.join(', ')}`, 1);
    return container.state === value;
  },
  label: ({ labels }, value) => hasLabel(labels, value),
  ancestor: ({ image = '', imageId = '' }, value) =>
    [value, `${value}:latest`].includes(familiar(image)) ||
    familiar(value) === familiar(image) ||
    imageId.replace('sha256:', '').startsWith(value.replace('sha256:', '')),
  exited: ({ state, exitCode = 0 }, value) => state === 'exited' && exitCode === Number(value),
  machine: ({ machine }, value) => machine === value,
  health: ({ health }, value) => {
    if (!HEALTH.includes(value))
      throw new CliError(`${JSON.stringify(value)} is no state of health; there are ${HEALTH.join(', ')}`, 1);
    return (health?.status ?? 'none') === value;
  },
  network: ({ networks = [], host }, value) =>
    networks.some(
      ({ name, networkId = '' }) => name === value || (value !== '' && networkId.startsWith(value)),
    ) ||
    (networks.length === 0 && host?.networkMode === value),
  volume: ({ mounts = [] }, value) =>
    mounts.some(({ source, target }) => value === source || value === target),
  publish: ({ ports = [] }, value) =>
    ports.some(({ hostPort = 0, protocol = '' }) =>
      overlaps(port(value), { first: hostPort, last: hostPort, protocol }),
    ),
  expose: ({ exposedPorts = [] }, value) =>
    exposedPorts.some((exposed) => overlaps(port(value), port(exposed))),
  // There is no swarm, and so no container is a task of one.
  'is-task': (_container, value) => !truth('is-task', value),
  before: (container, value, all) => Number(container.createdMs) < createdMs(all, value),
  since: (container, value, all) => Number(container.createdMs) > createdMs(all, value),
};
const HEALTH = ['starting', 'healthy', 'unhealthy', 'none'];
const STATES = ['created', 'restarting', 'running', 'removing', 'paused', 'exited', 'dead'];
/** Filters that say which states are meant, so that those which do not run count as well. */
const OF_ALL_STATES = new Set(['status', 'exited']);

/** Throws `CliError` for a filter that there is not. */
export function filterContainers(
  containers: readonly ContainerJson[],
  filters: readonly string[],
  { all }: { all: boolean },
): ContainerJson[] {
  const wanted = parseFilters(filters, FILTERS);
  const anyState = all || [...wanted.keys()].some((name) => OF_ALL_STATES.has(name));
  return filterRows(containers, wanted, FILTERS).filter(
    ({ state = '' }) => anyState || ['running', 'paused', 'restarting'].includes(state),
  );
}

/** Throws `CliError`. */
function port(text: string): PortRange {
  const range = portRange(text);
  if (range !== undefined) return range;
  throw new CliError(`${JSON.stringify(text)} is no port such as 80, 53/udp or 8000-8010`, 1);
}

function createdMs(all: readonly ContainerJson[], reference: string): number {
  const found = all.find(({ id = '', name }) => name === reference || id.startsWith(reference));
  if (found === undefined) throw new CliError(`no such container: ${reference}`, 1);
  return Number(found.createdMs);
}

/** Docker takes a regular expression here. */
function pattern(text: string): RegExp {
  try {
    return new RegExp(text.replace(/^\//, ''));
  } catch {
    throw new CliError(`${JSON.stringify(text)} is no regular expression`, 1);
  }
}
