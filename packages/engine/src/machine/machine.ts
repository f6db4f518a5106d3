/**
 * One virtual machine that containers run in: brought up when it is needed, taken over when an earlier daemon left it
 * running, its disk and its layers mounted. When nothing has used it for a while it idles down (`saved-machine.ts`) and
 * goes on from there when it is needed again.
 *
 * What is true of a machine is in the machine: after a crash we ask the VMM for its disks and the guest for its mounts
 * and objects, and release what nobody names. The only thing stored is the handle to find it again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Layer } from '@arcbox/image';
import { faultPoint } from '@arcbox/sys';
import type { RunningVm, VmConfig, VmDriver } from '@arcbox/vm';
import type { BootAssets } from '../boot-assets.ts';
import type { Config } from '../config.ts';
import { EngineError, messageOf } from '../errors.ts';
import type { EventLog } from '../events/event-log.ts';
import type { HostLayout } from '../host-layout.ts';
import {
  BOOT_TIMEOUT_MS,
  CARD_MTU,
  IDLE_GIVE_BACK_MS,
  IDLE_RETRY_MS,
  MACHINE_STOP_TIMEOUT_MS,
} from '../limits.ts';
import type { Logger } from '../logger.ts';
import { GuestNetwork } from '../network/guest-network.ts';
import type { Room } from '../room.ts';
import type { Store } from '../state/store.ts';
import { AgentSession } from './agent-session.ts';
import { DISK_ID, DISK_MOUNT } from './guest-layout.ts';
import { ensureMachineDisk } from './machine-disk.ts';
import { MachineLayers } from './machine-layers.ts';
import { type MachineRecord, type MachineSize, machineSize } from './machine-record.ts';
import { mountPoints, READ_MOUNTS, setUpOps, trimPageCache, wakeOps } from './machine-set-up.ts';
import { MachineVolumes } from './machine-volumes.ts';
import type { SavedGuest, SavedMachine } from './saved-machine.ts';
import { SavedMemory } from './saved-memory.ts';
import { canApply, type MachineEvent, type MachineState, nextState } from './transitions.ts';

/** The same in every machine: each has a cable of its own to our stack. */
const CARD_MAC = '52:54:00:61:72:63';

/** How a machine came up. */
type Origin = 'booted' | 'restored' | 'adopted';

export interface MachineEnvironment {
  readonly driver: VmDriver;
  readonly layout: HostLayout;
  readonly store: Store;
  readonly config: Config;
  readonly assets: BootAssets;
  readonly logger: Logger;
  readonly events: EventLog;
  /** Called when a machine begins to come up: what it will need can be made ready meanwhile. */
  starting(): void;
  /**
   * Called before a machine counts as running: brings containers and guest together. `wasIdle`: no container ran there
   * when it idled down, and nothing has since.
   */
  reconcile(machine: UpMachine, wasIdle: boolean): Promise<void>;
  readonly room: Room;
  /** Takes away what the machine has and nobody uses, before it idles down. */
  releaseUnused(machine: UpMachine): Promise<void>;
  /** Whether a container runs there, or is being started or removed. */
  inUse(machine: string): boolean;
  /** Digests of the layers that containers there use, or are about to. */
  layersInUse(machine: string): Promise<ReadonlySet<string>>;
  /** Called when the machine has gone, with the reason: nothing of it runs any more. */
  lost(machine: string, why: string): void;
}

/** What containers need of a machine that is up. */
export interface UpMachine {
  readonly name: string;
  readonly vm: RunningVm;
  readonly agent: AgentSession;
  /** Links of container networks. */
  readonly network: GuestNetwork;
  /** Where the layer is mounted in the guest; attaches and mounts it once. */
  mountLayer(layer: Layer): Promise<string>;
  readonly layers: MachineLayers;
  readonly volumes: MachineVolumes;
}

export class Machine {
  readonly record: MachineRecord;
  readonly #environment: MachineEnvironment;
  #retired: boolean;
  #state: MachineState = 'stopped';
  /** The one flight that brings it up; settled while it is up. */
  #up: Promise<UpMachine> | undefined;
  #stopping: Promise<void> | undefined;
  /** Settles when a machine that was up is gone and everybody knows. */
  #gone: Promise<void> = Promise.resolve();
  #disowned = false;
  /** The flight that idles it down; never rejects. */
  #idling: Promise<void> | undefined;
  /** Somebody needs the machine that is about to idle down. */
  #needed = new AbortController();
  #idleTimer: NodeJS.Timeout | undefined;
  readonly #memory: SavedMemory;

  constructor(record: MachineRecord, environment: MachineEnvironment) {
    this.record = record;
    this.#environment = environment;
    this.#retired = record.removing;
    this.#memory = new SavedMemory(record.name, environment);
    if (this.#memory.record !== undefined) this.#state = 'idle';
  }

  get name(): string {
    return this.record.name;
  }

  /** What it is made of when it boots the next time. */
  get size(): MachineSize {
    return machineSize(this.record, this.#environment.config.machine);
  }

  /** It is being removed, and comes up no more. */
  get retired(): boolean {
    return this.#retired;
  }

  retire(): void {
    this.#retired = true;
  }

  /** Throws `ERR_ARCBOX_MACHINE_STATE` when it is being removed. */
  assertStays(): void {
    if (this.#retired)
      throw new EngineError('ERR_ARCBOX_MACHINE_STATE', `the machine ${this.name} is being removed`);
  }

  /** What it takes while it is idle; undefined when it is not. */
  get saved(): SavedMachine | undefined {
    return this.#memory.record;
  }

  get state(): MachineState {
    return this.#state;
  }

  /** The machine, up; boots it when it is not. Throws `ERR_ARCBOX_MACHINE_BOOT` and what the driver throws. */
  async ensure(): Promise<UpMachine> {
    this.#needed.abort();
    await this.#stopping;
    await this.#idling;
    this.assertStays();
    this.#up ??= this.#bringUp(true).then((up) => {
      if (up === undefined)
        throw new EngineError('ERR_ARCBOX_MACHINE_BOOT', `the machine ${this.name} did not come up`);
      return up;
    });
    return this.#up;
  }

  /** Takes the machine over when an earlier daemon left it running; otherwise says that it is lost. */
  async adopt(): Promise<void> {
    if (this.#up !== undefined) return;
    const adopting = this.#bringUp(false);
    // Whoever needs the machine meanwhile waits for this flight, then starts the next one.
    const flight = adopting.then((up) => {
      if (up === undefined)
        throw new EngineError('ERR_ARCBOX_MACHINE_LOST', `the machine ${this.name} is not running`);
      return up;
    });
    flight.catch(() => {});
    this.#up = flight;
    await adopting;
  }

  /** The machine, when it is up; never boots it. */
  async current(): Promise<UpMachine | undefined> {
    return this.#up?.catch(() => undefined);
  }

  /** Powers the machine off. Its containers must have been stopped. */
  async stop(): Promise<void> {
    this.#stopping ??= this.#stop().finally(() => {
      this.#stopping = undefined;
    });
    return this.#stopping;
  }

  /** Lets go of the machine, which goes on: for a daemon that ends and will be followed by another. */
  async disown(): Promise<void> {
    clearTimeout(this.#idleTimer);
    this.#needed.abort();
    await this.#idling;
    const up = await this.current();
    if (up === undefined) return;
    this.#disowned = true;
    up.agent.close();
    await up.vm.disown();
  }

  /**
   * Idles it down now: gives its free memory back, saves it and ends its process. Answers with false when it is needed
   * meanwhile. Throws `ERR_ARCBOX_MACHINE_STATE` when it does not run or is in use, and when it could not be saved what
   * was in the way; then it goes on.
   */
  async idleDown(): Promise<boolean> {
    let up = await this.current();
    // Another one's flight ends first; from there on nothing may come between looking and beginning.
    while (this.#idling !== undefined) {
      await this.#idling;
      up = await this.current();
    }
    if (this.#state === 'idle') return true;
    if (up === undefined || this.#state !== 'running' || this.#environment.inUse(this.name)) {
      const why = this.#state === 'running' ? 'in use' : this.#state;
      throw new EngineError(
        'ERR_ARCBOX_MACHINE_STATE',
        `the machine ${this.name} is ${why} and cannot idle down; only one that runs without containers can`,
      );
    }
    this.#needed = new AbortController();
    const flight = this.#idleDown(up, this.#needed.signal);
    this.#idling = flight.then(
      () => {},
      () => {},
    );
    try {
      return await flight;
    } finally {
      this.#idling = undefined;
    }
  }

  async #stop(): Promise<void> {
    clearTimeout(this.#idleTimer);
    this.#needed.abort();
    await this.#idling;
    await this.#memory.forget();
    const up = await this.current();
    if (this.#state === 'idle') this.#apply('discard', 'stop');
    // It may have died in the meantime.
    if (up === undefined || this.#state !== 'running') return;
    this.#apply('stop');
    // Whatever the connection does from here on is no news.
    up.agent.close();
    await up.vm.stop({ timeoutMs: MACHINE_STOP_TIMEOUT_MS });
    // `#watch` does the rest; wait for it.
    await this.#gone;
  }

  async #bringUp(boot: boolean): Promise<UpMachine | undefined> {
    const { logger } = this.#environment;
    const startedMs = performance.now();
    this.#apply('start');
    this.#environment.starting();
    let vm: RunningVm | undefined;
    try {
      vm = await this.#adoptVm();
      let how: Origin = 'adopted';
      let guest: SavedGuest | undefined;
      // A daemon that died while it saved or restored the machine may have left files that count for nothing.
      if (vm !== undefined) await this.#memory.forget();
      if (vm === undefined) {
        this.#environment.lost(this.name, 'the machine it ran in is gone');
        if (!boot) {
          await this.#memory.check(this.size);
          this.#apply(this.#memory.record === undefined ? 'absent' : 'foundIdle');
          this.#up = undefined;
          return undefined;
        }
        how = 'restored';
        guest = this.#memory.record?.guest;
        vm = await this.#restore();
      }
      if (vm === undefined) {
        how = 'booted';
        guest = undefined;
        vm = await this.#boot();
      }
      const up = await this.#prepare(vm, how, guest);
      await this.#environment.reconcile(up, guest !== undefined);
      this.#gone = this.#watch(up.vm);
      this.#apply('started', how === 'adopted' ? undefined : 'start');
      this.#armIdle(this.#idleMs);
      logger.info(`machine.${how}`, {
        machine: this.name,
        pid: vm.handle.pid,
        ms: Math.round(performance.now() - startedMs),
      });
      return up;
    } catch (error) {
      logger.error('machine.start_failed', { machine: this.name, reason: messageOf(error) });
      try {
        // It could not be made usable: nothing may go on running there unowned.
        await vm?.kill();
        if (vm !== undefined) this.#environment.store.machines.setHandle(this.name, undefined);
      } finally {
        // Whatever else failed: the next caller tries again.
        this.#apply('startFailed');
        this.#up = undefined;
      }
      throw error;
    }
  }

  async #adoptVm(): Promise<RunningVm | undefined> {
    const { driver, store, logger } = this.#environment;
    const handle = store.machines.handle(this.name);
    if (handle === undefined) return undefined;
    try {
      const vm = await driver.adopt(handle);
      // The daemon before us ended while it held the machine still.
      if (vm.state === 'paused') {
        await vm.resume().catch(async (error: unknown) => {
          await vm.kill();
          throw error;
        });
      }
      return vm;
    } catch (error) {
      this.#environment.events.emit('machine', 'die', this.name);
      logger.warn('machine.gone', { machine: this.name, pid: handle.pid, reason: messageOf(error) });
      store.machines.setHandle(this.name, undefined);
      return undefined;
    }
  }

  /** From where it idled down; undefined when that is not possible, and nothing is left of it then. */
  async #restore(): Promise<RunningVm | undefined> {
    const { driver, config, store, logger } = this.#environment;
    await this.#memory.check(this.size);
    // From the moment it runs its memory is ahead of what was saved: a crash from here on means a boot.
    const saved = this.#memory.take();
    if (saved === undefined) return undefined;
    let vm: RunningVm | undefined;
    try {
      faultPoint('wake.restore');
      vm = await driver.restore(saved.snapshot, {
        name: this.name,
        lifetime: { kind: 'adoptable', orphanGraceMs: config.orphanGraceS * 1000 },
        timeoutMs: BOOT_TIMEOUT_MS,
        takeMemory: true,
      });
      faultPoint('wake.record');
      store.machines.setHandle(this.name, vm.handle);
      faultPoint('wake.recorded');
      return vm;
    } catch (error) {
      logger.warn('machine.restore_failed', { machine: this.name, reason: messageOf(error) });
      await vm?.kill();
      return undefined;
    } finally {
      await this.#memory.discardFiles();
    }
  }

  async #boot(): Promise<RunningVm> {
    const { driver, layout, store } = this.#environment;
    await this.#environment.room.needMemory(this.name);
    const disk = layout.machineDisk(this.name);
    await ensureMachineDisk(disk, this.size.diskBytes);
    await using prepared = await driver.create(this.#vmConfig(disk));
    const vm = await prepared.boot();
    try {
      store.machines.setHandle(this.name, vm.handle);
    } catch (error) {
      await vm.kill();
      throw error;
    }
    return vm;
  }

  #vmConfig(disk: string): VmConfig {
    const { config, assets } = this.#environment;
    const { cpus, memoryMib } = this.size;
    return {
      name: this.name,
      architecture: assets.architecture,
      vcpus: cpus,
      memoryMib,
      memory: { kind: 'memfd' },
      kernel: assets.kernel,
      initramfs: assets.initramfs,
      kernelArgs: [],
      disks: [{ id: DISK_ID, path: disk, format: 'raw', readOnly: false }],
      nics: [{ mac: CARD_MAC, mtu: CARD_MTU }],
      lifetime: { kind: 'adoptable', orphanGraceMs: config.orphanGraceS * 1000 },
      bootTimeoutMs: BOOT_TIMEOUT_MS,
    };
  }

  /** Connects to the agent and mounts what is not mounted yet. `guest`: what is known to be there. */
  async #prepare(vm: RunningVm, how: Origin, guest?: SavedGuest): Promise<UpMachine> {
    const agent = await AgentSession.open(vm, this.#environment.logger);
    try {
      let mounts = new Set(guest?.mounts);
      if (guest !== undefined) {
        await agent.batch(wakeOps());
      } else {
        const results = await agent.batch([
          ...(how === 'adopted' ? [] : wakeOps()),
          { case: 'waitDevice', value: { match: { case: 'serial', value: DISK_ID } } },
          READ_MOUNTS,
        ]);
        mounts = mountPoints(results.at(-1));
        const device = results.at(-2)?.result;
        if (device?.case !== 'device')
          throw new EngineError('ERR_ARCBOX_MACHINE_BOOT', 'the agent did not name the disk');
        if (!mounts.has(DISK_MOUNT)) await agent.batch(setUpOps(device.value.path));
      }
      const layers = new MachineLayers({
        vm,
        agent,
        store: this.#environment.store,
        logger: this.#environment.logger,
        inUse: () => this.#environment.layersInUse(this.name),
      });
      await layers.resume(mounts);
      return {
        name: this.name,
        vm,
        agent,
        network: new GuestNetwork(agent, CARD_MTU, guest?.links),
        volumes: new MachineVolumes(vm, agent, mounts),
        layers,
        mountLayer: (layer) => layers.mount(layer),
      };
    } catch (error) {
      agent.close();
      throw error;
    }
  }

  async #watch(vm: RunningVm): Promise<void> {
    const { store, logger } = this.#environment;
    const exit = await vm.exited;
    // Ended by `#idleDown`, which goes on from here.
    if (this.#disowned || this.#memory.record !== undefined) return;
    // It was given up before, and somebody may be bringing up the next one.
    if (!canApply(this.#state, 'exit')) return;
    clearTimeout(this.#idleTimer);
    logger.info('machine.exited', { machine: this.name, reason: exit.reason, detail: exit.detail });
    try {
      store.machines.setHandle(this.name, undefined);
      this.#environment.lost(this.name, `the machine it ran in has ended (${exit.reason})`);
    } catch (error) {
      // The state could not be written. The next boot says the same once more, and nobody awaits this promise.
      logger.error('machine.exit_not_recorded', { machine: this.name, reason: messageOf(error) });
    }
    this.#up = undefined;
    this.#apply('exit', this.#state === 'stopping' ? 'stop' : 'die');
  }

  /** The one place where its state changes, and where that is told: with `action`, when it is news. */
  #apply(event: MachineEvent, action?: 'start' | 'idle' | 'stop' | 'die'): void {
    this.#state = nextState(this.name, this.#state, event);
    if (action !== undefined) this.#environment.events.emit('machine', action, this.name);
  }

  get #idleMs(): number {
    return this.#environment.config.machine.idleS * 1000;
  }

  #armIdle(delayMs: number): void {
    clearTimeout(this.#idleTimer);
    if (!Number.isFinite(delayMs)) return;
    this.#idleTimer = setTimeout(() => void this.#idleWhenQuiet(), delayMs).unref();
  }

  async #idleWhenQuiet(): Promise<void> {
    const { inUse, logger } = this.#environment;
    try {
      const up = await this.current();
      if (up === undefined || this.#state !== 'running') return;
      const quietMs = inUse(this.name) ? 0 : performance.now() - (await up.agent.usedMs());
      if (quietMs < this.#idleMs) this.#armIdle(Math.ceil(this.#idleMs - quietMs));
      else if (!(await this.idleDown())) this.#armIdle(this.#idleMs);
    } catch (error) {
      logger.warn('machine.idle_failed', { machine: this.name, reason: messageOf(error) });
      if (this.#state === 'running') this.#armIdle(Math.max(this.#idleMs, IDLE_RETRY_MS));
    }
  }

  async #idleDown(up: UpMachine, needed: AbortSignal): Promise<boolean> {
    const { driver, logger } = this.#environment;
    const startedMs = performance.now();
    await this.#environment.releaseUnused(up);
    await trimPageCache(up.agent);
    if (driver.capabilities.freePageReporting)
      await sleep(IDLE_GIVE_BACK_MS, undefined, { signal: needed, ref: false }).catch(() => {});
    if (needed.aborted) return false;
    const [, mounts] = await up.agent.batch([{ case: 'sync', value: {} }, READ_MOUNTS]);
    const guest = { mounts: [...mountPoints(mounts)], links: await up.network.links() };
    const { busy } = await up.agent.client();
    if (needed.aborted || busy || this.#environment.inUse(this.name)) return false;
    // From here on whoever needs the machine waits, and nothing is sent to it any more.
    this.#apply('idleDown');
    this.#up = undefined;
    up.agent.close();
    let saved: SavedMachine;
    try {
      faultPoint('idle.pause');
      await up.vm.pause();
      saved = await this.#memory.save(up.vm, guest);
    } catch (error) {
      await this.#resume(up.vm);
      throw error;
    }
    faultPoint('idle.kill');
    await up.vm.kill();
    this.#apply('saved', 'idle');
    logger.info('machine.idle', {
      machine: this.name,
      memory_bytes: saved.memoryBytes,
      ms: Math.round(performance.now() - startedMs),
    });
    return true;
  }

  /** It could not be saved: it goes on, with a session of its own. */
  async #resume(vm: RunningVm): Promise<void> {
    const resuming = (async () => {
      try {
        if (vm.state === 'paused') await vm.resume();
        const up = await this.#prepare(vm, 'adopted');
        await this.#environment.reconcile(up, false);
        this.#apply('resumed');
        return up;
      } catch (error) {
        // Its end is told by `#watch`.
        await vm.kill();
        await this.#gone;
        throw error;
      }
    })();
    resuming.catch(() => {});
    this.#up = resuming;
    await resuming.catch((error: unknown) => {
      // It may have ended before, and then nobody else forgets this flight: whoever needs the machine boots it.
      if (this.#up === resuming) this.#up = undefined;
      if (this.#state === 'idling') this.#apply('exit');
      this.#environment.logger.error('machine.resume_failed', {
        machine: this.name,
        reason: messageOf(error),
      });
    });
  }
}
