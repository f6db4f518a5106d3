/** A machine's own disk: a sparse raw ext4 image with the containers' upper directories. */
import { execFile } from 'node:child_process';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { EngineError, messageOf } from '../errors.ts';
import { MACHINE_DISK_BYTES } from '../limits.ts';

const run = promisify(execFile);
/** Not in everybody's PATH on Debian. */
const SBIN_PATH = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`;

/** Makes the disk at `path` when it is not there: aside and renamed, so that half of one is never used. */
export async function ensureMachineDisk(path: string): Promise<void> {
  if (await exists(path)) return;
  const aside = `${path}.new`;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await rm(aside, { force: true });
    {
      await using file = await open(aside, 'wx', 0o600);
      await file.truncate(MACHINE_DISK_BYTES);
    }
    // No reserved blocks: nobody but root writes there. The file is all zeroes, so neither we nor, for hours, the guest's
    // lazy initialisation has to write any.
    await run(
      'mkfs.ext4',
      ['-q', '-F', '-m', '0', '-E', 'assume_storage_prezeroed=1,nodiscard', '-O', '^resize_inode', aside],
      { env: { ...process.env, PATH: SBIN_PATH } },
    );
    await rename(aside, path);
  } catch (error) {
    await rm(aside, { force: true });
    throw new EngineError(
      'ERR_ARCBOX_MACHINE_BOOT',
      `the disk ${path} could not be made: ${messageOf(error)} (mkfs.ext4 is in Debian's e2fsprogs)`,
      { cause: error },
    );
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
