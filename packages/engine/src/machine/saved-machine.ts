/**
 * A machine that has idled down: its devices' state and its memory as files on tmpfs, and the record in the store that
 * says they are whole.
 *
 * The record decides. It is written when both files are complete and the guest is paused, in the same transaction that
 * forgets the running machine, and it is removed before the guest runs again. So files without a record are left-overs
 * of a crash, and a record always means a guest that stands exactly where its disk stands. Whatever else is wrong (the
 * host was booted again, a file was touched, the boot assets or the configuration are others) is found by `checkSaved`,
 * and then the machine boots: its disk was synced, and its journal is replayed.
 */
import { lstat, mkdir, readFile, rm, rmdir, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { faultPoint } from '@arcbox/sys';
import type { RunningVm, Snapshot } from '@arcbox/vm';
import type { BootAssets } from '../boot-assets.ts';
import { EngineError } from '../errors.ts';
import { IDLE_SPARE_BYTES } from '../limits.ts';
import type { GuestLinks } from '../network/guest-network.ts';
import type { MachineSize } from './machine-record.ts';

/** What tells a file from any other, and from itself after a change. */
interface FileMark {
  readonly ino: number;
  readonly sizeBytes: number;
  readonly mtimeMs: number;
}

/** What the guest has, so that nobody need ask when it goes on. */
export interface SavedGuest {
  /** Mount points. */
  readonly mounts: readonly string[];
  readonly links: GuestLinks;
}

export interface SavedMachine {
  readonly snapshot: Snapshot;
  readonly guest: SavedGuest;
  /** A host that was booted since has other files, if any. */
  readonly hostBootId: string;
  readonly assetsHash: string;
  readonly state: FileMark;
  readonly memory: FileMark;
  /** What the memory file takes on tmpfs. */
  readonly memoryBytes: number;
  readonly savedMs: number;
}

/** Writes both files into `directory`, which is emptied first. The machine must be paused, and stays so. */
export async function saveMachine(
  vm: RunningVm,
  guest: SavedGuest,
  directory: string,
  assets: BootAssets,
): Promise<SavedMachine> {
  await discardSaved(directory);
  await prepareDirectory(directory);
  const { guestRamPssBytes } = await vm.inspect();
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize < guestRamPssBytes + IDLE_SPARE_BYTES) {
    throw new EngineError(
      'ERR_ARCBOX_NO_SPACE',
      `${directory} has no room for the ${Math.ceil(guestRamPssBytes / 1024 ** 2)} MiB of an idle machine; enlarge that tmpfs`,
    );
  }
  faultPoint('idle.save');
  const snapshot = await vm.snapshot(directory);
  const memory = await stat(snapshot.memoryPath);
  return {
    snapshot,
    guest,
    hostBootId: await hostBootId(),
    assetsHash: assets.hash,
    state: markOf(await stat(snapshot.statePath)),
    memory: markOf(memory),
    memoryBytes: memory.blocks * 512,
    savedMs: Date.now(),
  };
}

/** Why a saved machine cannot go on; undefined when it can. */
export async function checkSaved(
  saved: SavedMachine,
  assets: BootAssets,
  size: MachineSize,
): Promise<string | undefined> {
  const { snapshot } = saved;
  if (saved.hostBootId !== (await hostBootId())) return 'the host was booted since';
  if (saved.assetsHash !== assets.hash) return 'the boot assets are others';
  if (snapshot.config.vcpus !== size.cpus || snapshot.config.memoryMib !== size.memoryMib)
    return 'the configuration of the machine has changed';
  for (const [path, mark] of [
    [snapshot.statePath, saved.state],
    [snapshot.memoryPath, saved.memory],
  ] as const) {
    const found = await stat(path).then(markOf, () => undefined);
    if (found === undefined) return `${path} is gone`;
    if (found.ino !== mark.ino || found.sizeBytes !== mark.sizeBytes || found.mtimeMs !== mark.mtimeMs)
      return `${path} is not as it was left`;
  }
  return undefined;
}

/** Gives the memory back; there may be none. */
export async function discardSaved(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true });
  // Other machines may still have theirs beside it.
  await rmdir(dirname(directory)).catch(() => {});
}

/** Below a directory that everybody may write to: it has to be ours, and nobody else's to look into. */
async function prepareDirectory(directory: string): Promise<void> {
  const parent = dirname(directory);
  try {
    await mkdir(parent, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  const found = await lstat(parent);
  if (!found.isDirectory() || found.uid !== process.getuid?.() || (found.mode & 0o077) !== 0) {
    throw new EngineError(
      'ERR_ARCBOX_CONFIG',
      `${parent} is not a directory of our own; remove it, idle machines are kept there`,
    );
  }
  await mkdir(directory, { recursive: true, mode: 0o700 });
}

function markOf(file: { ino: number; size: number; mtimeMs: number }): FileMark {
  return { ino: file.ino, sizeBytes: file.size, mtimeMs: file.mtimeMs };
}

async function hostBootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'latin1')).trim();
}
