/** A machine's own disk, with the containers' upper directories. */
import { stat } from 'node:fs/promises';
import { makeDiskImage } from '../disk-image.ts';
import { EngineError, messageOf } from '../errors.ts';

/** Makes the disk at `path` when it is not there. Throws `ERR_ARCBOX_MACHINE_BOOT`. */
export async function ensureMachineDisk(path: string, bytes: number): Promise<void> {
  if (await exists(path)) return;
  try {
    await makeDiskImage(path, bytes);
  } catch (error) {
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
