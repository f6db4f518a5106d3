/** A switch with everything a thread has to give it: the clock, timers, chance, the host's sockets. */
import { randomFillSync } from 'node:crypto';
import { HOST_READ_BYTES } from '../limits.ts';
import { Arena, type ArenaOptions } from '../memory/arena.ts';
import { NodeNetwork } from '../relay/node-network.ts';
import { ReadGate } from '../relay/read-gate.ts';
import type { Clock, Randomness } from '../stack/clock.ts';
import type { HostNetwork } from '../stack/host-network.ts';
import { Switch } from '../stack/switch.ts';
import { TimerWheel } from '../stack/timer-wheel.ts';

class SystemClock implements Clock {
  nowMs(): number {
    return performance.now();
  }
}

/** Numbers of the system's generator, fetched by the page. */
class SystemRandomness implements Randomness {
  readonly #page = new Uint32Array(1024);
  #left = 0;
  u32(): number {
    if (this.#left === 0) {
      randomFillSync(this.#page);
      this.#left = this.#page.length;
    }
    this.#left -= 1;
    return this.#page[this.#left] as number;
  }
}

export interface RunnerOptions extends ArenaOptions {
  /** In place of Node's sockets. */
  readonly host?: HostNetwork;
}

export class StackRunner implements Disposable {
  readonly switch: Switch;
  readonly #wheel: TimerWheel;
  #timer: NodeJS.Timeout | undefined;
  #dueMs = Number.POSITIVE_INFINITY;

  constructor(options: RunnerOptions = {}) {
    const clock = new SystemClock();
    const arena = new Arena(options);
    this.#wheel = new TimerWheel(clock.nowMs(), (atMs) => this.#arm(atMs));
    this.switch = new Switch({
      arena,
      clock,
      random: new SystemRandomness(),
      wheel: this.#wheel,
      gate: new ReadGate(arena),
      host: options.host ?? new NodeNetwork(arena.view(arena.hostRead, HOST_READ_BYTES)),
    });
  }

  [Symbol.dispose](): void {
    this.switch.close();
    clearTimeout(this.#timer);
  }

  #arm(atMs: number): void {
    if (atMs >= this.#dueMs) return;
    this.#dueMs = atMs;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#tick(), Math.max(1, Math.ceil(atMs - performance.now())));
  }

  #tick(): void {
    this.#dueMs = Number.POSITIVE_INFINITY;
    this.switch.advance();
    const next = this.#wheel.nextMs();
    if (next !== Number.POSITIVE_INFINITY) this.#arm(next);
  }
}
