/** What a running VMM uses, from /proc. */
import fs from 'node:fs/promises';
import type { VmHandle, VmInspect } from '../contract.ts';
import { VmError } from '../errors.ts';

export interface MemoryMapping {
  readonly start: bigint;
  readonly end: bigint;
  readonly fileOffset: bigint;
  readonly name: string;
  readonly pssBytes: number;
}

/** Whether it is guest memory: by the name that memory-backend-memfd gives, or by the file's path. */
function isGuestRam({ name }: MemoryMapping, handle: VmHandle): boolean {
  const { config } = handle;
  const file = name.replace(/ \(deleted\)$/, '');
  const snapshotMemory = handle.takenMemoryPath ?? handle.privateMemoryPath;
  if (snapshotMemory !== undefined) return file === snapshotMemory;
  return config.memory.kind === 'template'
    ? file === config.memory.path
    : file.startsWith('/memfd:memory-backend-memfd');
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

export async function inspectMachine(handle: VmHandle, vmmVersion: string): Promise<VmInspect> {
  const mappings = await readMappings(handle.pid);
  const sum = (of: readonly MemoryMapping[]): number =>
    of.reduce((bytes, { pssBytes }) => bytes + pssBytes, 0);
  return {
    pid: handle.pid,
    accelerator: handle.accelerator,
    vmmVersion,
    pssBytes: sum(mappings),
    guestRamPssBytes: sum(mappings.filter((mapping) => isGuestRam(mapping, handle))),
    cgroups: handle.cgroups,
  };
}
