/** `arcbox top`: a container's processes, in the columns of `ps`. */
import type { ContainerProcessJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { align } from '../listing.ts';
import { print } from '../output.ts';

type Column = readonly [heading: string, value: (process: ContainerProcessJson) => string];

const COLUMNS: Readonly<Record<string, Column>> = {
  user: ['USER', ({ user }) => user ?? ''],
  uid: ['UID', ({ user }) => user ?? ''],
  pid: ['PID', ({ pid }) => String(pid ?? 0)],
  ppid: ['PPID', ({ parentPid }) => String(parentPid ?? 0)],
  c: ['C', ({ cpuPercent }) => String(Math.floor(Number(cpuPercent ?? 0)))],
  pcpu: ['%CPU', ({ cpuPercent }) => Number(cpuPercent ?? 0).toFixed(1)],
  rss: ['RSS', ({ memoryBytes }) => String(Math.round(Number(memoryBytes ?? 0) / 1024))],
  stat: ['STAT', ({ state }) => state ?? ''],
  stime: ['STIME', ({ startedMs }) => new Date(Number(startedMs ?? 0)).toTimeString().slice(0, 5)],
  tty: ['TTY', ({ terminal }) => terminal || '?'],
  time: ['TIME', ({ cpuMs }) => clock(Number(cpuMs ?? 0))],
  cmd: ['CMD', ({ command }) => command ?? ''],
  args: ['COMMAND', ({ command }) => command ?? ''],
  comm: ['COMMAND', ({ name }) => name ?? ''],
};
const ALIASES: Readonly<Record<string, string>> = {
  command: 'args',
  tname: 'tty',
  cputime: 'time',
  '%cpu': 'pcpu',
  state: 'stat',
  s: 'stat',
  start: 'stime',
  ucmd: 'comm',
  euser: 'user',
};
const FULL = ['uid', 'pid', 'ppid', 'c', 'stime', 'tty', 'time', 'cmd'];
const BSD = ['user', 'pid', 'pcpu', 'rss', 'tty', 'stat', 'stime', 'time', 'args'];

export async function top(context: Context, id: string, options: readonly string[]): Promise<number> {
  const columns = chooseColumns(options).map((name) => COLUMNS[name] ?? unknown(name));
  const { processes = [] } = await context.daemon.call('ContainerService/Top', { id });
  const lines = [
    columns.map(([heading]) => heading).join('\t'),
    ...processes.map((process) => columns.map(([, value]) => value(process)).join('\t')),
  ];
  for (const line of align(lines)) print(line);
  return 0;
}

/** Throws `CliError` for options of ps that we do not have. */
export function chooseColumns(options: readonly string[]): readonly string[] {
  const text = options.join(' ').trim();
  if (text === '' || /^-(ef|fe|f|eF|elf)$/.test(text)) return FULL;
  if (/^-?(aux|axu|au|u|ux)$/.test(text)) return BSD;
  const list = /^(?:-e\s+|-A\s+)?(?:-e?o|--format)[ =]?(.+)$/.exec(text)?.[1];
  if (list === undefined)
    throw new CliError(
      `the options ${JSON.stringify(text)} are not supported; there are -ef, aux and -o LIST`,
      1,
    );
  return list
    .split(/[ ,]+/)
    .filter((name) => name !== '' && name !== '-o')
    .map((name) => ALIASES[name.toLowerCase()] ?? name.toLowerCase())
    .map((name) => (COLUMNS[name] === undefined ? unknown(name) : name));
}

function unknown(name: string): never {
  const known = [...Object.keys(COLUMNS), ...Object.keys(ALIASES)].sort().join(', ');
  throw new CliError(`there is no column ${JSON.stringify(name)}; there are ${known}`, 1);
}

/** `hh:mm:ss`. */
function clock(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return parts.map((part) => String(part).padStart(2, '0')).join(':');
}
