/** The machine that a new container is for: the one that was named, or where the containers are that it joins. */
import { EngineError } from '../errors.ts';
import { DEFAULT_MACHINE } from '../machine/machine-record.ts';
import type { ContainerRecord } from './container-record.ts';
import { containerOfMode, type HostOptions } from './host-options.ts';

export interface KnownContainers {
  /** Undefined when there is none of that name. */
  lookUp(reference: string): { readonly record: ContainerRecord } | undefined;
}

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT` when that cannot be one and the same machine. */
export function chooseMachine(wanted: string | undefined, host: HostOptions, known: KnownContainers): string {
  let machine = wanted;
  for (const mode of [host.networkMode, host.pidMode, host.ipcMode]) {
    const reference = containerOfMode(mode);
    // One that is not there now may be when this one starts.
    const other = reference === undefined ? undefined : known.lookUp(reference)?.record;
    if (other === undefined) continue;
    machine ??= other.machine;
    if (other.machine !== machine) throw apart(other, machine);
  }
  return machine ?? DEFAULT_MACHINE;
}

/** A namespace is of one kernel. Throws `ERR_ARCBOX_INVALID_ARGUMENT` when the two are in different machines. */
export function assertTogether(container: ContainerRecord, other: ContainerRecord): void {
  if (container.machine !== other.machine) throw apart(other, container.machine);
}

function apart(other: ContainerRecord, machine: string): EngineError {
  return new EngineError(
    'ERR_ARCBOX_INVALID_ARGUMENT',
    `the container ${other.name} is in the machine ${other.machine}; its namespaces cannot be joined from the machine ${machine}: use --machine ${other.machine}`,
  );
}
