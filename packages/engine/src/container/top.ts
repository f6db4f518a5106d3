/** The processes of a container, as the machine's /proc has them. */
import { AgentOpError } from '@arcbox/protocol';
import { TOP_PROCESSES_MAX } from '../limits.ts';
import type { AgentSession } from '../machine/agent-session.ts';
import { CGROUP_ROOT, containerPaths } from '../machine/guest-layout.ts';

const TICKS_PER_S = 100;
const S_TO_MS = 1000;
const DT_DIR = 4;
const CGROUP_DEPTH_MAX = 8;
/** Of the fields after the name in /proc/PID/stat, from its own documentation in proc(5). */
const STAT = { state: 0, parent: 1, terminal: 4, userTicks: 11, systemTicks: 12, startTicks: 19 };
const PTS_MAJOR_MIN = 136;
const PTS_MAJOR_MAX = 143;

export interface ProcessInfo {
  /** In the machine. */
  readonly pid: number;
  readonly parentPid: number;
  readonly uid: number;
  /** Empty: none. */
  readonly terminal: string;
  readonly startedMs: number;
  readonly cpuMs: number;
  /** Of all the time since it began, in percent. */
  readonly cpuPercent: number;
  readonly memoryBytes: number;
  readonly state: string;
  readonly command: string;
  readonly name: string;
}

/** In the order of their pids. Those that end while we look are left out. */
export async function containerProcesses(agent: AgentSession, containerId: string): Promise<ProcessInfo[]> {
  const root = CGROUP_ROOT + containerPaths(containerId).cgroup;
  const pids = (await pidsBelow(agent, root, 0)).sort((a, b) => a - b).slice(0, TOP_PROCESSES_MAX);
  const [uptimeText = '', statText = ''] = await Promise.all([
    readText(agent, '/proc/uptime'),
    readText(agent, '/proc/stat'),
  ]);
  const uptimeS = Number(uptimeText?.split(' ')[0]);
  const bootS = Number(/^btime (\d+)$/m.exec(statText ?? '')?.[1]);
  const found = await Promise.all(pids.map((pid) => processInfo(agent, pid, uptimeS, bootS)));
  return found.filter((info) => info !== undefined);
}

/** What `/proc/PID/stat`, `status` and `cmdline` say. Exported for its test. */
export function parseProcess(
  pid: number,
  { stat, status, commandLine }: { stat: string; status: string; commandLine: string },
  { uptimeS, bootS }: { uptimeS: number; bootS: number },
): ProcessInfo {
  // The name between the parentheses can hold anything, parentheses too.
  const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const number = (index: number): number => Number(fields[index] ?? 0);
  const cpuMs = ((number(STAT.userTicks) + number(STAT.systemTicks)) / TICKS_PER_S) * S_TO_MS;
  const startS = number(STAT.startTicks) / TICKS_PER_S;
  const lifeS = Math.max(uptimeS - startS, 1 / TICKS_PER_S);
  const command = commandLine.split('\0').join(' ').trim();
  return {
    pid,
    parentPid: number(STAT.parent),
    uid: Number(/^Uid:\s+\d+\s+(\d+)/m.exec(status)?.[1] ?? 0),
    terminal: terminalName(number(STAT.terminal)),
    startedMs: Math.round((bootS + startS) * S_TO_MS),
    cpuMs,
    cpuPercent: (cpuMs / S_TO_MS / lifeS) * 100,
    memoryBytes: Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024,
    state: fields[STAT.state] ?? '?',
    command: command === '' ? `[${name}]` : command,
    name,
  };
}

async function pidsBelow(agent: AgentSession, cgroup: string, depth: number): Promise<number[]> {
  const text = (await readText(agent, `${cgroup}/cgroup.procs`)) ?? '';
  const pids = text
    .split('\n')
    .filter((line) => line !== '')
    .map(Number);
  if (depth >= CGROUP_DEPTH_MAX) return pids;
  const children = (await entriesOf(agent, cgroup)).filter(({ type }) => type === DT_DIR);
  const below = await Promise.all(
    children.map(({ name }) => pidsBelow(agent, `${cgroup}/${name}`, depth + 1)),
  );
  return [...pids, ...below.flat()];
}

/** None when it is gone. */
async function entriesOf(agent: AgentSession, path: string): Promise<{ name: string; type: number }[]> {
  try {
    const [listed] = await agent.batch([{ case: 'list', value: { path } }]);
    return listed?.result.case === 'list' ? listed.result.value.entries : [];
  } catch (error) {
    if (error instanceof AgentOpError && error.errnoName === 'ENOENT') return [];
    throw error;
  }
}

async function processInfo(
  agent: AgentSession,
  pid: number,
  uptimeS: number,
  bootS: number,
): Promise<ProcessInfo | undefined> {
  const [stat, status, commandLine] = await Promise.all(
    ['stat', 'status', 'cmdline'].map((file) => readText(agent, `/proc/${pid}/${file}`)),
  );
  if (stat === undefined || status === undefined || commandLine === undefined) return undefined;
  return parseProcess(pid, { stat, status, commandLine }, { uptimeS, bootS });
}

function terminalName(device: number): string {
  const major = (device >> 8) & 0xfff;
  const minor = (device & 0xff) | ((device >> 12) & 0xfff00);
  if (major >= PTS_MAJOR_MIN && major <= PTS_MAJOR_MAX) return `pts/${(major - PTS_MAJOR_MIN) * 256 + minor}`;
  return device === 0 ? '' : `${major}:${minor}`;
}

/** Undefined when it is gone. */
async function readText(agent: AgentSession, path: string): Promise<string | undefined> {
  try {
    const [result] = await agent.batch([{ case: 'read', value: { path, limit: 256 * 1024 } }]);
    return result?.result.case === 'data' ? Buffer.from(result.result.value.data).toString('utf8') : '';
  } catch (error) {
    if (error instanceof AgentOpError && ['ENOENT', 'ESRCH', 'ENODEV'].includes(error.errnoName))
      return undefined;
    throw error;
  }
}
