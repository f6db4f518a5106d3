/** Run directories whose guardian was killed while no owner was there: nobody else will remove them. */
import fs from 'node:fs';
import path from 'node:path';
import { machineCgroups, probeCgroups } from './cgroups.ts';
import { connectUnix } from './connect-unix.ts';
import { isCode, LEASE_SOCKET, removeRunDir, runDirNames } from './run-dir.ts';

/** What a directory may hold that is still being set up, in ms: a guardian makes its socket well within that. */
const YOUNG_MS = 10_000;

/**
 * Removes them, and returns their paths. Machines that run, adoptable or owned, are left alone. To be called by a
 * program that has just started and holds the lock on the run root.
 */
export async function sweepRunRoot(runRoot: string): Promise<string[]> {
  const swept: string[] = [];
  const support = probeCgroups();
  for (const name of runDirNames(runRoot)) {
    const runDir = path.join(runRoot, name);
    if (!(await isAbandoned(runDir))) continue;
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
