/** What every driver refuses, in the same words. */
import type { DiskConfig, HotDisk, VmConfig, VmState } from './contract.ts';
import { VmError } from './errors.ts';

export function gone(name: string): VmError {
  return new VmError('ERR_ARCBOX_VM_GONE', `The machine ${name} does not run any more`);
}

/** @throws {VmError} `ERR_ARCBOX_VM_GONE`. */
export function mustLive(name: string, state: VmState): void {
  if (state === 'stopped') throw gone(name);
}

/** @throws {VmError} `ERR_ARCBOX_VM_GONE`, `ERR_ARCBOX_VM_STATE`. */
export function mustBe(name: string, state: VmState, wanted: VmState): void {
  mustLive(name, state);
  if (state === wanted) return;
  throw new VmError('ERR_ARCBOX_VM_STATE', `The machine ${name} is ${state}, not ${wanted}`);
}

/** @throws {VmError} `ERR_ARCBOX_VM_STATE` unless the machine may go on without its owner. */
export function mustBeAdoptable({ name, lifetime }: VmConfig): void {
  if (lifetime.kind === 'adoptable') return;
  throw new VmError(
    'ERR_ARCBOX_VM_STATE',
    `The machine ${name} is ephemeral; it cannot go on without its owner`,
  );
}

/** @throws {VmError} `ERR_ARCBOX_VM_CONFIG`. */
export function mustHaveNic({ name, nics }: VmConfig, index: number): void {
  if (nics[index] !== undefined) return;
  throw new VmError('ERR_ARCBOX_VM_CONFIG', `The machine ${name} has no network card ${index}`);
}

/** @throws {VmError} `ERR_ARCBOX_VM_DISK` when the machine has a disk of that id. */
export function mustBeNewDisk(
  { name, disks }: VmConfig,
  hotDisks: readonly HotDisk[],
  disk: DiskConfig,
): void {
  if (![...disks, ...hotDisks].some(({ id }) => id === disk.id)) return;
  throw new VmError('ERR_ARCBOX_VM_DISK', `The machine ${name} has a disk ${disk.id} already`);
}

/** @throws {VmError} `ERR_ARCBOX_VM_DISK` when there is none of that id. */
export function mustHaveHotDisk({ name }: VmConfig, hotDisks: readonly HotDisk[], id: string): HotDisk {
  const disk = hotDisks.find((hotDisk) => hotDisk.id === id);
  if (disk !== undefined) return disk;
  throw new VmError('ERR_ARCBOX_VM_DISK', `The machine ${name} has no hot-plugged disk ${id}`);
}
