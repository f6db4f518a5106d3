/** `ps --filter`: docker's filters. */
import type { ContainerJson } from '@arcbox/api/client';
import { CliError } from './errors.ts';
import { filterRows, hasLabel, parseFilters, type RowFilters } from './row-filters.ts';

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
    image === value ||
    image === `${value}:latest` ||
    imageId.replace('sha256:', '').startsWith(value.replace('sha256:', '')),
  exited: ({ state, exitCode = 0 }, value) => state === 'exited' && exitCode === Number(value),
  machine: ({ machine }, value) => machine === value,
  before: (container, value, all) => Number(container.createdMs) < createdMs(all, value),
  since: (container, value, all) => Number(container.createdMs) > createdMs(all, value),
};
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
