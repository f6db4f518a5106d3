/**
 * A snapshot: the devices' state, which QEMU writes, and the guest's memory, which it does not.
 *
 * Memory never travels through QEMU's migration stream. A template's memory is its file already. A
 * machine with a memfd is paused while the file's data is copied. A clone's memory is the file it
 * maps privately, copied before the pause, with the pages that it has written since (those that the
 * kernel calls anonymous in /proc/PID/pagemap) read out of the process over it. So a snapshot of
 * any kind ends as the same two files, and a clone of any of them starts the same way: map the
 * memory, load a few tens of KiB. (The other way for a clone, a background snapshot, needs the
 * right to userfaultfd, which the VMM's own user has not.)
 *
 * The state is written by `xen-save-devices-state`, which has nothing of Xen in it: it is QEMU's
 * device state without RAM, and it records the machine as running, so that a clone runs as soon as
 * it has loaded, without a word over the monitor.
 */
import fs from 'node:fs';
import path from 'node:path';
import { copySparse } from '@arcbox/sys';
import type { HotDisk, Snapshot, VmHandle } from '../contract.ts';
import { reasonOf, VmError } from '../errors.ts';
import type { FaultHook } from '../faults.ts';
import type { QmpClient } from '../qmp.ts';
import { OpenFiles } from './files.ts';
import { copyPrivatePages } from './private-pages.ts';

export interface SnapshotInput {
  readonly qmp: QmpClient;
  readonly handle: VmHandle;
  readonly hotDisks: readonly HotDisk[];
  readonly paused: boolean;
  readonly directory: string;
  readonly fault: FaultHook;
}

const STATE_FILE = 'state';
const MEMORY_FILE = 'memory';
const SAVE_TIMEOUT_MS = 60_000;
/** By the name that QEMU's memory-backend-memfd gives. */
const OWN_MEMFD = '/memfd:memory-backend-memfd';

/** @throws {VmError} `ERR_ARCBOX_VM_SNAPSHOT`; then its files are gone and the machine is as it was. */
export async function writeSnapshot(input: SnapshotInput): Promise<Snapshot> {
  const { qmp, handle, directory, fault } = input;
  const { privateMemoryPath } = handle;
  const statePath = path.join(directory, STATE_FILE);
  const isTemplate =
    privateMemoryPath === undefined &&
    handle.takenMemoryPath === undefined &&
    handle.config.memory.kind === 'template';
  const memoryPath =
    isTemplate && handle.config.memory.kind === 'template'
      ? handle.config.memory.path
      : path.join(directory, MEMORY_FILE);
  await using undo = new AsyncDisposableStack();
  using files = new OpenFiles();
  const { O_RDONLY, O_RDWR, O_WRONLY, O_CREAT, O_EXCL } = fs.constants;
  try {
    // QEMU takes a descriptor from a set only when its access mode is the wanted one.
    const stateFd = files.open('The device state', statePath, O_WRONLY | O_CREAT | O_EXCL);
    undo.defer(() => fs.rmSync(statePath, { force: true }));
    let memoryFd = -1;
    if (!isTemplate) {
      memoryFd = files.open('The memory', memoryPath, O_RDWR | O_CREAT | O_EXCL);
      undo.defer(() => fs.rmSync(memoryPath, { force: true }));
      fs.ftruncateSync(memoryFd, handle.config.memoryMib * 1024 * 1024);
    }
    if (privateMemoryPath !== undefined) {
      // Nobody writes to it, so this need not be inside the pause.
      await copySparse(files.open('The memory', privateMemoryPath, O_RDONLY), memoryFd);
    }
    if (!input.paused) {
      await qmp.execute('stop');
      undo.defer(async () => void (await qmp.execute('cont')));
    }
    await fault('snapshot:paused');
    await saveDevices(qmp, stateFd);
    await fault('snapshot:state');
    if (privateMemoryPath !== undefined) {
      await copyPrivatePages(handle.pid, privateMemoryPath, memoryFd);
    } else if (!isTemplate) {
      await copySparse(openOwnMemory(files, handle), memoryFd);
    }
    await fault('snapshot:memory');
    if (!input.paused && !isTemplate) await qmp.execute('cont');
    undo.move();
  } catch (cause) {
    throw new VmError(
      'ERR_ARCBOX_VM_SNAPSHOT',
      `The machine ${handle.config.name} could not be snapshotted: ${reasonOf(cause)}`,
      { cause },
    );
  }
  const { driver, config, agentSecret, accelerator } = handle;
  return { driver, statePath, memoryPath, config, hotDisks: input.hotDisks, agentSecret, accelerator };
}

async function saveDevices(qmp: QmpClient, stateFd: number): Promise<void> {
  const { 'fdset-id': fdset } = await qmp.execute('add-fd', {}, { fds: [stateFd] });
  try {
    await qmp.execute(
      'xen-save-devices-state',
      { filename: `/dev/fdset/${String(fdset)}`, live: false },
      { timeoutMs: SAVE_TIMEOUT_MS },
    );
  } finally {
    await qmp.execute('remove-fd', { 'fdset-id': fdset });
  }
}

/** The memory that belongs to one machine alone and has no name: the memfd that QEMU made, or what it took over. */
function openOwnMemory(files: OpenFiles, { pid, takenMemoryPath }: VmHandle): number {
  const target = takenMemoryPath === undefined ? OWN_MEMFD : `${takenMemoryPath} (deleted)`;
  const dir = `/proc/${pid}/fd`;
  for (const name of fs.readdirSync(dir)) {
    const link = path.join(dir, name);
    if (fs.readlinkSync(link).startsWith(target)) {
      return files.open("The guest's memory", link, fs.constants.O_RDONLY);
    }
  }
  throw new VmError('ERR_ARCBOX_VM_SNAPSHOT', `Process ${pid} has no memory file`);
}
