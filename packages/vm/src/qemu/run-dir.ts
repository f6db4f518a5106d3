/** A machine's run directory: `<run root>/<8 hex>/`, flat, removed by the machine's guardian. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { VmError } from '../errors.ts';
import { SOCKET_PATH_BYTES_MAX, VM_UID_COUNT, VM_UID_FIRST } from '../limits.ts';

export const LEASE_SOCKET = 'lease.sock';
export const QMP_SOCKET = 'qmp.sock';
export const AGENT_SOCKET = 'agent.sock';
export const VMM_LOG = 'vmm.log';
export const CONSOLE_LOG = 'console.log';
const NAME_PATTERN = /^[0-9a-f]{8}$/;
const ATTEMPTS_MAX = 100;

export function nicSocket(index: number): string {
  return `nic${index}.sock`;
}

/**
 * Makes one, mode 0700. Its name's end is its machine's own among those in the root, so that `vmUid` is.
 *
 * @throws {VmError} `ERR_ARCBOX_VM_CONFIG` when sockets in it would have too long a path, `ERR_ARCBOX_VM_HOST`.
 */
export function makeRunDir(runRoot: string): string {
  const longest = path.join(runRoot, 'ffffffff', LEASE_SOCKET);
  if (Buffer.byteLength(longest) > SOCKET_PATH_BYTES_MAX) {
    throw new VmError(
      'ERR_ARCBOX_VM_CONFIG',
      `The run directory ${runRoot} is too long a path for sockets (${SOCKET_PATH_BYTES_MAX} bytes); choose a shorter one`,
    );
  }
  const taken = new Set(runDirNames(runRoot).map((name) => name.slice(4)));
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const name = randomBytes(4).toString('hex');
    if (taken.has(name.slice(4))) continue;
    const dir = path.join(runRoot, name);
    try {
      fs.mkdirSync(dir, { mode: 0o700 });
      return dir;
    } catch (cause) {
      if (isCode(cause, 'EEXIST')) continue;
      throw new VmError('ERR_ARCBOX_VM_HOST', `Cannot make a run directory in ${runRoot}`, { cause });
    }
  }
  throw new VmError('ERR_ARCBOX_VM_HOST', `There is no free name for a run directory in ${runRoot}`);
}

/** The user that the machine runs under when we are root. */
export function vmUid(runDir: string): number {
  return VM_UID_FIRST + (Number.parseInt(path.basename(runDir).slice(4), 16) % VM_UID_COUNT);
}

/** Run directories in the root. */
export function runDirNames(runRoot: string): string[] {
  try {
    return fs.readdirSync(runRoot).filter((name) => NAME_PATTERN.test(name));
  } catch (cause) {
    throw new VmError('ERR_ARCBOX_VM_HOST', `Cannot read the run directory ${runRoot}`, { cause });
  }
}

/** Removes a run directory whose guardian did not; there is nothing to say when it is gone. */
export function removeRunDir(runDir: string): void {
  fs.rmSync(runDir, { recursive: true, force: true });
}

export function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
