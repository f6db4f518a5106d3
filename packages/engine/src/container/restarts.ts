/**
 * Starting containers again, by their policies and with docker's back-off: 100 ms after the first end, twice as long
 * after each further one, a minute at most, from the beginning again for one that ran for ten seconds.
 *
 * A container that waits to be started again is `restarting`, in the store, too: a daemon that finds one goes on with
 * it. What a user stopped stays stopped (`always`: until the next daemon), and a daemon that ends restarts nothing.
 */
import { RESTART_MS_MAX, RESTART_MS_MIN, RESTART_RESET_MS } from '../limits.ts';
import type { Container } from './container.ts';

/** Whether the policy wants it back. `atBoot`: a new daemon asks, for which `always` means that. */
export function wantsRestart(container: Container, atBoot: boolean): boolean {
  const { record } = container;
  const { restart } = record.config.life;
  if (record.run === 0) return false;
  switch (restart.name) {
    case 'no':
      return false;
    case 'always':
      return atBoot || !record.stoppedByUser;
    case 'unless-stopped':
      return !record.stoppedByUser;
    case 'on-failure':
      return (
        !record.stoppedByUser &&
        (record.exitCode ?? 0) !== 0 &&
        (restart.maxRetries === 0 || record.restarts < restart.maxRetries)
      );
  }
}

export class Restarts {
  readonly #startAgain: (container: Container) => void;
  readonly #timers = new Map<Container, NodeJS.Timeout>();
  readonly #delaysMs = new WeakMap<Container, number>();
  /** Those that are being stopped together: what exits of them is left alone. */
  readonly #held = new Set<ReadonlySet<Container>>();
  #stopped = false;

  /** `startAgain` starts it, unless it is not `restarting` any more; what goes wrong is told by its state. */
  constructor(startAgain: (container: Container) => void) {
    this.#startAgain = startAgain;
  }

  /** It has exited: it becomes `restarting` when its policy wants it back. */
  consider(container: Container, atBoot = false): void {
    if (this.#stopped || !wantsRestart(container, atBoot)) return;
    for (const held of this.#held) if (held.has(container)) return;
    const { startedMs, finishedMs } = container.record;
    const ranMs = startedMs === undefined || finishedMs === undefined ? 0 : finishedMs - startedMs;
    const before = this.#delaysMs.get(container);
    const delayMs =
      before === undefined || ranMs >= RESTART_RESET_MS
        ? RESTART_MS_MIN
        : Math.min(before * 2, RESTART_MS_MAX);
    this.#delaysMs.set(container, delayMs);
    if (container.record.state !== 'restarting') container.apply('restart');
    this.#arm(container, delayMs);
  }

  /** Somebody has started it: its back-off begins anew. */
  forget(container: Container): void {
    clearTimeout(this.#timers.get(container));
    this.#timers.delete(container);
    this.#delaysMs.delete(container);
  }

  /** It was found `restarting`: an earlier daemon had begun to wait. */
  goOn(container: Container): void {
    if (!this.#timers.has(container)) this.#arm(container, RESTART_MS_MIN);
  }

  /** It is not to be started again after all. */
  cancel(container: Container): void {
    this.forget(container);
    if (container.record.state === 'restarting') container.apply('cancelRestart');
  }

  /** Leaves these alone until the answer is disposed of. */
  hold(containers: readonly Container[]): Disposable {
    const held = new Set(containers);
    this.#held.add(held);
    return { [Symbol.dispose]: () => this.#held.delete(held) };
  }

  /** No timer goes on; states stay as they are, for the next daemon. */
  stop(): void {
    this.#stopped = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  }

  #arm(container: Container, delayMs: number): void {
    clearTimeout(this.#timers.get(container));
    const timer = setTimeout(() => {
      this.#timers.delete(container);
      this.#startAgain(container);
    }, delayMs).unref();
    this.#timers.set(container, timer);
  }
}
