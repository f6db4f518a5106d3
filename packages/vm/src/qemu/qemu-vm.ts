/** A running QEMU machine. */
import path from 'node:path';
import type { Duplex } from 'node:stream';
import type { AgentClient } from '@arcbox/protocol';
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
import type { FaultHook } from '../faults.ts';
import { FULL_DISK_RETRY_MS, STOP_TIMEOUT_MS } from '../limits.ts';
import type { QmpClient } from '../qmp.ts';
import {
  gone,
  mustBe,
  mustBeAdoptable,
  mustBeNewDisk,
  mustHaveHotDisk,
  mustHaveNic,
  mustLive,
} from '../refusals.ts';
import { connectUnix } from './connect-unix.ts';
import { attachHotDisk, detachHotDisk } from './hot-disks.ts';
import { inspectMachine } from './inspect.ts';
import { greetAgent, type Launched } from './launch.ts';
import type { Lease } from './lease.ts';
import { toVmExit } from './machine-exit.ts';
import type { MachineType } from './machine-types.ts';
import { releaseLost } from './release.ts';
import { nicSocket } from './run-dir.ts';
import { writeSnapshot } from './snapshot.ts';

export interface QemuVmInit {
  readonly handle: VmHandle;
  readonly machineType: MachineType;
  readonly hotDisks: readonly HotDisk[];
  readonly state: VmState;
  readonly fault: FaultHook;
}

export class QemuVm implements RunningVm {
  readonly name: string;
  readonly config: VmConfig;
  readonly handle: VmHandle;
  readonly exited: Promise<VmExit>;
  readonly #init: QemuVmInit;
  readonly #lease: Lease;
  readonly #qmp: QmpClient;
  #agent: Promise<AgentClient> | undefined;
  #state: VmState;
  /** Its owner paused it, so that only its owner lets it go on. */
  #isHeld: boolean;
  #roomTimer: NodeJS.Timeout | undefined;
  #stopAsked = false;
  #disowned = false;
  #hotDisks: readonly HotDisk[];
  /** Commands that change the machine run one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    init: QemuVmInit,
    launched: Omit<Launched, 'agent'> & { readonly agent: AgentClient | undefined },
  ) {
    this.#init = init;
    this.name = init.handle.config.name;
    this.config = init.handle.config;
    this.handle = init.handle;
    this.#lease = launched.lease;
    this.#qmp = launched.qmp;
    this.#state = init.state;
    this.#isHeld = init.state === 'paused';
    this.#hotDisks = init.hotDisks;
    if (launched.agent !== undefined) this.#keepAgent(Promise.resolve(launched.agent));
    this.#qmp.onEvent((event) => {
      if (this.#state === 'stopped') return;
      if (event.name === 'STOP') this.#state = 'paused';
      if (event.name === 'RESUME') this.#state = 'running';
      if (event.name === 'BLOCK_IO_ERROR' && event.data.nospace === true) this.#goOnWhenThereIsRoom();
    });
    this.exited = this.#watch();
  }

  get state(): VmState {
    return this.#state;
  }

  get hotDisks(): readonly HotDisk[] {
    return this.#hotDisks;
  }

  async openAgent(): Promise<AgentClient> {
    if (this.#agent === undefined) {
      mustBe(this.name, this.#state, 'running');
      const { agentSecret, runDir } = this.handle;
      const secret = Buffer.from(agentSecret, 'hex');
      this.#keepAgent(greetAgent({ runDir, secret }, this.config.bootTimeoutMs));
    }
    const agent = this.#agent;
    if (agent === undefined) throw gone(this.name);
    return agent;
  }

  async openNic(index: number): Promise<Duplex> {
    return connectUnix(this.nicPath(index));
  }

  nicPath(index: number): string {
    mustLive(this.name, this.#state);
    mustHaveNic(this.config, index);
    return path.join(this.handle.runDir, nicSocket(index));
  }

  pause(): Promise<void> {
    return this.#exclusive(async () => {
      mustBe(this.name, this.#state, 'running');
      this.#isHeld = true;
      await this.#qmp.execute('stop');
      this.#state = 'paused';
    });
  }

  resume(): Promise<void> {
    return this.#exclusive(async () => {
      mustBe(this.name, this.#state, 'paused');
      this.#isHeld = false;
      await this.#qmp.execute('cont');
      this.#state = 'running';
    });
  }

  /**
   * The host's disk is full: QEMU has stopped the machine at the write that did not fit, which is tried again when the
   * machine goes on. Nothing is lost, and nothing in the guest learns of it.
   */
  #goOnWhenThereIsRoom(): void {
    if (this.#roomTimer !== undefined) return;
    this.#roomTimer = setTimeout(() => {
      this.#roomTimer = undefined;
      if (this.#state !== 'paused' || this.#isHeld) return;
      // When it is still full the next event says so; a machine that has ended needs nothing.
      this.#qmp.execute('cont').catch(() => {});
    }, FULL_DISK_RETRY_MS).unref();
  }

  snapshot(directory: string): Promise<Snapshot> {
    return this.#exclusive(async () => {
      mustLive(this.name, this.#state);
      return writeSnapshot({
        qmp: this.#qmp,
        handle: this.handle,
        hotDisks: this.#hotDisks,
        paused: this.#state === 'paused',
        directory,
        fault: this.#init.fault,
      });
    });
  }

  attachDisk(disk: DiskConfig): Promise<HotDisk> {
    return this.#exclusive(async () => {
      mustLive(this.name, this.#state);
      mustBeNewDisk(this.config, this.#hotDisks, disk);
      const hotDisk = await attachHotDisk(this.#qmp, disk, this.#hotDisks, this.#init.fault);
      this.#hotDisks = [...this.#hotDisks, hotDisk];
      return hotDisk;
    });
  }

  detachDisk(id: string): Promise<void> {
    return this.#exclusive(async () => {
      mustLive(this.name, this.#state);
      const disk = mustHaveHotDisk(this.config, this.#hotDisks, id);
      await detachHotDisk(this.#qmp, disk);
      this.#hotDisks = this.#hotDisks.filter((hotDisk) => hotDisk !== disk);
    });
  }

  async inspect(): Promise<VmInspect> {
    mustLive(this.name, this.#state);
    return inspectMachine(this.handle, this.#qmp.version);
  }

  async stop(options: { timeoutMs?: number } = {}): Promise<VmExit> {
    if (this.#state === 'stopped') return this.exited;
    const timeoutMs = options.timeoutMs ?? STOP_TIMEOUT_MS;
    // A paused guest cannot hear us.
    if (this.#state === 'paused') return this.kill();
    this.#stopAsked = true;
    const timer = setTimeout(() => this.#lease.kill(), timeoutMs);
    try {
      await this.#askToShutDown(timeoutMs);
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  kill(): Promise<VmExit> {
    if (this.#state !== 'stopped') this.#lease.kill();
    return this.exited;
  }

  async disown(): Promise<void> {
    mustBeAdoptable(this.config);
    mustLive(this.name, this.#state);
    this.#disowned = true;
    this.#state = 'stopped';
    await this.#closeAgent();
    this.#qmp.close();
    this.#lease.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#disowned) await this.kill();
  }

  async #watch(): Promise<VmExit> {
    const end = await this.#lease.ended;
    // After `disown` nobody here is to learn of the machine's end.
    if (end.kind === 'closed') return new Promise(() => undefined);
    this.#state = 'stopped';
    this.#qmp.close();
    await this.#closeAgent();
    const exit = toVmExit(end, { stopAsked: this.#stopAsked });
    if (end.kind !== 'lost') return exit;
    try {
      await releaseLost(this.handle.runDir, this.handle.cgroups, this.handle);
      return exit;
    } catch (error) {
      return { ...exit, detail: `${exit.detail}; and not all of it could be removed: ${String(error)}` };
    }
  }

  /** Failing to ask is not an error: the time-out ends the machine then. */
  async #askToShutDown(timeoutMs: number): Promise<void> {
    try {
      await this.#init.fault('stop:asked');
      const agent = await this.openAgent();
      const reboot = this.#init.machineType.endsByReset;
      await agent.batch([{ case: 'shutdown', value: { reboot } }], { timeoutMs });
    } catch {
      // The agent is gone before it could answer, or does not answer; either way the end of the lease tells.
    }
  }

  #keepAgent(agent: Promise<AgentClient>): void {
    this.#agent = agent;
    const forget = (): void => {
      if (this.#agent === agent) this.#agent = undefined;
    };
    agent.then((client) => client.closed.then(forget), forget);
  }

  async #closeAgent(): Promise<void> {
    const agent = this.#agent;
    this.#agent = undefined;
    const client = await agent?.catch(() => undefined);
    await client?.close();
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}
