/**
 * Volumes: one sparse disk each, at `volumes/<name>/disk.raw`, which a machine has attached while containers use it, and
 * for as long afterwards as nothing else wants its place.
 *
 * A record is written before the disk is made and marked when it is there; one that was not marked is made when it is
 * needed. A removal marks the record first, so that a daemon that dies in the middle goes on with it.
 */
import { randomBytes } from 'node:crypto';
import { rm, stat } from 'node:fs/promises';
import { faultPoint } from '@arcbox/sys';
import type { ContainerRecord } from '../container/container-record.ts';
import { makeDiskImage } from '../disk-image.ts';
import { EngineError, messageOf } from '../errors.ts';
import type { EventLog } from '../events/event-log.ts';
import type { HostLayout } from '../host-layout.ts';
import {
  VOLUME_BYTES,
  VOLUME_BYTES_MAX,
  VOLUME_BYTES_MIN,
  VOLUMES_MAX,
  VOLUMES_UNUSED_MAX,
} from '../limits.ts';
import type { Logger } from '../logger.ts';
import { containerPaths, volumeStaging } from '../machine/guest-layout.ts';
import type { UpMachine } from '../machine/machine.ts';
import { Mutex } from '../mutex.ts';
import type { Room } from '../room.ts';
import { formatSize } from '../size.ts';
import type { Store } from '../state/store.ts';
import { copyUp, copyUpWhole, isEmpty } from './copy-up.ts';
import { checkVolumeName, ociMounts, type VolumeMount } from './mounts.ts';
import type { VolumeRecord } from './volume-record.ts';

export interface VolumeEnvironment {
  readonly store: Store;
  readonly layout: HostLayout;
  readonly logger: Logger;
  readonly events: EventLog;
  readonly room: Room;
  /** Containers, in any state, that mount it. */
  usersOf(name: string): readonly ContainerRecord[];
}

export interface CreateVolume {
  /** Empty: one is made up. */
  readonly name?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly sizeBytes?: number;
}

export interface VolumeUsage {
  /** What its disk takes on the host. */
  readonly usedBytes: number;
  readonly containers: number;
}

/** Of containers that have their volumes, or are about to. */
const USING: ReadonlySet<string> = new Set(['starting', 'running', 'paused']);

export class VolumeManager {
  readonly #environment: VolumeEnvironment;
  readonly #volumes = new Map<string, VolumeRecord>();
  /** Containers that have it mounted now, and their machines. */
  readonly #users = new Map<number, Map<string, string>>();
  readonly #locks = new Map<string, Mutex>();
  /** Machines that have come up, by name; some may have gone since. */
  readonly #machines = new Map<string, UpMachine>();
  #released = Promise.withResolvers<void>();

  constructor(environment: VolumeEnvironment) {
    this.#environment = environment;
    for (const record of environment.store.volumes()) this.#volumes.set(record.name, record);
  }

  list(): VolumeRecord[] {
    return [...this.#volumes.values()].filter(({ state }) => state !== 'removing');
  }

  /** Throws `ERR_ARCBOX_VOLUME_NOT_FOUND`. */
  find(name: string): VolumeRecord {
    const record = this.#volumes.get(name);
    if (record !== undefined && record.state !== 'removing') return record;
    throw new EngineError('ERR_ARCBOX_VOLUME_NOT_FOUND', `no such volume: ${name}`);
  }

  async usage(record: VolumeRecord): Promise<VolumeUsage> {
    const path = this.#environment.layout.volumeDisk(record.name);
    const blocks = await stat(path).then(
      (found) => found.blocks,
      () => 0,
    );
    return { usedBytes: blocks * 512, containers: this.#environment.usersOf(record.name).length };
  }

  /** Makes it, unless there is one of that name: then that one is the answer, as docker's. */
  async create(options: CreateVolume): Promise<VolumeRecord> {
    const name = options.name || newVolumeName();
    checkVolumeName(name);
    const { sizeBytes = VOLUME_BYTES } = options;
    if (!(sizeBytes >= VOLUME_BYTES_MIN && sizeBytes <= VOLUME_BYTES_MAX)) {
      throw new EngineError(
        'ERR_ARCBOX_INVALID_ARGUMENT',
        `a volume has from ${formatSize(VOLUME_BYTES_MIN)} to ${formatSize(VOLUME_BYTES_MAX)}`,
      );
    }
    await this.#environment.room.needDisk(`the volume ${name}`);
    return this.#exclusive(name, async () => {
      const record = this.#register(name, options.name === undefined, options.labels ?? {}, sizeBytes);
      await this.#ensureDisk(record);
      return record;
    });
  }

  /** Records for what a new container mounts; their disks are made with `makeDisks`. Synchronous, for a transaction. */
  register(mounts: readonly VolumeMount[]): void {
    const fresh = mounts.filter(({ name }) => !this.#volumes.has(name));
    try {
      for (const { name, anonymous } of mounts) this.#register(name, anonymous, {}, VOLUME_BYTES);
    } catch (error) {
      // The transaction takes their records back.
      for (const { name } of fresh) this.#volumes.delete(name);
      throw error;
    }
  }

  async makeDisks(mounts: readonly VolumeMount[]): Promise<void> {
    for (const { name } of mounts) await this.#exclusive(name, () => this.#ensureDisk(this.find(name)));
  }

  /** Throws `ERR_ARCBOX_VOLUME_IN_USE` while a container, running or not, has it. */
  async remove(name: string): Promise<void> {
    const record = this.find(name);
    await this.#exclusive(name, async () => {
      if (this.#volumes.get(name) !== record) return;
      const [user] = this.#environment.usersOf(name);
      if (user !== undefined) {
        throw new EngineError(
          'ERR_ARCBOX_VOLUME_IN_USE',
          `the volume ${name} is in use by the container ${user.name} (${user.id.slice(0, 12)}); remove that first`,
        );
      }
      await this.#remove(record);
    });
  }

  /**
   * Marks as given up what was made for this container alone, for the transaction that deletes its record; nothing else
   * has changed should that fail. `removeCondemned` does the rest, and so does the next daemon.
   */
  condemn({ id, config }: ContainerRecord): VolumeRecord[] {
    const condemned: VolumeRecord[] = [];
    for (const mount of config.mounts) {
      const record = mount.type === 'volume' && mount.anonymous ? this.#volumes.get(mount.name) : undefined;
      // Another container may have been given it by its name.
      if (record === undefined || this.#environment.usersOf(record.name).some((user) => user.id !== id))
        continue;
      this.#environment.store.setVolumeState(record.number, 'removing');
      condemned.push(record);
    }
    return condemned;
  }

  /** What is left of them when one cannot be removed now is the next daemon's. */
  async removeCondemned(condemned: readonly VolumeRecord[]): Promise<void> {
    for (const record of condemned) record.state = 'removing';
    for (const record of condemned) {
      const removing = this.#exclusive(record.name, () => this.#remove(record));
      await removing.catch((error: unknown) => {
        this.#environment.logger.warn('volume.remove_failed', {
          name: record.name,
          reason: messageOf(error),
        });
      });
    }
  }

  /** Removes those that no container has: anonymous ones, with `all` the others, too. Answers with names and bytes. */
  async prune(options: {
    all?: boolean;
    keep?(record: VolumeRecord): boolean;
  }): Promise<{ removed: string[]; freedBytes: number }> {
    const removed: string[] = [];
    let freedBytes = 0;
    for (const record of this.list()) {
      if (!record.anonymous && options.all !== true) continue;
      if (options.keep?.(record) === true || this.#environment.usersOf(record.name).length > 0) continue;
      const { usedBytes } = await this.usage(record);
      try {
        await this.remove(record.name);
      } catch (error) {
        // Somebody began to use it, or removed it, meanwhile.
        if (error instanceof EngineError) continue;
        throw error;
      }
      removed.push(record.name);
      freedBytes += usedBytes;
    }
    this.#environment.events.emit('volume', 'prune', '', { reclaimed: String(freedBytes) });
    return { removed, freedBytes };
  }

  /**
   * Before a container starts, when its root is mounted: mounts its volumes in the machine and fills empty ones from the
   * image. Answers with the mounts for its configuration. `release` takes it back.
   */
  async attach(container: ContainerRecord, up: UpMachine): Promise<Record<string, unknown>[]> {
    const { mounts } = container.config;
    const volumes = mounts.filter((mount) => mount.type === 'volume');
    const data = new Map<string, string>();
    if (volumes.length > 0) await this.#makeRoom(up);
    for (const mount of volumes) {
      await this.#exclusive(mount.name, async () => {
        const record = this.find(mount.name);
        await this.#ensureDisk(record);
        await this.#takeFromOthers(record, up);
        this.#use(record, container);
        const path = await up.volumes.mount(record.number, this.#environment.layout.volumeDisk(record.name));
        data.set(mount.name, path);
        if (mount.copy && (await isEmpty(up.agent, path))) {
          const from = { root: containerPaths(container.id).rootfs, path: mount.target };
          const id = `v-${record.number}-${container.run}`;
          // A container that has it mounted sees this very directory, and no other that takes its name.
          if (this.#users.get(record.number)?.size === 1)
            await copyUpWhole(up.agent, id, from, path, volumeStaging(record.number));
          else await copyUp(up.agent, id, from, path);
        }
        this.#environment.events.emit('volume', 'mount', mount.name, { container: container.id });
      });
    }
    return ociMounts(mounts, ({ name }) => data.get(name) ?? '');
  }

  /** A container that an earlier daemon started has them. */
  adopt(container: ContainerRecord): void {
    for (const mount of container.config.mounts) {
      const record = mount.type === 'volume' ? this.#volumes.get(mount.name) : undefined;
      if (record !== undefined) this.#use(record, container);
    }
  }

  /** Its run is over. The volumes stay in the machine until their place is wanted. */
  async release(container: ContainerRecord, up: UpMachine | undefined): Promise<void> {
    let used = false;
    for (const [number, users] of this.#users) {
      if (!users.delete(container.id)) continue;
      used = true;
      if (users.size === 0) this.#users.delete(number);
      const name = [...this.#volumes.values()].find((record) => record.number === number)?.name;
      if (name !== undefined)
        this.#environment.events.emit('volume', 'unmount', name, { container: container.id });
    }
    if (used) {
      const { resolve } = this.#released;
      this.#released = Promise.withResolvers<void>();
      resolve();
    }
    // What it wrote is not to be lost with the machine.
    if (used && up !== undefined && !up.agent.ended.aborted)
      await up.agent.batch([{ case: 'sync', value: {} }]);
  }

  /** Unmounts and detaches what nobody uses: before a machine idles down. */
  async releaseUnused(up: UpMachine): Promise<void> {
    for (const number of up.volumes.attached) await this.#detachUnused(number, up);
  }

  /** A machine has come up, or was taken over: detaches what no record names. */
  async reconcile(up: UpMachine): Promise<void> {
    this.#machines.set(up.name, up);
    const known = new Set([...this.#volumes.values()].map(({ number }) => number));
    for (const number of up.volumes.attached) if (!known.has(number)) await up.volumes.release(number);
  }

  /** Goes on with removals that an earlier daemon had begun, once its machines have been taken over. */
  async finishRemovals(): Promise<void> {
    for (const record of [...this.#volumes.values()])
      if (record.state === 'removing') await this.removeCondemned([record]);
  }

  #register(
    name: string,
    anonymous: boolean,
    labels: Readonly<Record<string, string>>,
    sizeBytes: number,
  ): VolumeRecord {
    const known = this.#volumes.get(name);
    if (known?.state === 'removing')
      throw new EngineError('ERR_ARCBOX_VOLUME_IN_USE', `the volume ${name} is being removed; try again`);
    if (known !== undefined) return known;
    if (this.#volumes.size >= VOLUMES_MAX)
      throw new EngineError('ERR_ARCBOX_LIMIT', `there are ${VOLUMES_MAX} volumes; remove some first`);
    const draft = { name, state: 'new', anonymous, labels, sizeBytes, createdMs: Date.now() } as const;
    faultPoint('volume.record');
    const record: VolumeRecord = { ...draft, number: this.#environment.store.insertVolume(draft) };
    this.#volumes.set(name, record);
    this.#environment.events.emit('volume', 'create', name, { driver: 'local', ...labels });
    return record;
  }

  async #ensureDisk(record: VolumeRecord): Promise<void> {
    if (record.state !== 'new') return;
    const path = this.#environment.layout.volumeDisk(record.name);
    try {
      faultPoint('volume.disk');
      await makeDiskImage(path, record.sizeBytes);
    } catch (error) {
      throw new EngineError(
        'ERR_ARCBOX_VOLUME',
        `the volume ${record.name} could not be made: ${messageOf(error)} (mkfs.ext4 is in Debian's e2fsprogs)`,
        { cause: error },
      );
    }
    faultPoint('volume.made');
    this.#environment.store.setVolumeState(record.number, 'made');
    record.state = 'made';
  }

  async #remove(record: VolumeRecord): Promise<void> {
    const { store, layout, events } = this.#environment;
    if (this.#volumes.get(record.name) !== record) return;
    // No container has it any more, but the last one may still be on its way out of the machine.
    while (this.#users.has(record.number)) await this.#released.promise;
    faultPoint('volume.removing');
    store.setVolumeState(record.number, 'removing');
    record.state = 'removing';
    for (const up of this.#machines.values()) await this.#releaseFrom(record, up);
    faultPoint('volume.unlink');
    await rm(layout.volume(record.name), { recursive: true, force: true });
    faultPoint('volume.forget');
    store.deleteVolume(record.number);
    this.#volumes.delete(record.name);
    events.emit('volume', 'destroy', record.name);
  }

  #use(record: VolumeRecord, container: ContainerRecord): void {
    const users = this.#users.get(record.number) ?? new Map<string, string>();
    users.set(container.id, container.machine);
    this.#users.set(record.number, users);
  }

  /** A disk is one machine's at a time. Throws `ERR_ARCBOX_VOLUME_IN_USE` when a container of another one uses it. */
  async #takeFromOthers(record: VolumeRecord, up: UpMachine): Promise<void> {
    for (;;) {
      const others = [...(this.#users.get(record.number) ?? [])].filter(([, machine]) => machine !== up.name);
      if (others.length === 0) break;
      const rival = this.#environment
        .usersOf(record.name)
        .find(({ id, state }) => USING.has(state) && others.some(([user]) => user === id));
      if (rival !== undefined) {
        throw new EngineError(
          'ERR_ARCBOX_VOLUME_IN_USE',
          `the volume ${record.name} is in use by the container ${rival.name} in the machine ${rival.machine}, and a volume is in one machine at a time; stop that container, or create this one with --machine ${rival.machine}`,
        );
      }
      // It has ended, or been removed, and is on its way out of the machine; or its files are being copied.
      await this.#released.promise;
    }
    for (const other of this.#machines.values())
      if (other.name !== up.name) await this.#releaseFrom(record, other);
  }

  /** Nobody uses it there. */
  async #releaseFrom({ number }: VolumeRecord, up: UpMachine): Promise<void> {
    if (!up.volumes.attached.includes(number)) return;
    try {
      await up.volumes.release(number);
    } catch (error) {
      if (!up.agent.ended.aborted) throw error;
      // The machine is on its way out, and lets go of the disk with its process.
      await up.vm.exited;
      if (this.#machines.get(up.name) === up) this.#machines.delete(up.name);
    }
  }

  /** A machine has a limited number of places for disks: unused volumes keep theirs only while there are few. */
  async #makeRoom(up: UpMachine): Promise<void> {
    const unused = up.volumes.attached.filter((number) => !this.#users.has(number));
    for (const number of unused.slice(0, Math.max(0, unused.length - VOLUMES_UNUSED_MAX)))
      await this.#detachUnused(number, up);
  }

  /** A container that is being started may have begun to use it meanwhile. */
  async #detachUnused(number: number, up: UpMachine): Promise<void> {
    const detach = async (): Promise<void> => {
      if (!this.#users.has(number)) await up.volumes.release(number);
    };
    const name = [...this.#volumes.values()].find((record) => record.number === number)?.name;
    await (name === undefined ? detach() : this.#exclusive(name, detach));
  }

  /** One change of one volume at a time. */
  #exclusive<T>(name: string, work: () => Promise<T>): Promise<T> {
    let lock = this.#locks.get(name);
    if (lock === undefined) {
      lock = new Mutex();
      this.#locks.set(name, lock);
    }
    const mutex = lock;
    return mutex.run(work).finally(() => {
      if (!mutex.busy) this.#locks.delete(name);
    });
  }
}

export function newVolumeName(): string {
  return randomBytes(32).toString('hex');
}
