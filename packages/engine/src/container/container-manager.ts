/**
 * Containers: what the API can do with them, and bringing them together with what is true in the machine.
 *
 * A container is a record until it is started. Whatever has a side effect in a machine is recorded before it begins
 * (`starting`) and after it was done (`running`, `exited`), so that a new daemon knows what to look for; `reconcile`
 * compares that with the agent's objects and the guest's directories and releases what nobody names.
 *
 * Here is what can be asked for, one call at a time of one container. Who does it: `ContainerRuns` (a run from its launch
 * to its release), `ContainerRemoval`, `ContainerReconciler` (what another daemon, or another boot, left), `Restarts`.
 */

import { AgentOpError } from '@arcbox/protocol';
import { faultPoint } from '@arcbox/sys';
import { Background } from '../background.ts';
import { EngineError } from '../errors.ts';
import { CONTAINERS_MAX, STOP_TIMEOUT_MS, TIMER_MS_MAX } from '../limits.ts';
import type { LogView } from '../log/log-view.ts';
import { shareDisksByWeight } from '../machine/disk-scheduler.ts';
import type { UpMachine } from '../machine/machine.ts';
import { joinNetwork } from '../network/container-network.ts';
import { borrowedVolumes } from '../volume/mounts.ts';
import { Container, type ContainerExit } from './container.ts';
import type { ContainerAttachment } from './container-attachment.ts';
import type { ContainerEnvironment } from './container-environment.ts';
import type { ContainerProcess } from './container-process.ts';
import { ContainerReconciler } from './container-reconciler.ts';
import type { ContainerRecord } from './container-record.ts';
import { ContainerRemoval } from './container-removal.ts';
import { ContainerRuns } from './container-runs.ts';
import { type AttachOptions, attach, type LogOptions, readLogs } from './container-streams.ts';
import { ContainerTable } from './container-table.ts';
import { type CreateOptions, containerConfig } from './create.ts';
import type { ResourceLimits } from './host-options.ts';
import { checkRestart, type RestartPolicy } from './life-options.ts';
import { chooseMachine } from './machine-choice.ts';
import { checkName, generateName, newContainerId } from './names.ts';
import type { TerminalSize } from './oci-spec.ts';
import { Restarts, wantsRestart } from './restarts.ts';
import { applyLimits, freeze, mergeLimits } from './running-cgroup.ts';
import { nextState } from './transitions.ts';

const SIGKILL = 9;

export interface StartOptions {
  /** Only when it has not been started that often yet: a client that lost the answer can ask again. */
  readonly run?: number;
  readonly terminalSize?: TerminalSize;
}

export class ContainerManager {
  readonly #environment: ContainerEnvironment;
  readonly #containers: ContainerTable;
  readonly #background: Background;
  readonly #restarts: Restarts;
  readonly #removal: ContainerRemoval;
  readonly #runs: ContainerRuns;
  readonly #reconciler: ContainerReconciler;
  #ending = false;

  constructor(environment: ContainerEnvironment) {
    this.#environment = environment;
    const containers = new ContainerTable(environment);
    const background = new Background(environment.logger);
    const restarts = new Restarts((container) => background.run('restart', this.#start(container, {}, true)));
    const removal = new ContainerRemoval(environment, containers, background);
    const runs = new ContainerRuns(environment, { containers, background, restarts, removal });
    this.#containers = containers;
    this.#background = background;
    this.#restarts = restarts;
    this.#removal = removal;
    this.#runs = runs;
    this.#reconciler = new ContainerReconciler(environment, { containers, background, runs, removal });
  }

  // --- Asking -----------------------------------------------------------------------------------

  list(): ContainerRecord[] {
    return this.#containers.list();
  }

  /** In the order of their creation. */
  all(): Container[] {
    return this.#containers.all();
  }

  /** Whether a process of it runs, or is about to. */
  isLive(id: string): boolean {
    return this.#containers.isLive(id);
  }

  inspect(reference: string): ContainerRecord {
    return this.#containers.inspect(reference);
  }

  /** Containers, in any state, that mount the volume. */
  usersOfVolume(name: string): ContainerRecord[] {
    return this.#containers.usersOfVolume(name);
  }

  /** By ID, name, or the beginning of an ID. Throws `ERR_ARCBOX_CONTAINER_NOT_FOUND`. */
  find(reference: string): Container {
    return this.#containers.find(reference);
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
    const { store, images, logger, networks } = this.#environment;
    const image = await images.resolve(options.image);
    const { idempotencyKey } = options;
    const made = await this.#madeBefore(idempotencyKey);
    if (made !== undefined) return made;
    await this.#environment.room.needDisk('a container');
    // The same may have been asked for meanwhile.
    if (idempotencyKey !== undefined && store.containerIdByKey(idempotencyKey) !== undefined)
      return this.create(options);
    if (this.#containers.size >= CONTAINERS_MAX) {
      throw new EngineError('ERR_ARCBOX_LIMIT', `there are ${CONTAINERS_MAX} containers; remove some first`);
    }
    const names = new Set(this.#containers.all().map(({ record }) => record.name));
    if (options.name !== undefined) checkName(options.name);
    const id = newContainerId();
    const borrowed = (options.volumesFrom ?? []).flatMap((text) =>
      borrowedVolumes(text, (other) => this.find(other).record.config.mounts),
    );
    const config = containerConfig(options, image, id, borrowed);
    const machine = this.#environment.machine(chooseMachine(options.machine, config.host, this.#containers));
    const record: ContainerRecord = {
      id,
      name: options.name ?? generateName((name) => names.has(name)),
      state: 'created',
      run: 0,
      machine: machine.name,
      imageId: image.id,
      config,
      createdMs: Date.now(),
      startedMs: undefined,
      finishedMs: undefined,
      exitCode: undefined,
      error: '',
      restarts: 0,
      stoppedByUser: false,
    };
    images.assertPresent(image);
    machine.assertStays();
    const volumes = record.config.mounts.filter((mount) => mount.type === 'volume');
    faultPoint('create.record');
    const container = new Container(record, this.#environment);
    // A volume that nobody named is not to be left over without its container, nor a container without its address:
    // whoever asks for it again after a crash gets the one that is there.
    try {
      store.transaction(() => {
        store.insertContainer(record, idempotencyKey);
        joinNetwork(networks, record);
        this.#environment.volumes.register(volumes);
      });
    } catch (error) {
      networks.release(id);
      throw error;
    }
    // From here on its volumes and its name are taken; whoever wants to start or remove it waits.
    this.#containers.add(container);
    faultPoint('create.recorded');
    await container.transitions.run(async () => {
      try {
        await this.#environment.volumes.makeDisks(volumes);
      } catch (error) {
        const finish = await this.#removal.remove(container, true);
        await finish();
        throw error;
      }
    });
    container.emit('create');
    logger.info('container.created', { id, name: record.name, image: options.image });
    return { ...record };
  }

  async #madeBefore(idempotencyKey: string | undefined): Promise<ContainerRecord | undefined> {
    const id =
      idempotencyKey === undefined ? undefined : this.#environment.store.containerIdByKey(idempotencyKey);
    if (id === undefined) return undefined;
    // It may still be in the making.
    await this.find(id).transitions.run(async () => {});
    return { ...this.find(id).record };
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
      await container.cleanUp;
      // Stopped, removed, or started by somebody, while it waited for its turn and for the last run's left-overs.
      if (again && record.state !== 'restarting') return;
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
        await this.#runs.start(container);
      } catch (error) {
        this.#runs.startFailed(container, error);
        throw error;
      }
    });
  }

  /** Sends a signal to its process; one that waits for its next start stays stopped. Throws `ERR_ARCBOX_CONTAINER_STATE`. */
  async kill(reference: string, signal = SIGKILL): Promise<void> {
    const container = this.find(reference);
    if (container.record.state === 'restarting') {
      // As docker: its policy gives up, and there is no process to take the signal.
      container.markStopped();
      this.#restarts.cancel(container);
      return;
    }
    const process = this.#containers.running(container, 'killed');
    container.markStopped();
    await signalTo(process, signal);
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
    if (record.state === 'paused') {
      await this.unpause(record.id).catch((error: unknown) => {
        // It ended, or somebody else let it go on, while we waited.
        if (record.state === 'paused') throw error;
      });
    }
    const { exited } = container.waiters(record.run);
    const timeoutMs = options.timeoutMs ?? record.config.stopTimeoutMs ?? STOP_TIMEOUT_MS;
    if (timeoutMs > 0) {
      const signal = options.signal ?? record.config.stopSignal;
      faultPoint('stop.signal');
      await signalTo(process, signal);
      container.emit('kill', { signal: String(signal) });
      if (await settlesWithin(exited.promise, timeoutMs)) {
        container.emit('stop');
        return;
      }
    }
    faultPoint('stop.kill');
    await signalTo(process, SIGKILL);
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
      const other = this.#containers.all().find((candidate) => candidate.record.name === name);
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

  /** Changes limits, of a running container at once, and what becomes of it when it ends; what is left out stays. */
  async update(reference: string, limits: ResourceLimits, restart?: RestartPolicy): Promise<ContainerRecord> {
    const container = this.find(reference);
    return container.transitions.run(async () => {
      const { record } = container;
      const { config } = record;
      const merged = mergeLimits(config.host.limits, limits);
      const life = restart === undefined ? config.life : { ...config.life, restart };
      checkRestart(life.restart, config.autoRemove);
      if (container.process !== undefined && Object.keys(limits).length > 0) {
        const up = await this.#environment.machine(record.machine).ensure();
        if (limits.blkioWeight !== undefined) await shareDisksByWeight(up.agent);
        await applyLimits(up.agent, record.id, merged);
      }
      container.change({ config: { ...config, host: { ...config.host, limits: merged }, life } });
      // It waits for a start that its new policy does not want.
      if (record.state === 'restarting' && !wantsRestart(container, false)) this.#restarts.cancel(container);
      container.emit('update');
      return { ...record };
    });
  }

  /** Stops it, when it runs, and starts it. */
  async restart(reference: string, options: { timeoutMs?: number; signal?: number } = {}): Promise<void> {
    const container = this.find(reference);
    container.restarting += 1;
    try {
      await this.stop(container.record.id, options);
      await this.#start(container, {}, false);
    } finally {
      container.restarting -= 1;
      if (container.record.config.autoRemove && !container.live)
        this.#background.run('auto_remove', this.#removal.autoRemove(container));
    }
    container.emit('restart');
  }

  async resize(reference: string, size: { rows: number; columns: number }): Promise<void> {
    const container = this.find(reference);
    await this.#containers.running(container, 'resized').resize(size);
  }

  /** Removes it with its log and everything it wrote. `force` kills it first. */
  async remove(reference: string, options: { force?: boolean; volumes?: boolean } = {}): Promise<void> {
    const container = this.find(reference);
    if (options.force === true) await this.stop(container.record.id, { timeoutMs: 0 });
    const finish = await container.transitions.run(() =>
      this.#removal.remove(container, options.volumes === true),
    );
    await finish();
  }

  /** Removes those that do not run. Answers with their IDs. */
  async prune(): Promise<string[]> {
    const removed: string[] = [];
    for (const { record } of this.#containers.all()) {
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
    return attach(this.find(reference), options, this.#removal);
  }

  /** Reads the log, or a part of it, from `cursor` on; with `follow` until the run that goes on has ended. */
  async logs(
    reference: string,
    options: LogOptions = {},
  ): Promise<{ reader: LogView; position: number; release(): Promise<void> }> {
    return readLogs(this.find(reference), options);
  }

  // --- With the machine ---------------------------------------------------------------------------

  /** Brings the store and the machine together; called before a machine counts as running. */
  async reconcile(up: UpMachine): Promise<void> {
    await this.#reconciler.reconcile(up);
  }

  /** Before a machine idles down: what was removed without it goes from its disk. */
  async tidy(up: UpMachine): Promise<void> {
    await this.#reconciler.tidy(up);
  }

  /** The machine is gone, and with it what ran there. Those that have a process learn it from their connection. */
  machineLost(machine: string, why: string): void {
    this.#reconciler.machineLost(machine, why);
  }

  /** Whether a container of the machine runs, or one is in the middle of a transition. */
  inUse(machine: string): boolean {
    return this.#containers
      .all()
      .some(
        ({ record, live, transitions }) =>
          record.machine === machine && (live || record.state === 'restarting' || transitions.busy),
      );
  }

  /** From now on the ends of processes are not recorded: the machine is left to the next daemon. */
  disown(): void {
    this.end();
    this.#runs.disowned = true;
  }

  /** Those of a machine, in any state. */
  of(machine: string): Container[] {
    return this.#containers.all().filter(({ record }) => record.machine === machine);
  }

  /** Stops these containers (default: all), when they run or are being started; rejects, after all were tried, when one could not be. */
  async stopAll(containers = this.#containers.all()): Promise<void> {
    // What ends now was not stopped by its user, and what would start again waits for the next time.
    using _held = this.#restarts.hold(containers);
    // What waits to be started again would bring its machine back; the next daemon finds that it is wanted.
    if (!this.#ending) for (const container of containers) this.#restarts.cancel(container);
    const stops = await Promise.allSettled(containers.map((container) => this.#stop(container)));
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
    for (const container of this.#containers.all()) {
      const { state } = container.record;
      if (state === 'exited') this.#restarts.consider(container, true);
      if (state === 'restarting') this.#restarts.goOn(container);
    }
  }

  /** Resolves when nothing is going on behind anybody's back. */
  async drain(): Promise<void> {
    this.#removal.stop();
    await this.#background.drain();
  }
}

async function signalTo(process: ContainerProcess, signal: number): Promise<void> {
  try {
    await process.signal(signal);
  } catch (error) {
    // It has just ended: what was wanted has happened.
    if (!(error instanceof AgentOpError) || (error.errnoName !== 'ESRCH' && error.errnoName !== 'ENOENT'))
      throw error;
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
