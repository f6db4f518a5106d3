/** What is stored of a machine, and what it is made of. */

import { EngineError } from '../errors.ts';
import {
  MACHINE_CPUS_MAX,
  MACHINE_DISK_BYTES_MAX,
  MACHINE_DISK_BYTES_MIN,
  MACHINE_MEMORY_MIB_MAX,
  MACHINE_MEMORY_MIB_MIN,
  MACHINE_NAME_LENGTH_MAX,
} from '../limits.ts';
import { formatSize } from '../size.ts';

/** The one that is always there. */
export const DEFAULT_MACHINE = 'default';

/** What a machine is made of; what is left out is what the configuration says, at each boot anew. */
export interface MachineOptions {
  readonly cpus?: number;
  readonly memoryMib?: number;
  /** Of its disk, which is sparse, when that is made. */
  readonly diskBytes?: number;
}

export type MachineSize = Required<MachineOptions>;

export interface MachineRecord extends MachineOptions {
  readonly name: string;
  /** Its removal has begun, and goes on when a daemon that died in the middle of it is back. */
  readonly removing: boolean;
  readonly createdMs: number;
}

export function machineSize(record: MachineRecord, defaults: MachineSize): MachineSize {
  return {
    cpus: record.cpus ?? defaults.cpus,
    memoryMib: record.memoryMib ?? defaults.memoryMib,
    diskBytes: record.diskBytes ?? defaults.diskBytes,
  };
}

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
export function checkMachine(name: string, options: MachineOptions): void {
  if (!NAME.test(name) || name.length > MACHINE_NAME_LENGTH_MAX) {
    throw new EngineError(
      'ERR_ARCBOX_INVALID_ARGUMENT',
      `${JSON.stringify(name)} is not a machine's name: at most ${MACHINE_NAME_LENGTH_MAX} letters, digits and _.-, a letter or digit first`,
    );
  }
  const { cpus, memoryMib, diskBytes } = options;
  check('CPUs', cpus, 1, MACHINE_CPUS_MAX, String);
  check('memory', memoryMib, MACHINE_MEMORY_MIB_MIN, MACHINE_MEMORY_MIB_MAX, (mib) =>
    formatSize(mib * 1024 ** 2),
  );
  check('a disk', diskBytes, MACHINE_DISK_BYTES_MIN, MACHINE_DISK_BYTES_MAX, formatSize);
}

function check(
  what: string,
  value: number | undefined,
  low: number,
  high: number,
  show: (value: number) => string,
): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= low && value <= high)) return;
  throw new EngineError(
    'ERR_ARCBOX_INVALID_ARGUMENT',
    `a machine has ${what} from ${show(low)} to ${show(high)}, and not ${Number.isFinite(value) ? show(value) : value}`,
  );
}
