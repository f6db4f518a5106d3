/** A fake running machine: everything of the contract, no process. */
import fs from 'node:fs';
import path from 'node:path';
import { type Duplex, duplexPair } from 'node:stream';
import { AgentClient, type AgentSession, serveAgent } from '@arcbox/protocol';
import type {
  DiskConfig,
  HotDisk,
  RunningVm,
  Snapshot,
  VmConfig,
  VmExit,
  VmHandle,
  VmInspect,
  VmState,
} from '../contract.ts';
import { reasonOf, VmError } from '../errors.ts';
import type { FaultHook } from '../faults.ts';
import { STOP_TIMEOUT_MS } from '../limits.ts';
import {
  mustBe,
  mustBeAdoptable,
  mustBeNewDisk,
  mustHaveHotDisk,
  mustHaveNic,
  mustLive,
} from '../refusals.ts';
import { validateDisk } from '../validate.ts';
import type { FakeMachine } from './fake-host.ts';

export class FakeVm implements RunningVm {
  readonly name: string;
  readonly config: VmConfig;
  readonly handle: VmHandle;
  readonly exited: Promise<VmExit>;
  readonly #machine: FakeMachine;
  readonly #fault: FaultHook;
  #agent: Promise<AgentClient> | undefined;
  #session: AgentSession | undefined;
  #disowned = false;

  constructor(machine: FakeMachine, fault: FaultHook) {
    this.#machine = machine;
    this.#fault = fault;
    this.handle = machine.handle;
    this.config = machine.handle.config;
    this.name = machine.handle.config.name;
    this.exited = machine.exited.then(async (exit) => {
      if (this.#disowned) return new Promise<VmExit>(() => undefined);
      await this.#closeAgent();
      return exit;
    });
  }

  get state(): VmState {
    return this.#disowned ? 'stopped' : this.#machine.state;
  }

  get hotDisks(): readonly HotDisk[] {
    return this.#machine.guest.disks;
  }

  async openAgent(): Promise<AgentClient> {
    if (this.#agent !== undefined) return this.#agent;
    mustBe(this.name, this.state, 'running');
    const [host, guest] = duplexPair();
    this.#session = serveAgent(guest, this.#machine.handlers);
    const secret = Buffer.from(this.handle.agentSecret, 'hex');
    const agent = AgentClient.connect(host, { secret, timeoutMs: this.config.bootTimeoutMs });
    this.#agent = agent;
    const forget = (): void => {
      if (this.#agent === agent) this.#agent = undefined;
    };
    agent.then((client) => client.closed.then(forget), forget);
    return agent;
  }

  async openNic(index: number): Promise<Duplex> {
    mustLive(this.name, this.state);
    mustHaveNic(this.config, index);
    const [host, guest] = duplexPair();
    this.#machine.nics[index]?.destroy();
    this.#machine.nics[index] = guest;
    return host;
  }

  nicPath(index: number): undefined {
    mustLive(this.name, this.state);
    mustHaveNic(this.config, index);
  }

  async pause(): Promise<void> {
    mustBe(this.name, this.state, 'running');
    this.#machine.pause();
  }

  async resume(): Promise<void> {
    mustBe(this.name, this.state, 'paused');
    this.#machine.resume();
  }

  async snapshot(directory: string): Promise<Snapshot> {
    mustLive(this.name, this.state);
    const { config, driver, agentSecret, accelerator } = this.handle;
    const { privateMemoryPath, takenMemoryPath } = this.handle;
    const isTemplate =
      config.memory.kind === 'template' && (privateMemoryPath ?? takenMemoryPath) === undefined;
    const statePath = path.join(directory, 'state');
    const memoryPath =
      isTemplate && config.memory.kind === 'template' ? config.memory.path : path.join(directory, 'memory');
    try {
      await this.#fault('snapshot:paused');
      fs.writeFileSync(statePath, '{}', { flag: 'wx' });
      await this.#fault('snapshot:state');
      fs.writeFileSync(memoryPath, JSON.stringify(this.#machine.guest.save()), {
        flag: isTemplate ? 'w' : 'wx',
      });
      await this.#fault('snapshot:memory');
    } catch (cause) {
      fs.rmSync(statePath, { force: true });
      if (!isTemplate) fs.rmSync(memoryPath, { force: true });
      throw new VmError(
        'ERR_ARCBOX_VM_SNAPSHOT',
        `The machine ${this.name} could not be snapshotted: ${reasonOf(cause)}`,
        { cause },
      );
    }
    if (isTemplate && this.state === 'running') this.#machine.pause();
    return { driver, statePath, memoryPath, config, hotDisks: this.hotDisks, agentSecret, accelerator };
  }

  async attachDisk(disk: DiskConfig): Promise<HotDisk> {
    mustLive(this.name, this.state);
    validateDisk(disk);
    mustBeNewDisk(this.config, this.hotDisks, disk);
    try {
      await this.#fault('attach:open');
      await this.#fault('attach:node');
      await this.#fault('attach:device');
    } catch (cause) {
      throw new VmError(
        'ERR_ARCBOX_VM_DISK',
        `The disk ${disk.id} could not be attached: ${reasonOf(cause)}`,
        { cause },
      );
    }
    const taken = new Set(this.hotDisks.map(({ lun }) => lun));
    let lun = 0;
    while (taken.has(lun)) lun++;
    const hotDisk = { ...disk, lun };
    this.#machine.guest.disks = [...this.hotDisks, hotDisk];
    return hotDisk;
  }

  async detachDisk(id: string): Promise<void> {
    mustLive(this.name, this.state);
    const disk = mustHaveHotDisk(this.config, this.hotDisks, id);
    this.#machine.guest.disks = this.hotDisks.filter((hotDisk) => hotDisk !== disk);
  }

  async inspect(): Promise<VmInspect> {
    mustLive(this.name, this.state);
    const { pid, accelerator, cgroups } = this.handle;
    return { pid, accelerator, vmmVersion: 'fake', pssBytes: 0, guestRamPssBytes: 0, cgroups };
  }

  async stop(options: { timeoutMs?: number } = {}): Promise<VmExit> {
    if (this.state !== 'running') return this.kill();
    this.#machine.stopAsked = true;
    const timeoutMs = options.timeoutMs ?? STOP_TIMEOUT_MS;
    const timer = setTimeout(() => this.#machine.kill('it did not shut down in time'), timeoutMs);
    try {
      await this.#fault('stop:asked');
      const agent = await this.openAgent();
      await agent.batch([{ case: 'shutdown', value: {} }], { timeoutMs });
    } catch {
      // As with the real one: the time-out ends a machine that cannot be asked.
    }
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  kill(): Promise<VmExit> {
    this.#machine.kill('it was killed by its owner');
    return this.exited;
  }

  async disown(): Promise<void> {
    mustBeAdoptable(this.config);
    mustLive(this.name, this.state);
    this.#disowned = true;
    await this.#closeAgent();
    this.#machine.orphan();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#disowned) await this.kill();
  }

  async #closeAgent(): Promise<void> {
    const client = await this.#agent?.catch(() => undefined);
    this.#agent = undefined;
    await client?.close();
    await this.#session?.close();
  }
}
