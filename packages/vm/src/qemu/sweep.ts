/** Run directories whose guardian was killed while no owner was there: nobody else will remove them. */
import fs from 'node:fs';
import path from 'node:path';
import { VmError } from '../errors.ts';
import { machineCgroups, probeCgroups } from './cgroups.ts';
import { connectUnix } from './connect-unix.ts';
import { Lease } from './lease.ts';
import { isCode, LEASE_SOCKET, removeRunDir, runDirNames } from './run-dir.ts';

/** What a directory may hold that is still being set up, in ms: a guardian makes its socket well within that. */
const YOUNG_MS = 10_000;

/**
 * Removes them, and returns their paths. To be called by a program that has just started and holds the lock on the run
 * root. Machines that run are left alone; but with `known`, those in other run directories are ended and removed, too:
 * their owner died between starting them and writing that down, and they may hold disks that are needed.
 */
export async function sweepRunRoot(runRoot: string, known?: readonly string[]): Promise<string[]> {
  const swept: string[] = [];
  const support = probeCgroups();
  for (const name of runDirNames(runRoot)) {
    const runDir = path.join(runRoot, name);
    if (!(await isAbandoned(runDir))) {
      if (known === undefined || known.includes(runDir)) continue;
      if (await endStray(runDir)) swept.push(runDir);
      continue;
    }
    for (const cgroup of machineCgroups(support, runDir, 0, 0).directories) {
      if (fs.existsSync(cgroup)) fs.rmdirSync(cgroup);
    }
    removeRunDir(runDir);
    swept.push(runDir);
  }
  return swept;
}

async function isAbandoned(runDir: string): Promise<boolean> {
  try {
    const socket = await connectUnix(path.join(runDir, LEASE_SOCKET));
    socket.destroy();
    return false;
  } catch (error) {
    if (isCode(error, 'ECONNREFUSED')) return true;
    if (!isCode(error, 'ENOENT')) throw error;
    const stat = fs.statSync(runDir, { throwIfNoEntry: false });
    return stat !== undefined && Date.now() - stat.mtimeMs > YOUNG_MS;
  }
}

/** Has the guardian end its machine and clean up; false when there was none after all. */
async function endStray(runDir: string): Promise<boolean> {
  let lease: Lease;
  try {
    lease = await Lease.connect(path.join(runDir, LEASE_SOCKET));
  } catch (error) {
    if (error instanceof VmError && error.code === 'ERR_ARCBOX_VM_GONE') return false;
    throw error;
  }
  lease.kill();
  await lease.ended;
  return true;
}
