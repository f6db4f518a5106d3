/**
 * Containers: what the API can do with them, and bringing them together with what is true in the machine.
 *
 * A container is a record until it is started. Whatever has a side effect in a machine is recorded before it begins
 * (`starting`) and after it was done (`running`, `exited`), so that a new daemon knows what to look for; `reconcile`
 * compares that with the agent's objects and the guest's directories and releases what nobody names.
 */

import { rm } from 'node:fs/promises';
import type { ImageStore } from '@arcbox/image';
import { AgentOpError, type OpInput } from '@arcbox/protocol';
import { faultPoint } from '@arcbox/sys';
import type { BootAssets } from '../boot-assets.ts';
import { EngineError, messageOf } from '../errors.ts';
import type { EventLog } from '../events/event-log.ts';
import type { HostLayout } from '../host-layout.ts';
import {
  ATTACH_LAG_BYTES,
  AUTO_REMOVE_GRACE_MS,
  CONTAINERS_MAX,
  STOP_TIMEOUT_MS,
  TIMER_MS_MAX,
  USERS_CACHED_MAX,
} from '../limits.ts';
import type { ContainerLog } from '../log/container-log.ts';
import { findTail, type LogPlace, type LogRange, LogView } from '../log/log-view.ts';
import type { Logger } from '../logger.ts';
import { BUNDLES, processObjectId, UPPERS } from '../machine/guest-layout.ts';
import type { Machine, UpMachine } from '../machine/machine.ts';
import {
  joinNetwork,
  type NetworkPlace,
  NO_NETWORK,
  networkMode,
  placeOf,
  plugIn,
} from '../network/container-network.ts';
import type { NetworkManager } from '../network/network-manager.ts';
import { type NetworkPlane, namedContainer } from '../network/network-plane.ts';
import type { Room } from '../room.ts';
import type { Store } from '../state/store.ts';
import type { VolumeManager } from '../volume/volume-manager.ts';
import { Container, type ContainerExit } from './container.ts';
import { ContainerAttachment } from './container-attachment.ts';
import { ContainerProcess } from './container-process.ts';
import type { ContainerRecord } from './container-record.ts';
import { type CreateOptions, containerConfig } from './create.ts';
import { containerOfMode, type ResourceLimits } from './host-options.ts';
import {
  cleanUpOps,
  explainFailure,
  launch,
  launchOps,
  mountOps,
  readAccounts,
  removeDiskOps,
  runTolerant,
} from './launch.ts';
import { checkName, generateName, newContainerId } from './names.ts';
import { isShmShared } from './oci-mounts.ts';
import type { TerminalSize } from './oci-spec.ts';
import { Restarts } from './restarts.ts';
import { applyLimits, freeze, freezeOp, mergeLimits } from './running-cgroup.ts';
import { canApply, nextState } from './transitions.ts';
import { type ResolvedUser, resolveUser } from './user.ts';

/** The exit code of a container whose end nobody saw. */
const LOST_EXIT_CODE = 255;
const SIGKILL = 9;

export interface ContainerEnvironment {
  readonly store: Store;
  readonly layout: HostLayout;
  readonly images: ImageStore;
  readonly assets: BootAssets;
  readonly logger: Logger;
  readonly events: EventLog;
  readonly networks: NetworkManager;
  readonly plane: NetworkPlane;
  readonly volumes: VolumeManager;
  readonly room: Room;
  machine(name: string): Machine;
  readonly defaultMachine: string;
  /** A container's process runs; `adopted`: since before this daemon. */
  running(container: Container, adopted: boolean): void;
  /** A container is gone, with whatever else belonged to it. */
  removed(id: string): void;
}

export interface StartOptions {
  /** Only when it has not been started that often yet: a client that lost the answer can ask again. */
  readonly run?: number;
  readonly terminalSize?: TerminalSize;
}

export interface AttachOptions {
  /** A position in the log, or one of its ends; default: where the log is now. */
  readonly cursor?: number | 'start' | 'end';
  /** Which run; default: the one that goes on, or the next one. */
  readonly run?: number;
}

export interface LogOptions extends LogRange {
  /** A position in the log, or one of its ends; default: the oldest that is still there. */
  readonly cursor?: number | 'start' | 'end';
  /** Only so many last lines of it. */
  readonly tail?: number;
  readonly follow?: boolean;
}

export class ContainerManager {
  readonly #environment: ContainerEnvironment;
  readonly #containers = new Map<string, Container>();
  readonly #users = new Map<string, ResolvedUser>();
  /** Work that goes on after an answer was given; drained before we end. */
  readonly #background = new Set<Promise<void>>();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #restarts: Restarts;
  #disowned = false;
  #ending = false;

  constructor(environment: ContainerEnvironment) {
    this.#environment = environment;
    this.#restarts = new Restarts((container) =>
      this.#inBackground('restart', this.#start(container, {}, true)),
    );
    for (const record of environment.store.containers())
      this.#containers.set(record.id, new Container(record, environment));
  }

  // --- Asking -----------------------------------------------------------------------------------

  list(): ContainerRecord[] {
    return [...this.#containers.values()].map((container) => ({ ...container.record }));
  }

  /** In the order of their creation. */
  all(): Container[] {
    return [...this.#containers.values()];
  }

  /** Whether a process of it runs, or is about to. */
  isLive(id: string): boolean {
    return this.#containers.get(id)?.live ?? false;
  }

  inspect(reference: string): ContainerRecord {
    return { ...this.find(reference).record };
  }

  /** Containers, in any state, that mount the volume. */
  usersOfVolume(name: string): ContainerRecord[] {
    return this.list().filter(({ config }) =>
      config.mounts.some((mount) => mount.type === 'volume' && mount.name === name),
    );
  }

  /** By ID, name, or the beginning of an ID. Throws `ERR_ARCBOX_CONTAINER_NOT_FOUND`. */
  find(reference: string): Container {
    const exact = this.#containers.get(reference);
    if (exact !== undefined) return exact;
    const all = [...this.#containers.values()];
    const byName = all.find((container) => container.record.name === reference);
    if (byName !== undefined) return byName;
    const byPrefix = /^[0-9a-f]+$/.test(reference)
      ? all.filter(({ record }) => record.id.startsWith(reference))
      : [];
    if (byPrefix.length > 1) {
      throw new EngineError(
        'ERR_ARCBOX_CONTAINER_NOT_FOUND',
        `${byPrefix.length} containers have an ID that begins with ${reference}; give more of it`,
      );
    }
    if (byPrefix[0] !== undefined) return byPrefix[0];
    throw new EngineError('ERR_ARCBOX_CONTAINER_NOT_FOUND', `no such container: ${reference}`);
  }

  /** How it ended, once the condition holds: it does not run (the default), its next run has ended, it was removed. */
  async wait(
    reference: string,
    condition: 'not-running' | 'next-exit' | 'removed' = 'not-running',
  ): Promise<ContainerExit> {
    const container = this.find(reference);
    const { record } = container;
    if (condition === 'removed') return container.removed;
    if (condition === 'next-exit') {
      return container.waiters(container.live ? record.run : record.run + 1).exited.promise;
    }
    if (container.live) return container.waiters(record.run).exited.promise;
    return { exitCode: record.exitCode ?? 0, error: record.error };
  }

  // --- Life -------------------------------------------------------------------------------------

  /** Makes a record; nothing runs. */
  async create(options: CreateOptions): Promise<ContainerRecord> {
    const { store, images, logger, networks, defaultMachine } = this.#environment;
    const image = await images.resolve(options.image);
    const { idempotencyKey } = options;
    const known = idempotencyKey === undefined ? undefined : store.containerIdByKey(idempotencyKey);
    if (known !== undefined) return { ...this.find(known).record };
    await this.#environment.room.needDisk('a container');
    if (this.#containers.size >= CONTAINERS_MAX) {
      throw new EngineError('ERR_ARCBOX_LIMIT', `there are ${CONTAINERS_MAX} containers; remove some first`);
    }
    const names = new Set([...this.#containers.values()].map(({ record }) => record.name));
    if (options.name !== undefined) checkName(options.name);
    const id = newContainerId();
    const record: ContainerRecord = {
      id,
      name: options.name ?? generateName((name) => names.has(name)),
      state: 'created',
      run: 0,
      machine: defaultMachine,
      imageId: image.id,
      config: containerConfig(options, image, id),
      createdMs: Date.now(),
      startedMs: undefined,
      finishedMs: undefined,
      exitCode: undefined,
      error: '',
      restarts: 0,
      stoppedByUser: false,
    };
    images.assertPresent(image);
    const volumes = record.config.mounts.filter((mount) => mount.type === 'volume');
    faultPoint('create.record');
    // A volume that nobody named is not to be left over without its container.
    store.transaction(() => {
      store.insertContainer(record, idempotencyKey);
      this.#environment.volumes.register(volumes);
    });
    faultPoint('create.recorded');
    try {
      joinNetwork(networks, record);
      await this.#environment.volumes.makeDisks(volumes);
    } catch (error) {
      store.deleteContainer(id);
      await this.#removeVolumes(record);
      throw error;
    }
    const container = new Container(record, this.#environment);
    this.#containers.set(id, container);
    container.emit('create');
    logger.info('container.created', { id, name: record.name, image: options.image });
    return { ...record };
  }

  /**
   * Starts it; answered when its process runs.
   *
   * Throws `ERR_ARCBOX_COMMAND_NOT_FOUND`, `ERR_ARCBOX_COMMAND_NOT_EXECUTABLE`, `ERR_ARCBOX_CONTAINER_START`, and what
   * bringing up its machine throws; then nothing of it is left in the machine.
   */
  async start(reference: string, options: StartOptions = {}): Promise<void> {
    await this.#start(this.find(reference), options, false);
  }

  /** With `again` it is its restart policy that starts it. */
  async #start(container: Container, options: StartOptions, again: boolean): Promise<void> {
    if (options.terminalSize !== undefined) container.terminalSize = options.terminalSize;
    await container.transitions.run(async () => {
      const { record } = container;
      // Stopped, removed, or started by somebody, while it waited for its turn.
      if (again && record.state !== 'restarting') return;
      await container.cleanUp;
      if (record.state === 'paused') {
        throw new EngineError(
          'ERR_ARCBOX_CONTAINER_STATE',
          `the container ${record.name} is paused; unpause it instead`,
        );
      }
      if (record.state === 'running' || (options.run !== undefined && record.run >= options.run)) return;
      faultPoint('start.record');
      container.apply('start', {
        run: record.run + 1,
        error: '',
        exitCode: undefined,
        finishedMs: undefined,
        stoppedByUser: false,
        restarts: again ? record.restarts + 1 : 0,
      });
      if (!again) this.#restarts.forget(container);
      try {
        await this.#startRun(container);
      } catch (error) {
        this.#startFailed(container, error);
        throw error;
      }
    });
  }

  /** Sends a signal to its process. Throws `ERR_ARCBOX_CONTAINER_STATE` when it does not run. */
  async kill(reference: string, signal = SIGKILL): Promise<void> {
    const container = this.find(reference);
    const process = this.#running(container, 'killed');
    container.markStopped();
    await this.#signal(process, signal);
    container.emit('kill', { signal: String(signal) });
  }

  /** Asks it to end, and kills it after `timeoutMs`; answered when it has ended. One that is being started starts first. */
  async stop(reference: string, options: { timeoutMs?: number; signal?: number } = {}): Promise<void> {
    const container = this.find(reference);
    container.markStopped();
    this.#restarts.cancel(container);
    await this.#stop(container, options);
  }

  async #stop(container: Container, options: { timeoutMs?: number; signal?: number } = {}): Promise<void> {
    const { record } = container;
    if (record.state === 'starting') await container.transitions.run(async () => {});
    const { process } = container;
    if (process === undefined) return;
    if (record.state === 'paused') await this.unpause(record.id);
    const { exited } = container.waiters(record.run);
    const timeoutMs = options.timeoutMs ?? record.config.stopTimeoutMs ?? STOP_TIMEOUT_MS;
    if (timeoutMs > 0) {
      const signal = options.signal ?? record.config.stopSignal;
      faultPoint('stop.signal');
      await this.#signal(process, signal);
      container.emit('kill', { signal: String(signal) });
      if (await settlesWithin(exited.promise, timeoutMs)) {
        container.emit('stop');
        return;
      }
    }
    faultPoint('stop.kill');
    await this.#signal(process, SIGKILL);
    container.emit('kill', { signal: String(SIGKILL) });
    await exited.promise;
    container.emit('stop');
  }

  /** Makes its processes stand still. Throws `ERR_ARCBOX_CONTAINER_STATE` unless it runs. */
  async pause(reference: string): Promise<void> {
    await this.#freeze(reference, true);
  }

  async unpause(reference: string): Promise<void> {
    await this.#freeze(reference, false);
  }

  async #freeze(reference: string, frozen: boolean): Promise<void> {
    const container = this.find(reference);
    await container.transitions.run(async () => {
      const { record } = container;
      nextState(record.name, record.state, frozen ? 'pause' : 'unpause');
      const up = await this.#environment.machine(record.machine).ensure();
      await freeze(up.agent, record.id, frozen);
      faultPoint(frozen ? 'pause.record' : 'unpause.record');
      container.apply(frozen ? 'pause' : 'unpause');
      container.emit(frozen ? 'pause' : 'unpause');
    });
  }

  /** Throws `ERR_ARCBOX_CONTAINER_NAME_IN_USE`. */
  async rename(reference: string, name: string): Promise<void> {
    checkName(name);
    const container = this.find(reference);
    await container.transitions.run(async () => {
      const other = [...this.#containers.values()].find((candidate) => candidate.record.name === name);
      if (other !== undefined) {
        throw new EngineError(
          'ERR_ARCBOX_CONTAINER_NAME_IN_USE',
          `the container name ${name} is in use by ${other.record.id.slice(0, 12)}; remove or rename that container first`,
        );
      }
      const oldName = container.record.name;
      container.change({ name });
      container.emit('rename', { oldName });
    });
  }

  /** Changes limits, of a running container at once; what is left out stays. */
  async update(reference: string, limits: ResourceLimits): Promise<ContainerRecord> {
    const container = this.find(reference);
    return container.transitions.run(async () => {
      const { record } = container;
      const { config } = record;
      const merged = mergeLimits(config.host.limits, limits);
      if (container.process !== undefined) {
        const up = await this.#environment.machine(record.machine).ensure();
        await applyLimits(up.agent, record.id, merged);
      }
      container.change({ config: { ...config, host: { ...config.host, limits: merged } } });
      container.emit('update');
      return { ...record };
    });
  }

  /** Stops it, when it runs, and starts it. */
  async restart(reference: string, options: { timeoutMs?: number; signal?: number } = {}): Promise<void> {
    const { record } = this.find(reference);
    await this.stop(record.id, options);
    await this.start(record.id);
    this.find(record.id).emit('restart');
  }

  async resize(reference: string, size: { rows: number; columns: number }): Promise<void> {
    const container = this.find(reference);
    await this.#running(container, 'resized').resize(size);
  }

  /** Removes it with its log and everything it wrote. `force` kills it first. */
  async remove(reference: string, options: { force?: boolean; volumes?: boolean } = {}): Promise<void> {
    const container = this.find(reference);
    if (options.force === true) await this.stop(container.record.id, { timeoutMs: 0 });
    await container.transitions.run(() => this.#remove(container));
    if (options.volumes === true) await this.#removeVolumes(container.record);
  }

  /** Removes those that do not run. Answers with their IDs. */
  async prune(): Promise<string[]> {
    const removed: string[] = [];
    for (const { record } of [...this.#containers.values()]) {
      if (record.state !== 'created' && record.state !== 'exited') continue;
      try {
        await this.remove(record.id);
        removed.push(record.id);
      } catch (error) {
        // It was started, or removed by somebody else, meanwhile.
        if (!(error instanceof EngineError)) throw error;
      }
    }
    return removed;
  }

  // --- Streams ----------------------------------------------------------------------------------

  /** Attaches to the run that goes on, or to the next one when none does. */
  async attach(reference: string, options: AttachOptions = {}): Promise<ContainerAttachment> {
    const container = this.find(reference);
    const { record } = container;
    const run = options.run ?? (container.live ? record.run : record.run + 1);
    container.attached += 1;
    const leave = async (): Promise<void> => {
      container.attached -= 1;
      await container.releaseLog();
      if (record.config.autoRemove && container.attached === 0 && run <= record.run)
        await this.#autoRemove(container);
    };
    try {
      const log = await container.useLog();
      try {
        const cursor = options.cursor ?? 'end';
        const reader = log.reader({ cursor, followRun: run, maxLagBytes: ATTACH_LAG_BYTES });
        return new ContainerAttachment(container, run, reader, leave);
      } catch (error) {
        await container.releaseLog();
        throw error;
      }
    } catch (error) {
      container.attached -= 1;
      throw error;
    }
  }

  /** Reads the log, or a part of it, from `cursor` on; with `follow` until the run that goes on has ended. */
  async logs(
    reference: string,
    options: LogOptions = {},
  ): Promise<{ reader: LogView; position: number; release(): Promise<void> }> {
    const container = this.find(reference);
    const { tail, follow } = options;
    const log = await container.useLog();
    try {
      let cursor = tail === 0 ? 'end' : (options.cursor ?? 'start');
      let from: LogPlace | undefined;
      if (tail !== undefined && tail > 0) {
        await using scan = log.reader({ cursor });
        from = await findTail(scan, tail, options);
        cursor = from?.position ?? cursor;
      }
      const followRun = Math.max(1, container.record.run);
      const reader = log.reader({ cursor, ...(follow === true ? { followRun } : {}) });
      const view = new LogView(reader, options, from);
      if (follow === true) view.endInTime();
      return {
        reader: view,
        position: reader.position,
        release: async () => {
          await view.close();
          await container.releaseLog();
        },
      };
    } catch (error) {
      await container.releaseLog();
      throw error;
    }
  }

  // --- With the machine ---------------------------------------------------------------------------

  /** Brings the store and the machine together; called before a machine counts as running. */
  async reconcile(up: UpMachine): Promise<void> {
    const [answer, uppers, bundles] = await up.agent.batch([
      { case: 'listObjects', value: {} },
      { case: 'list', value: { path: UPPERS } },
      { case: 'list', value: { path: BUNDLES } },
    ]);
    const objects = answer?.result.case === 'objects' ? answer.result.value.objects : [];
    const names = (result: typeof uppers): string[] =>
      result?.result.case === 'list'
        ? result.result.value.entries.map((entry) => entry.name).filter((name) => !name.startsWith('.'))
        : [];

    const keep = new Set<string>();
    for (const container of this.#containers.values()) {
      const { record } = container;
      if (record.machine !== up.name || !container.live) continue;
      // A start of our own that is bringing this very machine up has nothing in it yet.
      if (container.transitions.busy) continue;
      const objectId = processObjectId(record.id, record.run);
      const object = objects.find(({ id }) => id === objectId);
      if (object !== undefined) {
        if (await this.#resume(container, up, objectId, object.pid)) {
          keep.add(objectId);
          await this.#joinPlane(record, up);
        }
      } else {
        this.#markLost(container, 'its process was gone when the daemon came back');
      }
    }
    const stale = objects.filter((object) => !keep.has(object.id));
    await runTolerant(
      up.agent,
      stale.map((object): OpInput => ({ case: 'release', value: { id: object.id, missingOk: true } })),
    );
    for (const name of names(bundles)) {
      const container = this.#containers.get(name);
      if (container?.process === undefined)
        await runTolerant(up.agent, cleanUpOps(name, 0, container?.record.config.host));
    }
    for (const name of names(uppers)) {
      if (!this.#containers.has(name))
        this.#inBackground('remove_upper', runTolerant(up.agent, removeDiskOps(name)));
    }
    this.#removeExited();
    this.#environment.logger.info('machine.reconciled', {
      machine: up.name,
      kept: keep.size,
      released: stale.length,
    });
  }

  /** The machine is gone, and with it what ran there. Those that have a process learn it from their connection. */
  machineLost(machine: string, why: string): void {
    for (const container of this.#containers.values()) {
      const { record } = container;
      if (record.machine !== machine || container.process !== undefined || container.transitions.busy)
        continue;
      if (container.live) this.#markLost(container, why);
    }
    this.#removeExited();
  }

  /** Whether a container of the machine runs, or one is in the middle of a transition. */
  inUse(machine: string): boolean {
    return this.#containers
      .values()
      .some(
        ({ record, live, transitions }) =>
          record.machine === machine && (live || record.state === 'restarting' || transitions.busy),
      );
  }

  /** From now on the ends of processes are not recorded: the machine is left to the next daemon. */
  disown(): void {
    this.end();
    this.#disowned = true;
  }

  /** Stops every container that runs or is being started; rejects, after all were tried, when one could not be. */
  async stopAll(): Promise<void> {
    // What ends now was not stopped by its user, and what would start again waits for the next time.
    this.#restarts.suspended = true;
    const containers = [...this.#containers.values()];
    const stops = await Promise.allSettled(containers.map((container) => this.#stop(container)));
    this.#restarts.suspended = this.#ending;
    const failed = stops.find((stop) => stop.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  /** No container is started again by its policy from here on. */
  end(): void {
    this.#ending = true;
    this.#restarts.stop();
  }

  /** What its policy wants to run, runs again: called when a new daemon has seen what an earlier one left. */
  startWanted(): void {
    for (const container of this.#containers.values()) {
      const { state } = container.record;
      if (state === 'exited') this.#restarts.consider(container, true);
      if (state === 'restarting') this.#restarts.goOn(container);
    }
  }

  /** Resolves when nothing is going on behind anybody's back. */
  async drain(): Promise<void> {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    while (this.#background.size > 0) await Promise.all(this.#background);
  }

  // --- Inside -------------------------------------------------------------------------------------

  /** From `starting` to `running`; when it throws, nothing of the run is in the machine and the log is given back. */
  async #startRun(container: Container): Promise<void> {
    const { record } = container;
    const log = await container.useLog();
    try {
      faultPoint('start.log');
      log.beginRun(record.run);
      const up = await this.#environment.machine(record.machine).ensure();
      const pid = await this.#launch(container, up);
      const process = new ContainerProcess(up.agent, processObjectId(record.id, record.run), pid, log);
      try {
        faultPoint('start.running');
        container.apply('started', { startedMs: Date.now() });
      } catch (error) {
        // It runs, and we could not write that down: it must not go on unowned.
        await this.#cleanUp(container, up);
        throw error;
      }
      this.#follow(container, process, log, up);
      this.#environment.running(container, false);
    } catch (error) {
      await log.endRun().finally(() => container.releaseLog());
      throw error;
    }
  }

  async #launch(container: Container, up: UpMachine): Promise<number> {
    const { record } = container;
    const { images, assets } = this.#environment;
    const { host } = record.config;
    const pidOf = this.#joined(container, host.pidMode);
    const ipcOf = this.#joined(container, host.ipcMode);
    if (ipcOf !== undefined && !isShmShared(ipcOf.record.config.host)) {
      throw new EngineError(
        'ERR_ARCBOX_CONTAINER_START',
        `the container ${ipcOf.record.name} does not share its IPC namespace; create it with --ipc shareable`,
      );
    }
    const image = await images.resolve(record.imageId);
    const lowers = await Promise.all(image.layers.map((layer) => up.mountLayer(layer)));
    const mounts = mountOps(record, lowers);
    try {
      // The bundle's directory says that there may be more to clean up; so it is made first.
      faultPoint('start.mount');
      await up.agent.batch(mounts);
      const plugging = this.#plugIn(container, up);
      plugging.catch(() => {});
      const volumeMounts = await this.#environment.volumes.attach(record, up);
      const userKey = JSON.stringify([record.imageId, record.config.user, host.groupAdd]);
      // Only a first start sees the image's own accounts; later ones may have been changed.
      let user = record.run === 1 ? this.#users.get(userKey) : undefined;
      if (user === undefined) {
        const { passwd, group } = await readAccounts(up.agent, record);
        user = resolveUser(record.config.user, passwd, group, host.groupAdd);
        if (this.#users.size >= USERS_CACHED_MAX) this.#users.clear();
        if (record.run === 1) this.#users.set(userKey, user);
      }
      const network = await plugging;
      const ops = launchOps({
        record,
        user,
        seccompBase64: assets.seccompBase64,
        terminalSize: container.terminalSize,
        joined: {
          ...(pidOf?.process === undefined ? {} : { pid: pidOf.process.pid }),
          ...(ipcOf?.process === undefined ? {} : { ipc: ipcOf.process.pid }),
          ...(network.path === undefined ? {} : { network: network.path }),
        },
        network,
        shmOwnerId: ipcOf?.record.id,
        mounts: volumeMounts,
      });
      faultPoint('start.spawn');
      return await launch(up.agent, ops);
    } catch (error) {
      const failure =
        error instanceof AgentOpError && error.op === 'spawn'
          ? await explainFailure(up.agent, record, error).catch(() => error)
          : error;
      await runTolerant(up.agent, cleanUpOps(record.id, record.run, host)).catch((cleanUpError: unknown) => {
        this.#environment.logger.warn('container.clean_up_failed', {
          id: record.id,
          reason: messageOf(cleanUpError),
        });
      });
      await this.#environment.volumes.release(record, undefined);
      throw failure;
    }
  }

  /** Its network, ready to be run in. */
  async #plugIn(container: Container, up: UpMachine): Promise<NetworkPlace> {
    const { record } = container;
    const { networks } = this.#environment;
    const mode = networkMode(record);
    if (mode.kind === 'host') return { ...NO_NETWORK, path: 'host' };
    if (mode.kind !== 'container') {
      const [place] = await Promise.all([plugIn(up.network, networks, record), this.#joinPlane(record, up)]);
      return place;
    }
    const other = this.#joined(container, record.config.host.networkMode);
    if (other?.process === undefined) return NO_NETWORK;
    return { ...placeOf(networks, other.record), path: `/proc/${other.process.pid}/ns/net` };
  }

  /** Its networks and names, outside of the machine. */
  #joinPlane(record: ContainerRecord, up: UpMachine): Promise<void> {
    return this.#environment.plane.join(up.name, namedContainer(record));
  }

  /** The running container whose namespace `mode` joins, if it does. */
  #joined(container: Container, mode: string): Container | undefined {
    const reference = containerOfMode(mode);
    if (reference === undefined) return undefined;
    const other = this.find(reference);
    this.#running(other, `joined by ${container.record.name}`);
    return other;
  }

  #startFailed(container: Container, error: unknown): void {
    const { record } = container;
    const code = error instanceof EngineError ? error.code : '';
    const exitCode =
      code === 'ERR_ARCBOX_COMMAND_NOT_FOUND'
        ? 127
        : code === 'ERR_ARCBOX_COMMAND_NOT_EXECUTABLE'
          ? 126
          : 125;
    const change = { exitCode, error: messageOf(error), finishedMs: Date.now() };
    try {
      container.apply(record.run === 1 ? 'startFailed' : 'exit', change);
    } finally {
      container.settleRun(record.run, { exitCode, error: change.error });
    }
    if (record.run > 1) this.#restarts.consider(container);
    if (record.config.autoRemove) this.#inBackground('auto_remove', this.#autoRemove(container));
  }

  /** Takes up a run that an earlier daemon began. One whose log cannot be opened is lost, and no other with it: false. */
  async #resume(container: Container, up: UpMachine, objectId: string, pid: number): Promise<boolean> {
    const { record } = container;
    let log: ContainerLog;
    try {
      log = await container.useLog();
    } catch (error) {
      this.#markLost(container, `its log could not be opened: ${messageOf(error)}`);
      return false;
    }
    if (log.run === record.run) log.resumeRun(AUTO_REMOVE_GRACE_MS);
    else log.beginRun(record.run);
    if (record.state === 'starting') container.apply('started', { startedMs: Date.now() });
    // A daemon that died around a pause, or a commit, may have left it otherwise than it is said to be.
    await runTolerant(up.agent, [freezeOp(record.id, record.state === 'paused')]);
    this.#environment.volumes.adopt(record);
    this.#follow(container, new ContainerProcess(up.agent, objectId, pid, log), log, up);
    this.#environment.running(container, true);
    return true;
  }

  /** From now on the process's end is the container's. */
  #follow(container: Container, process: ContainerProcess, log: ContainerLog, up: UpMachine): void {
    container.process = process;
    container.waiters(container.record.run).started.resolve(process);
    const ended = process.ended.then(
      ({ exitCode }) => ({ exitCode, error: '' }),
      (error: unknown) => ({ exitCode: LOST_EXIT_CODE, error: messageOf(error) }),
    );
    this.#inBackground(
      'exit',
      ended.then((exit) => this.#exited(container, log, up, exit)),
    );
  }

  async #exited(container: Container, log: ContainerLog, up: UpMachine, exit: ContainerExit): Promise<void> {
    const { record } = container;
    // We let go of the machine; whether its processes end is the next daemon's business.
    if (this.#disowned) return;
    await container.transitions.run(async () => {
      faultPoint('exit.log');
      await log.endRun().catch((error: unknown) => {
        this.#environment.logger.error('container.log_failed', { id: record.id, reason: messageOf(error) });
      });
      try {
        faultPoint('exit.record');
        container.apply('exit', { exitCode: exit.exitCode, error: exit.error, finishedMs: Date.now() });
      } finally {
        // Whatever could not be written (a full disk): it has ended, and whoever waits for that is told.
        container.process = undefined;
        container.cleanUp = this.#cleanUp(container, up);
        container.settleRun(record.run, exit);
        await container.releaseLog();
      }
      this.#restarts.consider(container);
    });
    if (record.config.autoRemove && container.attached === 0) await this.#autoRemove(container);
    await container.cleanUp;
  }

  /** Off everybody's path. What is left when it fails is found by the next `reconcile`. */
  async #cleanUp(container: Container, up: UpMachine): Promise<void> {
    const { record } = container;
    try {
      if (up.agent.ended.aborted) return;
      faultPoint('exit.clean');
      await runTolerant(up.agent, cleanUpOps(record.id, record.run, record.config.host));
    } catch (error) {
      this.#environment.logger.warn('container.clean_up_failed', { id: record.id, reason: messageOf(error) });
    } finally {
      await this.#environment.plane.leave(record.id).catch((error: unknown) => {
        this.#environment.logger.warn('network.leave_failed', { id: record.id, reason: messageOf(error) });
      });
      await this.#environment.volumes.release(record, up).catch((error: unknown) => {
        this.#environment.logger.warn('volume.sync_failed', { id: record.id, reason: messageOf(error) });
      });
    }
  }

  /** Nothing of its run is in the machine. */
  #markLost(container: Container, why: string): void {
    const { record } = container;
    const lost = { exitCode: LOST_EXIT_CODE, error: why, finishedMs: Date.now() };
    if (record.state === 'starting') {
      // It was never said to run: as if that start had not been asked for, so that it can be asked for again.
      const run = record.run - 1;
      if (run === 0) container.apply('startFailed', { run });
      else container.apply('exit', { ...lost, run });
      if (run > 0) this.#restarts.consider(container);
      return;
    }
    container.apply('exit', lost);
    container.settleRun(record.run, { exitCode: lost.exitCode, error: why });
    this.#restarts.consider(container);
  }

  async #remove(container: Container): Promise<void> {
    const { record } = container;
    const { store, layout, logger, networks } = this.#environment;
    if (!this.#containers.has(record.id)) return;
    if (!canApply(record.state, 'remove')) {
      throw new EngineError(
        'ERR_ARCBOX_CONTAINER_STATE',
        `the container ${record.name} is ${record.state}; stop it first, or remove it with force`,
      );
    }
    faultPoint('remove.record');
    container.apply('remove');
    faultPoint('remove.files');
    await rm(layout.container(record.id), { recursive: true, force: true });
    networks.release(record.id);
    faultPoint('remove.forget');
    store.deleteContainer(record.id);
    this.#containers.delete(record.id);
    container.emit('destroy');
    this.#environment.removed(record.id);
    container.settleRemoved();
    logger.info('container.removed', { id: record.id, name: record.name });
    // Its upper directory needs the machine; when that is not up now, the next `reconcile` finds it.
    this.#inBackground(
      'remove_upper',
      container.cleanUp.then(() => this.#removeUpper(record)),
    );
    // It may have been the last that held an image which was removed by force.
    this.#inBackground('collect_images', this.#environment.images.collect());
  }

  async #removeUpper(record: ContainerRecord): Promise<void> {
    const up = await this.#environment.machine(record.machine).current();
    faultPoint('remove.disk');
    // Also of one that never ran: files may have been copied into it.
    if (up !== undefined) await runTolerant(up.agent, removeDiskOps(record.id));
  }

  async #autoRemove(container: Container): Promise<void> {
    await container.transitions.run(async () => {
      if (container.attached === 0 && canApply(container.record.state, 'remove'))
        await this.#remove(container);
    });
    if (!this.#containers.has(container.record.id)) await this.#removeVolumes(container.record);
  }

  /** Those that were made for it alone. */
  async #removeVolumes({ config }: ContainerRecord): Promise<void> {
    const { volumes, logger } = this.#environment;
    for (const mount of config.mounts) {
      if (mount.type !== 'volume' || !mount.anonymous) continue;
      await volumes.remove(mount.name).catch((error: unknown) => {
        // Another container may have been given it by its name.
        logger.info('volume.kept', { name: mount.name, reason: messageOf(error) });
      });
    }
  }

  /** After a crash: containers whose removal we owe, once their clients had time to come back for the end. */
  #removeExited(): void {
    for (const container of this.#containers.values()) {
      const { record } = container;
      if (record.state === 'removing')
        this.#inBackground(
          'remove',
          container.transitions.run(() => this.#remove(container)),
        );
      if (record.state !== 'exited' || !record.config.autoRemove) continue;
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        this.#inBackground('auto_remove', this.#autoRemove(container));
      }, AUTO_REMOVE_GRACE_MS).unref();
      this.#timers.add(timer);
    }
  }

  #running(container: Container, verb: string): ContainerProcess {
    const { record, process } = container;
    if (process !== undefined) return process;
    throw new EngineError(
      'ERR_ARCBOX_CONTAINER_STATE',
      `the container ${record.name} is ${record.state} and cannot be ${verb}; only a running one can`,
    );
  }

  async #signal(process: ContainerProcess, signal: number): Promise<void> {
    try {
      await process.signal(signal);
    } catch (error) {
      // It has just ended: what was wanted has happened.
      if (!(error instanceof AgentOpError) || (error.errnoName !== 'ESRCH' && error.errnoName !== 'ENOENT'))
        throw error;
    }
  }

  #inBackground(what: string, work: Promise<void>): void {
    const guarded = work
      .catch((error: unknown) => {
        this.#environment.logger.warn('background_failed', { what, reason: messageOf(error) });
      })
      .finally(() => this.#background.delete(guarded));
    this.#background.add(guarded);
  }
}

async function settlesWithin(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  const { promise: timedOut, resolve } = Promise.withResolvers<false>();
  const timer = setTimeout(() => resolve(false), Math.min(timeoutMs, TIMER_MS_MAX));
  try {
    return await Promise.race([promise.then(() => true), timedOut]);
  } finally {
    clearTimeout(timer);
  }
}
