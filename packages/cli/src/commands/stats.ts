/** `arcbox stats`: what containers use, with docker's numbers: rates of two samples. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ContainerStatsJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { align, printList } from '../listing.ts';
import { print } from '../output.ts';
import { shortId } from '../table.ts';

const INTERVAL_MS = 1000;
const CLEAR_SCREEN = '\x1b[H\x1b[J';
const UNITS_1000 = ['B', 'kB', 'MB', 'GB', 'TB'];
const UNITS_1024 = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export interface StatsOptions {
  readonly all?: boolean;
  /** `--no-stream`. */
  readonly stream?: boolean;
  /** `--no-trunc`. */
  readonly trunc?: boolean;
  readonly format?: string;
}

interface Row {
  readonly now: ContainerStatsJson;
  readonly before: ContainerStatsJson | undefined;
}

export async function stats(
  context: Context,
  ids: readonly string[],
  options: StatsOptions,
): Promise<number> {
  const sample = async (): Promise<readonly ContainerStatsJson[]> => {
    const wanted = ids.length === 0 && options.all === true ? await allIds(context) : [...ids];
    const { stats: answered = [] } = await context.daemon.call('ContainerService/Stats', { ids: wanted });
    return answered;
  };
  const clear = process.stdout.isTTY === true && options.stream !== false;
  let before = await sample();
  for (;;) {
    await sleep(INTERVAL_MS);
    const current = await sample();
    const rows = current.map((now) => ({ now, before: before.find(({ id }) => id === now.id) }));
    if (clear) process.stdout.write(CLEAR_SCREEN);
    show(rows, options);
    if (options.stream === false) return 0;
    before = current;
  }
}

/** Of all its machine's CPUs together 100 % each, as docker counts. Exported for its test. */
export function cpuPercent(now: ContainerStatsJson, before: ContainerStatsJson | undefined): number {
  if (before === undefined || now.running !== true) return 0;
  const used = Number(now.cpuUsageNs ?? 0) - Number(before.cpuUsageNs ?? 0);
  const passed = Number(now.machineCpuNs ?? 0) - Number(before.machineCpuNs ?? 0);
  return used > 0 && passed > 0 ? (used / passed) * (now.machineCpus ?? 1) * 100 : 0;
}

/** Without the page cache that can be given back at any time. */
export function memoryUsage(now: ContainerStatsJson): number {
  return Math.max(0, Number(now.memoryBytes ?? 0) - Number(now.memoryInactiveFileBytes ?? 0));
}

export function humanSize(bytes: number, base: 1000 | 1024): string {
  const units = base === 1000 ? UNITS_1000 : UNITS_1024;
  let value = bytes;
  let unit = 0;
  while (value >= base && unit < units.length - 1) {
    value /= base;
    unit += 1;
  }
  return `${Number(value.toPrecision(4))}${units[unit]}`;
}

function show(rows: readonly Row[], options: StatsOptions): void {
  const id = ({ now }: Row): string => (options.trunc === false ? (now.id ?? '') : shortId(now.id ?? ''));
  const ifRunning =
    (value: (row: Row) => string) =>
    (row: Row): string =>
      row.now.running === true ? value(row) : '--';
  if (rows.length === 0 && (options.format ?? 'table') === 'table') {
    for (const line of align([
      'CONTAINER ID\tNAME\tCPU %\tMEM USAGE / LIMIT\tMEM %\tNET I/O\tBLOCK I/O\tPIDS',
    ]))
      print(line);
    return;
  }
  printList(options, {
    rows,
    columns: ['ID', 'Name', 'CPUPerc', 'MemUsage', 'MemPerc', 'NetIO', 'BlockIO', 'PIDs'],
    headings: {
      ID: 'CONTAINER ID',
      CPUPerc: 'CPU %',
      MemUsage: 'MEM USAGE / LIMIT',
      MemPerc: 'MEM %',
      NetIO: 'NET I/O',
      BlockIO: 'BLOCK I/O',
      PIDs: 'PIDS',
    },
    id,
    fields: {
      Container: id,
      ID: id,
      Name: ({ now }) => now.name ?? '',
      CPUPerc: ifRunning(({ now, before }) => `${cpuPercent(now, before).toFixed(2)}%`),
      MemUsage: ifRunning(
        ({ now }) =>
          `${humanSize(memoryUsage(now), 1024)} / ${humanSize(Number(now.memoryLimitBytes ?? 0), 1024)}`,
      ),
      MemPerc: ifRunning(
        ({ now }) => `${((memoryUsage(now) / Number(now.memoryLimitBytes || 1)) * 100).toFixed(2)}%`,
      ),
      NetIO: ifRunning(({ now: { interfaces = [] } }) => {
        const sum = (of: 'rxBytes' | 'txBytes'): string =>
          humanSize(
            interfaces.reduce((total, counters) => total + Number(counters[of] ?? 0), 0),
            1000,
          );
        return `${sum('rxBytes')} / ${sum('txBytes')}`;
      }),
      BlockIO: ifRunning(
        ({ now }) =>
          `${humanSize(Number(now.blockReadBytes ?? 0), 1000)} / ${humanSize(Number(now.blockWriteBytes ?? 0), 1000)}`,
      ),
      PIDs: ifRunning(({ now }) => String(now.pids ?? 0)),
    },
  });
}

async function allIds(context: Context): Promise<string[]> {
  const { containers = [] } = await context.daemon.call('ContainerService/List', { all: true });
  return containers.map(({ id = '' }) => id);
}
