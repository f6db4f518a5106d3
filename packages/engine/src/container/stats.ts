/** What a container uses at this moment, from its cgroup: counters, of which a client makes rates. */
import { AgentOpError, type OpInput } from '@arcbox/protocol';
import type { AgentSession } from '../machine/agent-session.ts';
import { CGROUP_ROOT, containerPaths } from '../machine/guest-layout.ts';
import type { ContainerRecord } from './container-record.ts';

const US_TO_NS = 1000;
const TICK_NS = 10_000_000;
/** In a line of /proc/net/dev. */
const INTERFACE_COUNTERS = 16;
/** What reading the files of something says that is no more. */
const ENDED = new Set(['ENOENT', 'ENODEV', 'ESRCH', 'EINVAL']);
const FILES = [
  'cpu.stat',
  'memory.current',
  'memory.stat',
  'memory.max',
  'memory.peak',
  'memory.events',
  'pids.current',
  'pids.max',
  'io.stat',
] as const;

export interface ContainerUsage {
  readonly readUnixNs: bigint;
  readonly cpuUsageNs: number;
  readonly cpuUserNs: number;
  readonly cpuSystemNs: number;
  /** Of the whole machine, busy or not, times its CPUs. */
  readonly machineCpuNs: number;
  readonly machineCpus: number;
  readonly cpuPeriods: number;
  readonly cpuThrottledPeriods: number;
  readonly cpuThrottledNs: number;
  /** With the page cache. */
  readonly memoryBytes: number;
  readonly memoryInactiveFileBytes: number;
  readonly memoryAnonBytes: number;
  readonly memoryFileBytes: number;
  /** The machine's memory when there is none. */
  readonly memoryLimitBytes: number;
  readonly memoryPeakBytes: number;
  readonly oomKills: number;
  readonly pids: number;
  /** 0: no limit. */
  readonly pidsLimit: number;
  readonly blockReadBytes: number;
  readonly blockWriteBytes: number;
  /** Of its network namespace, without the loopback; none when that is its machine's. */
  readonly interfaces: readonly InterfaceUsage[];
}

export interface InterfaceUsage {
  readonly name: string;
  readonly rxBytes: number;
  readonly rxPackets: number;
  readonly rxErrors: number;
  readonly rxDropped: number;
  readonly txBytes: number;
  readonly txPackets: number;
  readonly txErrors: number;
  readonly txDropped: number;
}

/** `pid` is its process's in the machine. Undefined when it has just ended. */
export async function containerUsage(
  agent: AgentSession,
  { id, config }: ContainerRecord,
  pid: number,
): Promise<ContainerUsage | undefined> {
  const cgroup = CGROUP_ROOT + containerPaths(id).cgroup;
  const ofMachine = config.host.networkMode === 'host';
  const paths = [
    ...FILES.map((file) => `${cgroup}/${file}`),
    '/proc/stat',
    '/proc/meminfo',
    ...(ofMachine ? [] : [`/proc/${pid}/net/dev`]),
  ];
  try {
    const results = await agent.batch(
      paths.map((path): OpInput => ({ case: 'read', value: { path, limit: 64 * 1024 } })),
    );
    const texts = results.map(({ result }) =>
      result.case === 'data' ? Buffer.from(result.value.data).toString('utf8') : '',
    );
    return parseUsage(texts, BigInt(Date.now()) * 1_000_000n);
  } catch (error) {
    if (error instanceof AgentOpError && ENDED.has(error.errnoName)) return undefined;
    throw error;
  }
}

/** From the files' texts, in the order of `FILES`, then /proc/stat, /proc/meminfo and net/dev. Exported for its test. */
export function parseUsage(texts: readonly string[], readUnixNs: bigint): ContainerUsage {
  const [
    cpu = '',
    current = '',
    memory = '',
    max = '',
    peak = '',
    events = '',
    pids = '',
    pidsMax = '',
    io = '',
  ] = texts;
  const [stat = '', meminfo = '', netDev = ''] = texts.slice(FILES.length);
  const machineBytes = valueIn(meminfo, 'MemTotal:') * 1024;
  const limit = max.trim() === 'max' ? machineBytes : Number(max);
  // user nice system idle iowait irq softirq steal; what runs guests is in user already.
  const ticks = (/^cpu +(.*)$/m.exec(stat)?.[1] ?? '').split(' ').slice(0, 8).map(Number);
  return {
    readUnixNs,
    cpuUsageNs: valueIn(cpu, 'usage_usec') * US_TO_NS,
    cpuUserNs: valueIn(cpu, 'user_usec') * US_TO_NS,
    cpuSystemNs: valueIn(cpu, 'system_usec') * US_TO_NS,
    machineCpuNs: ticks.reduce((sum, count) => sum + count, 0) * TICK_NS,
    machineCpus: (stat.match(/^cpu\d+ /gm) ?? []).length,
    cpuPeriods: valueIn(cpu, 'nr_periods'),
    cpuThrottledPeriods: valueIn(cpu, 'nr_throttled'),
    cpuThrottledNs: valueIn(cpu, 'throttled_usec') * US_TO_NS,
    memoryBytes: Number(current),
    memoryInactiveFileBytes: valueIn(memory, 'inactive_file'),
    memoryAnonBytes: valueIn(memory, 'anon'),
    memoryFileBytes: valueIn(memory, 'file'),
    memoryLimitBytes: Math.min(limit, machineBytes),
    memoryPeakBytes: Number(peak),
    oomKills: valueIn(events, 'oom_kill'),
    pids: Number(pids),
    pidsLimit: pidsMax.trim() === 'max' ? 0 : Number(pidsMax),
    blockReadBytes: sumOf(io, 'rbytes'),
    blockWriteBytes: sumOf(io, 'wbytes'),
    interfaces: parseInterfaces(netDev),
  };
}

/** `eth0: ` and eight counters of what came in, then eight of what went out. */
function parseInterfaces(text: string): InterfaceUsage[] {
  return text.split('\n').flatMap((line) => {
    const [name = '', counters = ''] = line.trim().split(':');
    const numbers = counters.trim().split(/\s+/).map(Number);
    // The two lines of headings have no colon, and there is always a loopback.
    if (numbers.length < INTERFACE_COUNTERS || name === 'lo') return [];
    const [rxBytes = 0, rxPackets = 0, rxErrors = 0, rxDropped = 0] = numbers;
    const [txBytes = 0, txPackets = 0, txErrors = 0, txDropped = 0] = numbers.slice(INTERFACE_COUNTERS / 2);
    return [{ name, rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped }];
  });
}

function valueIn(text: string, key: string): number {
  for (const line of text.split('\n')) {
    const [name, value] = line.split(/\s+/);
    if (name === key) return Number(value);
  }
  return 0;
}

function sumOf(text: string, key: string): number {
  return [...text.matchAll(new RegExp(`\\b${key}=(\\d+)`, 'g'))].reduce(
    (sum, [, value]) => sum + Number(value),
    0,
  );
}
