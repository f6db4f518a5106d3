/** `arcbox machine …`. */
import type { MachineJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { eachNamed } from '../each-named.ts';
import { printInspected } from '../inspected.ts';
import { sizeBytes, wholeNumber } from '../limit-flags.ts';
import { printList } from '../listing.ts';
import { print } from '../output.ts';
import { formatSize } from '../size.ts';
import { ago, type ListingOptions } from '../table.ts';

export async function machineCreate(
  context: Context,
  name: string,
  options: { cpus?: string; memory?: string; disk?: string },
): Promise<number> {
  const { cpus, memory, disk } = options;
  await context.daemon.call('MachineService/Create', {
    name,
    ...(cpus === undefined ? {} : { cpus: wholeNumber('--cpus', cpus) }),
    ...(memory === undefined ? {} : { memoryBytes: String(sizeBytes('--memory', memory)) }),
    ...(disk === undefined ? {} : { diskBytes: String(sizeBytes('--disk', disk)) }),
  });
  print(name);
  return 0;
}

export function machineRemove(
  context: Context,
  names: readonly string[],
  options: { force?: boolean },
): Promise<number> {
  return eachNamed(names, async (name) => {
    await context.daemon.call('MachineService/Remove', { name, force: options.force === true });
  });
}

export async function machineList(context: Context, options: ListingOptions): Promise<number> {
  const { machines = [] } = await context.daemon.call('MachineService/List', {});
  printList<MachineJson>(options, {
    rows: machines,
    id: ({ name = '' }) => name,
    columns: ['Name', 'State', 'CPUs', 'Memory', 'Disk', 'Containers', 'HostMemory', 'PID', 'Accelerator'],
    headings: { CPUs: 'CPUS' },
    fields: {
      Name: ({ name = '' }) => name,
      State: ({ state = '' }) => state,
      CPUs: ({ cpus = 0 }) => String(cpus),
      Memory: ({ memoryBytes = '0' }) => formatSize(Number(memoryBytes)),
      Disk: ({ diskBytes = '0', diskUsedBytes = '0' }) =>
        `${formatSize(Number(diskUsedBytes))} / ${formatSize(Number(diskBytes))}`,
      Containers: ({ containers = 0, containersRunning = 0 }) => `${containersRunning} / ${containers}`,
      HostMemory: ({ pssBytes, savedBytes }) => {
        const bytes = pssBytes ?? savedBytes;
        return bytes === undefined ? '-' : formatSize(Number(bytes));
      },
      PID: ({ pid }) => (pid === undefined ? '-' : String(pid)),
      Accelerator: ({ accelerator }) => accelerator ?? '-',
      Kernel: ({ kernelRelease }) => kernelRelease ?? '-',
      CreatedSince: ({ createdMs = '0' }) => `${ago(Number(createdMs))} ago`,
    },
  });
  return 0;
}

export function machineStart(context: Context, names: readonly string[]): Promise<number> {
  return eachNamed(names, async (name) => {
    await context.daemon.call('MachineService/Start', { name });
  });
}

export function machineIdle(context: Context, names: readonly string[]): Promise<number> {
  return eachNamed(names, async (name) => {
    await context.daemon.call('MachineService/Idle', { name });
  });
}

export function machineStop(context: Context, names: readonly string[]): Promise<number> {
  return eachNamed(names, async (name) => {
    await context.daemon.call('MachineService/Stop', { name });
  });
}

export function machineInspect(
  context: Context,
  names: readonly string[],
  options: { format?: string },
): Promise<number> {
  return printInspected(names, options, async (name) => {
    const { machine } = await context.daemon.call('MachineService/Inspect', { name });
    return inspected(machine ?? {});
  });
}

/** In docker's way of naming; what is known only while it runs, or idles, is null otherwise. */
function inspected(machine: MachineJson): Record<string, unknown> {
  const { pid, savedMs } = machine;
  return {
    Name: machine.name ?? '',
    State: machine.state ?? '',
    Created: new Date(Number(machine.createdMs ?? 0)).toISOString(),
    CPUs: machine.cpus ?? 0,
    Memory: Number(machine.memoryBytes ?? 0),
    Disk: { Size: Number(machine.diskBytes ?? 0), Used: Number(machine.diskUsedBytes ?? 0) },
    Containers: machine.containers ?? 0,
    ContainersRunning: machine.containersRunning ?? 0,
    Running:
      pid === undefined
        ? null
        : {
            Pid: pid,
            Accelerator: machine.accelerator ?? '',
            VmmVersion: machine.vmmVersion ?? '',
            KernelRelease: machine.kernelRelease ?? '',
            AgentVersion: machine.agentVersion ?? '',
            Pss: Number(machine.pssBytes ?? 0),
            GuestRamPss: Number(machine.guestRamPssBytes ?? 0),
          },
    Saved:
      savedMs === undefined
        ? null
        : { Bytes: Number(machine.savedBytes ?? 0), At: new Date(Number(savedMs)).toISOString() },
  };
}
