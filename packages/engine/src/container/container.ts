/** One container in memory: its record, its log while somebody needs it, its process while it runs, who is attached. */
import type { EventLog } from '../events/event-log.ts';
import type { HostLayout } from '../host-layout.ts';
import { ContainerLog } from '../log/container-log.ts';
import type { Logger } from '../logger.ts';
import { Mutex } from '../mutex.ts';
import type { Store } from '../state/store.ts';
import type { ContainerProcess } from './container-process.ts';
import type { ContainerRecord } from './container-record.ts';
import type { Health } from './health.ts';
import type { TerminalSize } from './oci-spec.ts';
import { type ContainerEvent, isIntention, nextState } from './transitions.ts';

export interface ContainerExit {
  readonly exitCode: number;
  /** Why it was lost or could not be started; otherwise empty. */
  readonly error: string;
}

interface RunWaiters {
  readonly started: PromiseWithResolvers<ContainerProcess | undefined>;
  readonly exited: PromiseWithResolvers<ContainerExit>;
}

export class Container {
  readonly record: ContainerRecord;
  /** Start, exit and removal, one after the other. */
  readonly transitions = new Mutex();
  /** Listings of what it changed: they share a mount point. */
  readonly listing = new Mutex();
  process: ContainerProcess | undefined;
  /** Of the run that goes on, or the last one, when it has a health check. */
  health: Health | undefined;
  /** What the last run left in the machine is being released; nobody waits for it but the next start. */
  cleanUp: Promise<void> = Promise.resolve();
  /** How many clients are attached. */
  attached = 0;
  /** How many calls are between stopping it and starting it again; it is not removed by itself meanwhile. */
  restarting = 0;
  /** Of the terminal, before the process runs. */
  terminalSize: TerminalSize | undefined;
  readonly #store: Store;
  readonly #layout: HostLayout;
  readonly #logger: Logger;
  readonly #events: EventLog;
  readonly #runs = new Map<number, RunWaiters>();
  readonly #removed = Promise.withResolvers<ContainerExit>();
  #log: Promise<ContainerLog> | undefined;
  #logUsers = 0;

  constructor(
    record: ContainerRecord,
    environment: { store: Store; layout: HostLayout; logger: Logger; events: EventLog },
  ) {
    this.record = record;
    this.#store = environment.store;
    this.#layout = environment.layout;
    this.#logger = environment.logger;
    this.#events = environment.events;
  }

  /** A run goes on, or is about to. */
  get live(): boolean {
    const { state } = this.record;
    return state === 'starting' || state === 'running' || state === 'paused';
  }

  /**
   * Goes through the transition table, changes what else changes, and stores it. What cannot be stored (a full disk) has
   * not begun when it is an intention, and is true all the same when it has happened.
   */
  apply(event: ContainerEvent, change: Partial<ContainerRecord> = {}): void {
    const state = nextState(this.record.name, this.record.state, event);
    const before = { ...this.record };
    Object.assign(this.record, change, { state });
    try {
      this.#store.updateContainer(this.record);
    } catch (error) {
      if (isIntention(event)) Object.assign(this.record, before);
      throw error;
    }
    this.#logger.info('container.state', {
      id: this.record.id,
      state,
      run: this.record.run,
      transition: event,
    });
    if (event === 'started') this.emit('start');
    else if (event === 'exit') this.#emitDie();
  }

  /** Somebody wants it stopped, which its restart policy is to respect. */
  markStopped(): void {
    if (this.record.stoppedByUser) return;
    this.record.stoppedByUser = true;
    this.#store.updateContainer(this.record);
  }

  /** Writes down that something happened to it, with what docker says of every event of a container. */
  emit(action: string, attributes: Readonly<Record<string, string>> = {}): void {
    const { id, name, machine, config } = this.record;
    this.#events.emit('container', action, id, {
      ...config.labels,
      image: config.imageName,
      machine,
      name,
      ...attributes,
    });
  }

  #emitDie(): void {
    const { exitCode, startedMs, finishedMs } = this.record;
    const ranMs = startedMs === undefined || finishedMs === undefined ? 0 : finishedMs - startedMs;
    this.emit('die', {
      exitCode: String(exitCode ?? 0),
      execDuration: String(Math.max(0, Math.floor(ranMs / 1000))),
    });
  }

  /** Changes what is no state, and stores it. */
  change(change: Pick<Partial<ContainerRecord>, 'name' | 'config'>): void {
    const before = { ...this.record };
    Object.assign(this.record, change);
    try {
      this.#store.updateContainer(this.record);
    } catch (error) {
      Object.assign(this.record, before);
      throw error;
    }
  }

  /** The log, open until the last user has given it back with `releaseLog`. */
  async useLog(): Promise<ContainerLog> {
    this.#logUsers += 1;
    this.#log ??= this.#openLog();
    try {
      return await this.#log;
    } catch (error) {
      this.#log = undefined;
      this.#logUsers -= 1;
      throw error;
    }
  }

  async releaseLog(): Promise<void> {
    this.#logUsers -= 1;
    if (this.#logUsers > 0) return;
    const log = this.#log;
    this.#log = undefined;
    await (await log)?.close();
  }

  /** Whose `started` and `exited` settle with run `run`. */
  waiters(run: number): RunWaiters {
    let waiters = this.#runs.get(run);
    if (waiters === undefined) {
      waiters = { started: Promise.withResolvers(), exited: Promise.withResolvers() };
      waiters.started.promise.catch(() => {});
      waiters.exited.promise.catch(() => {});
      const { record } = this;
      const isOver = run < record.run || (run === record.run && !this.live);
      // Nothing will settle what is over once more, and so nothing would forget it.
      if (!isOver) this.#runs.set(run, waiters);
      if (isOver) {
        waiters.started.resolve(undefined);
        waiters.exited.resolve({ exitCode: record.exitCode ?? 0, error: record.error });
      } else if (run === record.run && this.process !== undefined) {
        waiters.started.resolve(this.process);
      }
    }
    return waiters;
  }

  settleRun(run: number, exit: ContainerExit): void {
    const waiters = this.waiters(run);
    waiters.started.resolve(undefined);
    waiters.exited.resolve(exit);
    this.#runs.delete(run);
  }

  /** Settles when the container is gone, with how its last run ended. */
  get removed(): Promise<ContainerExit> {
    return this.#removed.promise;
  }

  /** The container is gone: whoever waits learns it. */
  settleRemoved(): void {
    const exit = { exitCode: this.record.exitCode ?? 0, error: this.record.error };
    for (const run of [...this.#runs.keys()]) this.settleRun(run, exit);
    this.#removed.resolve(exit);
  }

  #openLog(): Promise<ContainerLog> {
    const { maxSizeBytes, maxFiles } = this.record.config.life.log;
    return ContainerLog.open(this.#layout.containerLog(this.record.id), {
      segmentBytes: maxSizeBytes,
      segments: maxFiles,
      onWriteError: (error) =>
        this.#logger.error('container.log_write_failed', { id: this.record.id, reason: String(error) }),
    }).then((log) => {
      // Nothing is being written: what there is, is all of its run.
      if (!this.live) log.closeRuns(this.record.run);
      return log;
    });
  }
}
