/** Disks that come and go on the virtio-scsi controller. */
import type { DiskConfig, HotDisk } from '../contract.ts';
import { reasonOf, VmError } from '../errors.ts';
import type { FaultHook } from '../faults.ts';
import { HOT_DISKS_MAX } from '../limits.ts';
import { type QmpClient, QmpError } from '../qmp.ts';
import { validateDisk } from '../validate.ts';
import { blockNode, diskDevice, diskNode, opaqueOf, scsiDisk } from './command-line.ts';
import { OpenFiles } from './files.ts';

/** @throws {VmError} `ERR_ARCBOX_VM_CONFIG`, `ERR_ARCBOX_VM_DISK`; then the disk is not attached in any part. */
export async function attachHotDisk(
  qmp: QmpClient,
  disk: DiskConfig,
  others: readonly HotDisk[],
  fault: FaultHook,
): Promise<HotDisk> {
  validateDisk(disk);
  const hotDisk: HotDisk = { ...disk, lun: freeLun(others) };
  await using undo = new AsyncDisposableStack();
  using files = new OpenFiles();
  const fd = files.openDisk(disk);
  try {
    await fault('attach:open');
    const { 'fdset-id': fdset } = await qmp.execute('add-fd', { opaque: opaqueOf(hotDisk) }, { fds: [fd] });
    if (typeof fdset !== 'number')
      throw new VmError('ERR_ARCBOX_VM_MONITOR', 'QEMU gave no fd set for a disk');
    // QEMU keeps its own copy for as long as the block node is open; the set goes with it then.
    undo.defer(() => removeFdset(qmp, fdset));
    await fault('attach:node');
    await qmp.execute('blockdev-add', blockNode(disk, fdset));
    undo.defer(async () => void (await qmp.execute('blockdev-del', { 'node-name': diskNode(disk.id) })));
    await fault('attach:device');
    await qmp.execute('device_add', scsiDisk(hotDisk));
  } catch (cause) {
    throw new VmError('ERR_ARCBOX_VM_DISK', `The disk ${disk.id} could not be attached: ${reasonOf(cause)}`, {
      cause,
    });
  }
  undo.move();
  return hotDisk;
}

/** @throws {VmError} `ERR_ARCBOX_VM_DISK`. */
export async function detachHotDisk(qmp: QmpClient, disk: HotDisk): Promise<void> {
  const device = diskDevice(disk.id);
  try {
    const deleted = qmp.waitForEvent(
      (event) => event.name === 'DEVICE_DELETED' && event.data.device === device,
      `the disk ${disk.id} was detached`,
    );
    await Promise.all([deleted, qmp.execute('device_del', { id: device })]);
    await qmp.execute('blockdev-del', { 'node-name': diskNode(disk.id) });
    await removeFdsetOf(qmp, disk.id);
  } catch (cause) {
    throw new VmError('ERR_ARCBOX_VM_DISK', `The disk ${disk.id} could not be detached: ${reasonOf(cause)}`, {
      cause,
    });
  }
}

async function removeFdset(qmp: QmpClient, fdset: number): Promise<void> {
  await qmp.execute('remove-fd', { 'fdset-id': fdset });
}

/**
 * The hot-plugged disks of a machine that another process started. A disk that it was in the middle of attaching or
 * detaching is taken away.
 */
export async function findHotDisks(qmp: QmpClient): Promise<HotDisk[]> {
  const { value: devices } = await qmp.execute('qom-list', { path: '/machine/peripheral' });
  const present = new Set(
    Array.isArray(devices) ? devices.map((device: { name?: unknown }) => device.name) : [],
  );
  const found: HotDisk[] = [];
  for (const { fdset, disk } of await listFdsets(qmp)) {
    if (present.has(diskDevice(disk.id))) {
      found.push(disk);
      continue;
    }
    await qmp.execute('blockdev-del', { 'node-name': diskNode(disk.id) }).catch(ignoreRefusal);
    await removeFdset(qmp, fdset).catch(ignoreRefusal);
  }
  return found;
}

async function removeFdsetOf(qmp: QmpClient, id: string): Promise<void> {
  for (const { fdset, disk } of await listFdsets(qmp)) {
    if (disk.id === id) await removeFdset(qmp, fdset);
  }
}

async function listFdsets(qmp: QmpClient): Promise<{ fdset: number; disk: HotDisk }[]> {
  const { value } = await qmp.execute('query-fdsets');
  const sets: { 'fdset-id': number; fds?: { opaque?: unknown }[] }[] = Array.isArray(value) ? value : [];
  return sets.flatMap((set) => {
    const opaque = set.fds?.[0]?.opaque;
    // A boot disk's set has none.
    if (typeof opaque !== 'string') return [];
    const disk: HotDisk = JSON.parse(opaque);
    return [{ fdset: set['fdset-id'], disk }];
  });
}

/** QEMU says that there is no such node or set: then it is gone as it should be. */
function ignoreRefusal(error: unknown): void {
  if (!(error instanceof QmpError)) throw error;
}

function freeLun(disks: readonly HotDisk[]): number {
  const taken = new Set(disks.map((disk) => disk.lun));
  for (let lun = 0; lun < HOT_DISKS_MAX; lun++) if (!taken.has(lun)) return lun;
  throw new VmError(
    'ERR_ARCBOX_VM_DISK',
    `A machine has at most ${HOT_DISKS_MAX} hot-plugged disks; detach one first`,
  );
}
