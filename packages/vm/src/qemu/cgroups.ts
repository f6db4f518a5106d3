/**
 * A cgroup for each VMM, below the daemon's own, so that the daemon's limits hold for all together.
 *
 * The guardian makes it, sets the limits, puts the VMM in and removes it. Version 1 has a directory
 * for each controller; version 2 one for all, and only where the controllers are delegated to us.
 * Where neither can be written the machine runs without, and `describe` says why.
 */
import fs from 'node:fs';
import path from 'node:path';
import { reasonOf } from '../errors.ts';
import { VMM_HEADROOM_MIB, VMM_THREADS_MAX } from '../limits.ts';

interface Controller {
  readonly name: string;
  /** The daemon's own cgroup. */
  readonly parent: string;
  readonly memoryFile?: string;
  readonly pidsFile?: string;
}

export interface CgroupSupport {
  readonly controllers: readonly Controller[];
  /** For `arcbox doctor`: what is limited, or why nothing is. */
  readonly detail: string;
}

export interface MachineCgroups {
  readonly directories: readonly string[];
  readonly guardianArgs: readonly string[];
}

const WANTED = ['memory', 'pids'] as const;

/** Looks where machines' cgroups can be made; tries it by making one. */
export function probeCgroups(procSelf = '/proc/self'): CgroupSupport {
  try {
    const lines = fs.readFileSync(path.join(procSelf, 'cgroup'), 'utf8').trim().split('\n');
    const mounts = readMounts(fs.readFileSync(path.join(procSelf, 'mountinfo'), 'utf8'));
    const unified = unifiedController(lines, mounts);
    const controllers = unified === undefined ? legacyControllers(lines, mounts) : [unified];
    if (controllers.length === 0) return none('no cgroup of ours has the memory or pids controller');
    for (const controller of controllers) tryController(controller);
    const names =
      unified === undefined ? controllers.map(({ name }) => name).join(' and ') : 'memory and pids';
    return { controllers, detail: `${names} are limited (cgroup ${unified === undefined ? 'v1' : 'v2'})` };
  } catch (error) {
    return none(reasonOf(error));
  }
}

export function machineCgroups(
  support: CgroupSupport,
  runDir: string,
  memoryMib: number,
  vcpus: number,
): MachineCgroups {
  const directories: string[] = [];
  const guardianArgs: string[] = [];
  const memoryBytes = (memoryMib + VMM_HEADROOM_MIB) * 1024 * 1024;
  for (const { parent, memoryFile, pidsFile } of support.controllers) {
    const directory = path.join(parent, `arcbox-${path.basename(runDir)}`);
    directories.push(directory);
    guardianArgs.push('--cgroup', directory);
    if (memoryFile !== undefined)
      guardianArgs.push('--cgroup-set', `${directory}/${memoryFile}=${memoryBytes}`);
    if (pidsFile !== undefined)
      guardianArgs.push('--cgroup-set', `${directory}/${pidsFile}=${VMM_THREADS_MAX + vcpus}`);
  }
  return { directories, guardianArgs };
}

interface Mount {
  readonly point: string;
  readonly root: string;
  readonly type: string;
  readonly options: readonly string[];
}

function readMounts(text: string): Mount[] {
  return text.split('\n').flatMap((line) => {
    const [before, after] = line.split(' - ');
    const [, , , root, point] = before?.split(' ') ?? [];
    const [type, , options] = after?.split(' ') ?? [];
    if (root === undefined || point === undefined || type === undefined || options === undefined) return [];
    return [{ point, root, type, options: options.split(',') }];
  });
}

function unifiedController(lines: readonly string[], mounts: readonly Mount[]): Controller | undefined {
  const own = lines.find((line) => line.startsWith('0::'))?.slice(3);
  const mount = mounts.find(({ type }) => type === 'cgroup2');
  if (own === undefined || mount === undefined) return undefined;
  const parent = path.join(mount.point, path.relative(mount.root, own));
  const available = fs.readFileSync(path.join(parent, 'cgroup.controllers'), 'utf8').trim().split(' ');
  if (!WANTED.every((name) => available.includes(name))) return undefined;
  // Refused (EBUSY) where processes live in the cgroup itself and it is not the root: not delegated.
  fs.writeFileSync(path.join(parent, 'cgroup.subtree_control'), WANTED.map((name) => `+${name}`).join(' '));
  return { name: 'unified', parent, memoryFile: 'memory.max', pidsFile: 'pids.max' };
}

function legacyControllers(lines: readonly string[], mounts: readonly Mount[]): Controller[] {
  return WANTED.flatMap((name) => {
    const own = lines
      .map((line) => line.split(':'))
      .find(([, controllers]) => controllers?.split(',').includes(name))?.[2];
    const mount = mounts.find(({ type, options }) => type === 'cgroup' && options.includes(name));
    if (own === undefined || mount === undefined) return [];
    const parent = path.join(mount.point, path.relative(mount.root, own));
    const file = name === 'memory' ? { memoryFile: 'memory.limit_in_bytes' } : { pidsFile: 'pids.max' };
    return [{ name, parent, ...file }];
  });
}

function tryController({ parent }: Controller): void {
  const directory = path.join(parent, `arcbox-probe-${process.pid}`);
  fs.mkdirSync(directory);
  fs.rmdirSync(directory);
}

function none(reason: string): CgroupSupport {
  return { controllers: [], detail: `machines run without a cgroup: ${reason}` };
}
