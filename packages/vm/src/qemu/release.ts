/** What is left of a machine whose guardian was killed: the VMM dies by itself, the rest is removed here. */
import fs from 'node:fs';
import { PidFd, processStartTime, SysError } from '@arcbox/sys';
import { VmError } from '../errors.ts';
import type { VmmProcess } from './lease.ts';
import { isCode, removeRunDir } from './run-dir.ts';

const SIGKILL = 9;
const RELEASE_TIMEOUT_MS = 10_000;

/** Resolves when the VMM has ended, and the run directory and the cgroups are gone. */
export async function releaseLost(
  runDir: string,
  cgroups: readonly string[],
  process: VmmProcess | undefined,
): Promise<void> {
  if (process !== undefined) await killAndWait(process);
  removeRunDir(runDir);
  for (const cgroup of cgroups) await removeCgroup(cgroup);
}

async function killAndWait(process: VmmProcess): Promise<void> {
  try {
    using pidfd = PidFd.open(process.pid, process.startTime);
    pidfd.signal(SIGKILL);
  } catch (error) {
    if (error instanceof SysError && error.code === 'ESRCH') return;
    throw error;
  }
  // It is nobody's child that we know of, so there is no event: back off from 1 ms.
  await backOff(`process ${process.pid} to end`, () => !isAlive(process));
}

function isAlive(process: VmmProcess): boolean {
  try {
    if (processStartTime(process.pid) !== process.startTime) return false;
    // A zombie has released everything; whoever inherited it has not looked yet.
    return !/\) [ZX] /.test(fs.readFileSync(`/proc/${process.pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

async function removeCgroup(cgroup: string): Promise<void> {
  // EBUSY until the kernel has taken the last thread of the VMM out.
  await backOff(`the cgroup ${cgroup} to be empty`, () => {
    try {
      fs.rmdirSync(cgroup);
      return true;
    } catch (error) {
      if (isCode(error, 'ENOENT')) return true;
      if (isCode(error, 'EBUSY')) return false;
      throw error;
    }
  });
}

async function backOff(what: string, done: () => boolean): Promise<void> {
  const end = performance.now() + RELEASE_TIMEOUT_MS;
  for (let waitMs = 1; !done(); waitMs = Math.min(waitMs * 2, 100)) {
    if (performance.now() > end) {
      throw new VmError('ERR_ARCBOX_VM_HOST', `Waited ${RELEASE_TIMEOUT_MS} ms for ${what}, in vain`);
    }
    await new Promise<void>((resolve) => setTimeout(resolve, waitMs));
  }
}
