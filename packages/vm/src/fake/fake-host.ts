/** Where fake machines live: what the operating system and the guardians are to real ones. */
import type { Duplex } from 'node:stream';
import type { AgentHandlers } from '@arcbox/protocol';
import type { VmExit, VmHandle, VmState } from '../contract.ts';
import type { FakeGuest } from './fake-guest.ts';

/** setTimeout's longest; a longer grace time is for ever to a test. */
const TIMER_MS_MAX = 2 ** 31 - 1;

export class FakeMachine {
  readonly handle: VmHandle;
  readonly guest: FakeGuest;
  /** The guest's agent; while the machine is paused it does nothing. */
  readonly handlers: AgentHandlers;
  readonly exited: Promise<VmExit>;
  /** The guest's ends of the network cards that somebody has opened. */
  readonly nics: (Duplex | undefined)[] = [];
  stopAsked = false;
  readonly #host: FakeHost;
  #state: VmState = 'running';
  #resumed: PromiseWithResolvers<void> | undefined;
  readonly #exit = Promise.withResolvers<VmExit>();
  #orphanTimer: NodeJS.Timeout | undefined;

  constructor(host: FakeHost, handle: VmHandle, guest: FakeGuest, handlers: AgentHandlers) {
    this.#host = host;
    this.handle = handle;
    this.guest = guest;
    this.handlers = {
      ...handlers,
      op: async (op, signal) => {
        await this.#resumed?.promise;
        return handlers.op(op, signal);
      },
    };
    this.exited = this.#exit.promise;
    guest.onShutdown = () =>
      this.#end({ reason: this.stopAsked ? 'stopped' : 'guest-shutdown', detail: 'The guest shut down' });
  }

  get state(): VmState {
    return this.#state;
  }

  pause(): void {
    this.#state = 'paused';
    this.#resumed = Promise.withResolvers<void>();
  }

  resume(): void {
    this.#state = 'running';
    this.#resumed?.resolve();
    this.#resumed = undefined;
  }

  kill(detail: string): void {
    this.#end({ reason: 'killed', detail });
  }

  /** As if the VMM had crashed. */
  crash(detail = 'the fake crashed'): void {
    this.#end({ reason: 'crashed', detail });
  }

  /** Its owner is gone. */
  orphan(): void {
    const { lifetime } = this.handle.config;
    if (lifetime.kind === 'ephemeral') {
      this.kill('its owner was gone');
    } else if (lifetime.orphanGraceMs <= TIMER_MS_MAX) {
      this.#orphanTimer = setTimeout(() => this.kill('nobody adopted it in time'), lifetime.orphanGraceMs);
    }
  }

  adopted(): void {
    clearTimeout(this.#orphanTimer);
  }

  #end(exit: VmExit): void {
    if (this.#state === 'stopped') return;
    this.#state = 'stopped';
    this.#resumed?.resolve();
    clearTimeout(this.#orphanTimer);
    for (const nic of this.nics) nic?.destroy();
    this.#host.machines.delete(this.handle.pid);
    // After the agent's answer to `shutdown` is under way.
    setImmediate(() => this.#exit.resolve(exit));
  }
}

/** Shared by drivers to play a program that ends and another that adopts its machines. */
export class FakeHost {
  /** Machines that run, by their pid. */
  readonly machines = new Map<number, FakeMachine>();
  #lastPid = 0;

  nextPid(): number {
    return ++this.#lastPid;
  }
}
