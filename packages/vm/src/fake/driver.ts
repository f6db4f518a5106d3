/** The fake driver: the contract without QEMU, for tests of what stands on it. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import type { AgentHandlers } from '@arcbox/protocol';
import type {
  Capabilities,
  PreparedVm,
  RestoreOptions,
  RunningVm,
  Snapshot,
  VmConfig,
  VmDriver,
  VmHandle,
} from '../contract.ts';
import { VmError } from '../errors.ts';
import type { FaultHook } from '../faults.ts';
import { gone } from '../refusals.ts';
import { validateConfig, validateName } from '../validate.ts';
import { FakeGuest, type FakeMemory } from './fake-guest.ts';
import { FakeHost, FakeMachine } from './fake-host.ts';
import { FakeVm } from './fake-vm.ts';

export interface FakeDriverOptions {
  readonly host?: FakeHost;
  /** The agent's behaviour instead of the guest's own. */
  readonly handlers?: (guest: FakeGuest, config: VmConfig) => AgentHandlers;
  readonly fault?: FaultHook;
}

export class FakeDriver implements VmDriver {
  readonly name = 'fake';
  readonly capabilities: Capabilities = {
    snapshot: true,
    diskHotplug: true,
    freePageReporting: false,
    vsock: false,
    virtiofs: false,
  };
  readonly host: FakeHost;
  readonly #handlers: (guest: FakeGuest, config: VmConfig) => AgentHandlers;
  readonly #fault: FaultHook;

  constructor(options: FakeDriverOptions = {}) {
    this.host = options.host ?? new FakeHost();
    this.#handlers = options.handlers ?? ((guest) => guest.handlers());
    this.#fault = options.fault ?? (() => undefined);
  }

  async create(config: VmConfig): Promise<PreparedVm> {
    validateConfig(config);
    let used = false;
    const claim = (): void => {
      if (used)
        throw new VmError('ERR_ARCBOX_VM_STATE', `The machine ${config.name} was booted or disposed already`);
      used = true;
    };
    return {
      config,
      boot: async ({ signal } = {}) => {
        claim();
        const secret = randomBytes(16).toString('hex');
        return this.#start(config, secret, new FakeGuest(), undefined, signal);
      },
      [Symbol.asyncDispose]: async () => {
        used = true;
      },
    };
  }

  async restore(snapshot: Snapshot, options: RestoreOptions): Promise<RunningVm> {
    validateName(options.name);
    if (snapshot.driver !== this.name) {
      throw new VmError(
        'ERR_ARCBOX_VM_SNAPSHOT',
        `The snapshot is one of the driver ${snapshot.driver}, not ${this.name}`,
      );
    }
    const guest = new FakeGuest();
    const memory: FakeMemory = JSON.parse(fs.readFileSync(snapshot.memoryPath, 'utf8'));
    guest.load(memory);
    const taken = options.takeMemory === true;
    if (taken) fs.rmSync(snapshot.memoryPath);
    const pathOf = (id: string, path: string): string => options.diskPaths?.[id] ?? path;
    guest.disks = snapshot.hotDisks.map((disk) => ({ ...disk, path: pathOf(disk.id, disk.path) }));
    const disks = snapshot.config.disks.map((disk) => ({ ...disk, path: pathOf(disk.id, disk.path) }));
    const config = { ...snapshot.config, name: options.name, lifetime: options.lifetime, disks };
    return this.#start(config, snapshot.agentSecret, guest, { path: snapshot.memoryPath, taken }, undefined);
  }

  async adopt(handle: VmHandle): Promise<RunningVm> {
    const machine = this.host.machines.get(handle.pid);
    if (machine === undefined) throw gone(handle.config.name);
    machine.adopted();
    try {
      await this.#fault('adopt:monitor');
    } catch (error) {
      machine.kill('it could not be taken over');
      throw error;
    }
    return new FakeVm(machine, this.#fault);
  }

  async #start(
    config: VmConfig,
    agentSecret: string,
    guest: FakeGuest,
    snapshotMemory: { readonly path: string; readonly taken: boolean } | undefined,
    signal: AbortSignal | undefined,
  ): Promise<RunningVm> {
    const pid = this.host.nextPid();
    const handle: VmHandle = {
      driver: this.name,
      runDir: `/fake/${pid}`,
      pid,
      startTime: String(pid),
      config,
      agentSecret,
      accelerator: 'fake',
      cgroups: [],
      ...(snapshotMemory === undefined
        ? {}
        : { [snapshotMemory.taken ? 'takenMemoryPath' : 'privateMemoryPath']: snapshotMemory.path }),
    };
    signal?.throwIfAborted();
    await this.#fault('boot:open-files');
    await this.#fault('boot:spawn');
    const isTemplate = snapshotMemory === undefined && config.memory.kind === 'template';
    if (isTemplate && config.memory.kind === 'template') {
      fs.writeFileSync(config.memory.path, '', { flag: 'wx' });
    }
    const machine = new FakeMachine(this.host, handle, guest, this.#handlers(guest, config));
    this.host.machines.set(pid, machine);
    const vm = new FakeVm(machine, this.#fault);
    try {
      await this.#fault('boot:started');
      await this.#fault('boot:monitor');
      await vm.openAgent();
      await this.#fault('boot:agent');
      await this.#fault('boot:ready');
      signal?.throwIfAborted();
      return vm;
    } catch (error) {
      await vm.kill();
      if (isTemplate && config.memory.kind === 'template') fs.rmSync(config.memory.path);
      throw error;
    }
  }
}
