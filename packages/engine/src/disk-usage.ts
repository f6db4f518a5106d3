/** What everything takes on the host's disk, and what of it could be had back. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { ImageStore } from '@arcbox/image';
import type { ContainerManager } from './container/container-manager.ts';
import type { HostLayout } from './host-layout.ts';
import type { VolumeManager } from './volume/volume-manager.ts';

const BLOCK_BYTES = 512;

export interface UsageRow {
  readonly count: number;
  /** In use: of running containers, or by any. */
  readonly active: number;
  readonly bytes: number;
  readonly reclaimableBytes: number;
}

export interface DiskUsage {
  readonly images: UsageRow;
  /** Their logs; what they wrote is on the machines' disks. */
  readonly containers: UsageRow;
  readonly volumes: UsageRow;
  readonly machines: UsageRow;
}

export async function diskUsage(parts: {
  readonly layout: HostLayout;
  readonly images: ImageStore;
  readonly containers: ContainerManager;
  readonly volumes: VolumeManager;
  readonly machines: readonly { readonly name: string; readonly state: string }[];
}): Promise<DiskUsage> {
  const { layout, containers, volumes, machines } = parts;
  const records = containers.list();
  const usedImages = new Set(records.map(({ imageId }) => imageId));
  const images = (await parts.images.list()).map((image) => ({
    bytes: image.layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    active: usedImages.has(image.id),
  }));
  const logs = await Promise.all(
    records.map(async ({ id, state }) => ({
      bytes: await bytesOf(layout.containerLog(id)),
      active: state !== 'created' && state !== 'exited',
    })),
  );
  const disks = await Promise.all(
    volumes.list().map(async (record) => {
      const { usedBytes, containers: users } = await volumes.usage(record);
      return { bytes: usedBytes, active: users > 0 };
    }),
  );
  const machineDisks = await Promise.all(
    machines.map(async ({ name, state }) => ({
      bytes: await bytesOf(layout.machineDisk(name)),
      active: state === 'running',
    })),
  );
  const own = row(machineDisks);
  return {
    images: row(images),
    containers: row(logs),
    volumes: row(disks),
    // A machine's disk is not given back by pruning.
    machines: { ...own, reclaimableBytes: 0 },
  };
}

function row(entries: readonly { readonly bytes: number; readonly active: boolean }[]): UsageRow {
  const sum = (of: readonly { readonly bytes: number }[]): number =>
    of.reduce((total, { bytes }) => total + bytes, 0);
  const active = entries.filter((entry) => entry.active);
  return {
    count: entries.length,
    active: active.length,
    bytes: sum(entries),
    reclaimableBytes: sum(entries) - sum(active),
  };
}

/** What a file, or the files of a directory, take; 0 when there is none. */
async function bytesOf(path: string): Promise<number> {
  try {
    const found = await stat(path);
    if (!found.isDirectory()) return found.blocks * BLOCK_BYTES;
    const names = await readdir(path);
    const sizes = await Promise.all(names.map((name) => bytesOf(join(path, name))));
    return sizes.reduce((total, bytes) => total + bytes, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
    throw error;
  }
}
