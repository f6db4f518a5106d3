/** Which events somebody wants: for each key one of its values has to fit, as docker's `--filter`. */
import { EngineError } from '../errors.ts';
import type { EngineEvent } from './event-log.ts';

export type EventFilters = Readonly<Record<string, readonly string[]>>;

const ENTITIES = ['container', 'image', 'machine', 'network', 'volume', 'daemon'] as const;

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT` when a key is none that we know. */
export function checkFilters(filters: EventFilters): void {
  const known: readonly string[] = ['type', 'event', 'label', ...ENTITIES];
  for (const key of Object.keys(filters)) {
    if (known.includes(key)) continue;
    throw new EngineError(
      'ERR_ARCBOX_INVALID_ARGUMENT',
      `there is no filter ${JSON.stringify(key)} for events; there are ${known.join(', ')}`,
    );
  }
}

export function matches(event: EngineEvent, filters: EventFilters): boolean {
  return Object.entries(filters).every(([key, values]) => values.some((value) => fits(event, key, value)));
}

function fits(event: EngineEvent, key: string, value: string): boolean {
  const { type, action, id, attributes } = event;
  if (key === 'type') return type === value;
  // `exec_start: sh -c true` is found by `exec_start`, too.
  if (key === 'event') return action === value || action.startsWith(`${value}:`);
  if (key === 'label') {
    const equals = value.indexOf('=');
    return equals < 0
      ? Object.hasOwn(attributes, value)
      : attributes[value.slice(0, equals)] === value.slice(equals + 1);
  }
  const isIt = id === value || attributes.name === value || (value.length >= 4 && id.startsWith(value));
  // A container's events name its image, and its machine.
  return (type === key && isIt) || attributes[key] === value;
}
