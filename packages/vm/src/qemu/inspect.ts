/** What a running VMM uses, from /proc. */
import fs from 'node:fs/promises';
import type { VmHandle, VmInspect } from '../contract.ts';
import { VmError } from '../errors.ts';
import type { Accelerator } from './machine-types.ts';

export interface MemoryMapping {
  readonly start: bigint;
  readonly end: bigint;
  readonly fileOffset: bigint;
  readonly name: string;
  readonly pssBytes: number;
}

/** Mappings of the guest's memory: by the name that memory-backend-memfd gives, or by the template's path. */
export function isGuestRam(
  mapping: MemoryMapping,
  privateMemoryPath: string | undefined,
  config: VmHandle['config'],
): boolean {
  const name = mapping.name.replace(/ \(deleted\)$/, '');
  if (privateMemoryPath !== undefined) return name === privateMemoryPath;
  return config.memory.kind === 'template'
    ? name === config.memory.path
    : name.startsWith('/memfd:memory-backend-memfd');
}

export async function readMappings(pid: number): Promise<MemoryMapping[]> {
  let text: string;
  try {
    text = await fs.readFile(`/proc/${pid}/smaps`, 'latin1');
  } catch (cause) {
    throw new VmError('ERR_ARCBOX_VM_GONE', `The memory of process ${pid} cannot be read`, { cause });
  }
  const mappings: MemoryMapping[] = [];
  const pattern =
    /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \S+ *(.*)\n(?:[A-Z][\w]*: .*\n)*?Pss: +([0-9]+) kB$/gm;
  for (const match of text.matchAll(pattern)) {
    const [, start, end, offset, name, pss] = match;
    if (!start || !end || !offset || name === undefined || !pss) continue;
    mappings.push({
      start: BigInt(`0x${start}`),
      end: BigInt(`0x${end}`),
      fileOffset: BigInt(`0x${offset}`),
      name,
      pssBytes: Number(pss) * 1024,
    });
  }
  return mappings;
}

export async function inspectMachine(
  handle: VmHandle,
  machine: {
    readonly accelerator: Accelerator;
    readonly privateMemoryPath: string | undefined;
    readonly cgroups: readonly string[];
  },
  vmmVersion: string,
): Promise<VmInspect> {
  const mappings = await readMappings(handle.pid);
  const sum = (of: readonly MemoryMapping[]): number =>
    of.reduce((bytes, mapping) => bytes + mapping.pssBytes, 0);
  return {
    pid: handle.pid,
    accelerator: machine.accelerator,
    vmmVersion,
    pssBytes: sum(mappings),
    guestRamPssBytes: sum(
      mappings.filter((mapping) => isGuestRam(mapping, machine.privateMemoryPath, handle.config)),
    ),
  };
}
