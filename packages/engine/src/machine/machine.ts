/**
 * One virtual machine that containers run in: brought up when it is needed, taken over when an earlier daemon left it
 * running, its disk and its layers mounted.
 *
 * What is true of a machine is in the machine: after a crash we ask the VMM for its disks and the guest for its mounts
 * and objects, and release what nobody names. The only thing stored is the handle to find it again.
 */
import { randomBytes } from 'node:crypto';
import type { Layer } from '@arcbox/image';
import type { OpInput } from '@arcbox/protocol';
import type { RunningVm, VmConfig, VmDriver } from '@arcbox/vm';
import type { BootAssets } from '../boot-assets.ts';
import type { Config } from '../config.ts';
import { EngineError, messageOf } from '../errors.ts';
import type { HostLayout } from '../host-layout.ts';
import { BOOT_TIMEOUT_MS, MACHINE_STOP_TIMEOUT_MS } from '../limits.ts';
import type { Logger } from '../logger.ts';
import type { Store } from '../state/store.ts';
import { AgentSession } from './agent-session.ts';
import {
  BUNDLES,
  CGROUP_PARENT,
  CGROUP_ROOT,
  DISK_ID,
  DISK_MOUNT,
  layerDiskId,
  layerMount,
  layerNumberOfDisk,
  UPPERS,
} from './guest-layout.ts';
import { ensureMachineDisk } from './machine-disk.ts';

const MS_RDONLY = 1n;
const MS_NODEV = 4n;
const MS_NOATIME = 1024n;
const ENTROPY_BYTES = 64;
const CONTROLLERS = ['cpu', 'memory', 'pids', 'io'];

export type MachineState = 'stopped' | 'starting' | 'running' | 'stopping';

export interface MachineEnvironment {
  readonly driver: VmDriver;
  readonly layout: HostLayout;
  readonly store: Store;
  readonly config: Config;
  readonly assets: BootAssets;
  readonly logger: Logger;
  /** Called before a machine counts as running: brings containers and guest together. */
  reconcile(machine: UpMachine): Promise<void>;
  /** Called when the machine has gone, with the reason: nothing of it runs any more. */
  lost(machine: string, why: string): void;
}

/** What containers need of a machine that is up. */
export interface UpMachine {
  readonly name: string;
  readonly vm: RunningVm;
  readonly agent: AgentSession;
  /** Where the layer is mounted in the guest; attaches and mounts it once. */
  mountLayer(layer: Layer): Promise<string>;
}

export class Machine {
  readonly name: string;
  readonly #environment: MachineEnvironment;
  #state: MachineState = 'stopped';
  /** The one flight that brings it up; settled while it is up. */
  #up: Promise<UpMachine> | undefined;
  #stopping: Promise<void> | undefined;
  /** Settles when a machine that was up is gone and everybody knows. */
  #gone: Promise<void> = Promise.resolve();
  #disowned = false;

  constructor(name: string, environment: MachineEnvironment) {
    this.name = name;
    this.#environment = environment;
  }

  get state(): MachineState {
    return this.#state;
  }

  /** The machine, up; boots it when it is not. Throws `ERR_ARCBOX_MACHINE_BOOT` and what the driver throws. */
  async ensure(): Promise<UpMachine> {
    await this.#stopping;
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
    const up = await this.current();
    if (up === undefined) return;
    this.#disowned = true;
    up.agent.close();
    await up.vm.disown();
  }

  async #stop(): Promise<void> {
    const up = await this.current();
    if (up === undefined) return;
    this.#state = 'stopping';
    // Whatever the connection does from here on is no news.
    up.agent.close();
    await up.vm.stop({ timeoutMs: MACHINE_STOP_TIMEOUT_MS });
    // `#watch` does the rest; wait for it.
    await this.#gone;
  }

  async #bringUp(boot: boolean): Promise<UpMachine | undefined> {
    const { logger } = this.#environment;
    const startedMs = performance.now();
    this.#state = 'starting';
    let vm: RunningVm | undefined;
    try {
      vm = await this.#adoptVm();
      const how = vm === undefined ? 'booted' : 'adopted';
      if (vm === undefined) {
        this.#environment.lost(this.name, 'the machine it ran in is gone');
        if (!boot) {
          this.#state = 'stopped';
          this.#up = undefined;
          return undefined;
        }
        vm = await this.#boot();
      }
      const up = await this.#prepare(vm, how);
      await this.#environment.reconcile(up);
      this.#gone = this.#watch(up);
      this.#state = 'running';
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
        if (vm !== undefined) this.#environment.store.setMachineHandle(this.name, undefined);
      } finally {
        // Whatever else failed: the next caller tries again.
        this.#state = 'stopped';
        this.#up = undefined;
      }
      throw error;
    }
  }

  async #adoptVm(): Promise<RunningVm | undefined> {
    const { driver, store, logger } = this.#environment;
    const handle = store.machineHandle(this.name);
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
      logger.warn('machine.gone', { machine: this.name, pid: handle.pid, reason: messageOf(error) });
      store.setMachineHandle(this.name, undefined);
      return undefined;
    }
  }

  async #boot(): Promise<RunningVm> {
    const { driver, layout, store } = this.#environment;
    const disk = layout.machineDisk(this.name);
    await ensureMachineDisk(disk);
    await using prepared = await driver.create(this.#vmConfig(disk));
    const vm = await prepared.boot();
    try {
      store.setMachineHandle(this.name, vm.handle);
    } catch (error) {
      await vm.kill();
      throw error;
    }
    return vm;
  }

  #vmConfig(disk: string): VmConfig {
    const { config, assets } = this.#environment;
    return {
      name: this.name,
      architecture: assets.architecture,
      vcpus: config.machine.cpus,
      memoryMib: config.machine.memoryMib,
      memory: { kind: 'memfd' },
      kernel: assets.kernel,
      initramfs: assets.initramfs,
      kernelArgs: [],
      disks: [{ id: DISK_ID, path: disk, format: 'raw', readOnly: false }],
      nics: [],
      lifetime: { kind: 'adoptable', orphanGraceMs: config.orphanGraceS * 1000 },
      bootTimeoutMs: BOOT_TIMEOUT_MS,
    };
  }

  /** Connects to the agent and mounts what is not mounted yet. */
  async #prepare(vm: RunningVm, how: 'booted' | 'adopted'): Promise<UpMachine> {
    const agent = await AgentSession.open(vm, this.#environment.logger);
    try {
      const clock: OpInput[] =
        how === 'booted'
          ? [
              { case: 'setTime', value: { unixNs: BigInt(Date.now()) * 1_000_000n } },
              { case: 'reseed', value: { entropy: randomBytes(ENTROPY_BYTES) } },
            ]
          : [];
      const results = await agent.batch([
        ...clock,
        { case: 'waitDevice', value: { match: { case: 'serial', value: DISK_ID } } },
        { case: 'read', value: { path: '/proc/self/mounts' } },
      ]);
      const mounts = mountPoints(results.at(-1)?.result.value);
      const device = results.at(-2)?.result;
      if (device?.case !== 'device')
        throw new EngineError('ERR_ARCBOX_MACHINE_BOOT', 'the agent did not name the disk');
      if (!mounts.has(DISK_MOUNT)) await agent.batch(setUpOps(device.value.path));
      const layers = new Map<number, Promise<string>>();
      for (const disk of vm.hotDisks) {
        const number = layerNumberOfDisk(disk.id);
        if (number === undefined) continue;
        const target = layerMount(number);
        layers.set(
          number,
          mounts.has(target) ? Promise.resolve(target) : mountHotLayer(agent, number, disk.lun),
        );
      }
      await Promise.all(layers.values());
      return {
        name: this.name,
        vm,
        agent,
        mountLayer: (layer) => this.#mountLayer(vm, agent, layers, layer),
      };
    } catch (error) {
      agent.close();
      throw error;
    }
  }

  #mountLayer(
    vm: RunningVm,
    agent: AgentSession,
    layers: Map<number, Promise<string>>,
    layer: Layer,
  ): Promise<string> {
    const number = this.#environment.store.layerNumber(layer.digest);
    let mounting = layers.get(number);
    if (mounting === undefined) {
      mounting = (async () => {
        const id = layerDiskId(number);
        const attached = vm.hotDisks.find((disk) => disk.id === id);
        const { lun } =
          attached ?? (await vm.attachDisk({ id, path: layer.path, format: 'raw', readOnly: true }));
        return mountHotLayer(agent, number, lun);
      })();
      layers.set(number, mounting);
      // The next container tries again; the disk may be attached by then.
      mounting.catch(() => layers.delete(number));
    }
    return mounting;
  }

  async #watch(up: UpMachine): Promise<void> {
    const { store, logger } = this.#environment;
    const exit = await up.vm.exited;
    if (this.#disowned) return;
    logger.info('machine.exited', { machine: this.name, reason: exit.reason, detail: exit.detail });
    up.agent.close();
    try {
      store.setMachineHandle(this.name, undefined);
      this.#environment.lost(this.name, `the machine it ran in has ended (${exit.reason})`);
    } catch (error) {
      // The state could not be written. The next boot says the same once more, and nobody awaits this promise.
      logger.error('machine.exit_not_recorded', { machine: this.name, reason: messageOf(error) });
    }
    this.#up = undefined;
    this.#state = 'stopped';
  }
}

/** What a machine gets once per boot. */
function setUpOps(diskDevice: string): OpInput[] {
  return [
    {
      case: 'mount',
      value: {
        source: diskDevice,
        target: DISK_MOUNT,
        type: 'ext4',
        flags: MS_NOATIME,
        data: 'discard,noinit_itable',
        mkdirTarget: true,
      },
    },
    { case: 'mkdir', value: { path: UPPERS, mode: 0o700, parents: true } },
    { case: 'mkdir', value: { path: BUNDLES, mode: 0o700, parents: true } },
    // Controllers are switched on one by one: a kernel without one of them still runs containers without that limit.
    { case: 'mkdir', value: { path: CGROUP_ROOT + CGROUP_PARENT, mode: 0o755, parents: true } },
    ...CONTROLLERS.flatMap((controller): OpInput[] => [
      {
        case: 'write',
        value: { path: `${CGROUP_ROOT}/cgroup.subtree_control`, data: Buffer.from(`+${controller}`) },
      },
      {
        case: 'write',
        value: {
          path: `${CGROUP_ROOT}${CGROUP_PARENT}/cgroup.subtree_control`,
          data: Buffer.from(`+${controller}`),
        },
      },
    ]),
  ];
}

async function mountHotLayer(agent: AgentSession, number: number, lun: number): Promise<string> {
  const [device] = await agent.batch([
    { case: 'waitDevice', value: { match: { case: 'scsiLun', value: lun } } },
  ]);
  if (device?.result.case !== 'device') {
    throw new EngineError('ERR_ARCBOX_MACHINE_BOOT', `the agent did not name the disk at LUN ${lun}`);
  }
  const target = layerMount(number);
  await agent.batch([
    {
      case: 'mount',
      value: {
        source: device.result.value.path,
        target,
        type: 'squashfs',
        flags: MS_RDONLY | MS_NODEV | MS_NOATIME,
        mkdirTarget: true,
      },
    },
  ]);
  return target;
}

/** The second column of /proc/self/mounts. */
function mountPoints(result: unknown): Set<string> {
  const data = (result as { data?: unknown } | undefined)?.data;
  const text = data instanceof Uint8Array ? Buffer.from(data).toString('utf8') : '';
  return new Set(text.split('\n').map((line) => line.split(' ')[1] ?? ''));
}
