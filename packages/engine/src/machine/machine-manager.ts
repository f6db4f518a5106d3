/**
 * All machines: the default one, which is always there, and those that a user makes beside it.
 *
 * A machine is a record until something runs in it; its disk is made when it boots the first time. A removal is recorded
 * before anything is taken away, so that a daemon that dies in the middle of one goes on with it; from then on the
 * machine takes no container and comes up no more.
 */
import { rm } from 'node:fs/promises';
import { faultPoint } from '@arcbox/sys';
import type { VmHandle } from '@arcbox/vm';
import type { Container } from '../container/container.ts';
import { EngineError, messageOf } from '../errors.ts';
import { MACHINES_MAX } from '../limits.ts';
import { Machine, type MachineEnvironment } from './machine.ts';
import { checkMachine, DEFAULT_MACHINE, type MachineOptions } from './machine-record.ts';

/** What machines need of the rest of the engine, besides what each of them does. */
export interface MachinesEnvironment extends MachineEnvironment {
  /** The containers of a machine, in any state. */
  containersOf(machine: string): readonly Container[];
  /** Removes a container, by force, with the volumes that were made for it alone. */
  removeContainer(id: string): Promise<void>;
  /** A machine is gone for ever. */
  removed(machine: string): Promise<void>;
}

const NAMES_SHOWN_MAX = 3;

export class MachineManager {
  readonly #environment: MachinesEnvironment;
  readonly #machines = new Map<string, Machine>();
  readonly #removals = new Map<string, Promise<void>>();

  constructor(environment: MachinesEnvironment) {
    this.#environment = environment;
    const { machines } = environment.store;
    machines.insert(DEFAULT_MACHINE, {});
    for (const record of machines.records())
      this.#machines.set(record.name, new Machine(record, environment));
  }

  /** In order of their names. */
  list(): Machine[] {
    return [...this.#machines.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Throws `ERR_ARCBOX_MACHINE_NOT_FOUND`. */
  find(name: string): Machine {
    const machine = this.#machines.get(name);
    if (machine !== undefined) return machine;
    throw new EngineError(
      'ERR_ARCBOX_MACHINE_NOT_FOUND',
      `no such machine: ${name}; arcbox machine create ${name} makes it`,
    );
  }

  /** Makes a record; nothing runs. Throws `ERR_ARCBOX_INVALID_ARGUMENT`, `ERR_ARCBOX_MACHINE_NAME_IN_USE`, `ERR_ARCBOX_LIMIT`. */
  async create(name: string, options: MachineOptions): Promise<Machine> {
    checkMachine(name, options);
    const { room, store, events, logger } = this.#environment;
    await room.needDisk(`the machine ${name}`);
    if (this.#machines.has(name))
      throw new EngineError('ERR_ARCBOX_MACHINE_NAME_IN_USE', `there is a machine ${name} already`);
    if (this.#machines.size >= MACHINES_MAX)
      throw new EngineError('ERR_ARCBOX_LIMIT', `there are ${MACHINES_MAX} machines; remove some first`);
    faultPoint('machine.record');
    const machine = new Machine(store.machines.insert(name, options), this.#environment);
    this.#machines.set(name, machine);
    events.emit('machine', 'create', name);
    logger.info('machine.created', { machine: name, ...machine.size });
    return machine;
  }

  /**
   * Removes it with its disk. Throws `ERR_ARCBOX_MACHINE_IN_USE` while it is up or has containers; with `force` they are
   * removed first, and it is powered off.
   */
  async remove(name: string, force: boolean): Promise<void> {
    const machine = this.find(name);
    if (name === DEFAULT_MACHINE) {
      throw new EngineError(
        'ERR_ARCBOX_MACHINE_STATE',
        `the machine ${name} is where containers run that name no other, and cannot be removed; arcbox machine stop ${name} powers it off`,
      );
    }
    if (!machine.retired && !force) this.#assertUnused(machine);
    if (!machine.retired) {
      faultPoint('machine.removing');
      this.#environment.store.machines.setRemoving(name);
      machine.retire();
    }
    await this.#remove(machine);
  }

  /**
   * Ends what nobody knows, and takes over what an earlier daemon left. A machine that cannot be taken over is logged and
   * is one that does not run.
   */
  async takeOver(sweep: ((known: readonly VmHandle[]) => Promise<void>) | undefined): Promise<void> {
    const { store, logger } = this.#environment;
    const machines = this.list();
    try {
      await sweep?.(machines.flatMap(({ name }) => store.machines.handle(name) ?? []));
    } catch (error) {
      // What is left over stays until the next sweep; our own machines are taken over all the same.
      logger.error('run.sweep_failed', { reason: messageOf(error) });
    }
    const failed = (machine: Machine) => (error: unknown) => {
      logger.error('machine.adopt_failed', { machine: machine.name, reason: messageOf(error) });
    };
    await Promise.all(machines.map((machine) => machine.adopt().catch(failed(machine))));
  }

  /** Goes on with the removals that an earlier daemon had begun. */
  async finishRemovals(): Promise<void> {
    for (const machine of this.list()) {
      if (!machine.retired) continue;
      await this.#remove(machine).catch((error: unknown) => {
        this.#environment.logger.warn('machine.remove_failed', {
          machine: machine.name,
          reason: messageOf(error),
        });
      });
    }
  }

  /** Of those that are up. */
  async up(): Promise<NonNullable<Awaited<ReturnType<Machine['current']>>>[]> {
    const ups = await Promise.all(this.list().map((machine) => machine.current()));
    return ups.filter((up) => up !== undefined);
  }

  /** Powers all of them off; rejects, after all were tried, when one could not be. */
  async stop(): Promise<void> {
    await all(this.list().map((machine) => machine.stop()));
  }

  /** Lets go of all of them: they go on, for the next daemon. */
  async disown(): Promise<void> {
    await all(this.list().map((machine) => machine.disown()));
  }

  #assertUnused({ name, state }: Machine): void {
    const containers = this.#environment.containersOf(name);
    const running = containers.filter(({ live, record }) => live || record.state === 'restarting');
    const refuse = (why: string): never => {
      throw new EngineError('ERR_ARCBOX_MACHINE_IN_USE', `the machine ${name} ${why}`);
    };
    if (running.length > 0)
      refuse(
        `runs ${namesOf(running)}; stop and remove that first, or use -f, which removes it with the machine`,
      );
    if (containers.length > 0)
      refuse(`has ${namesOf(containers)}; remove that first, or use -f, which removes it with the machine`);
    if (state !== 'stopped' && state !== 'idle')
      refuse(`is ${state}; stop it first (arcbox machine stop ${name}), or use -f`);
  }

  /** Once at a time; whoever asks meanwhile waits for the same. */
  #remove(machine: Machine): Promise<void> {
    const { name } = machine;
    let removal = this.#removals.get(name);
    if (removal === undefined) {
      removal = this.#carryOut(machine).finally(() => this.#removals.delete(name));
      this.#removals.set(name, removal);
    }
    return removal;
  }

  async #carryOut(machine: Machine): Promise<void> {
    const { name } = machine;
    const { store, layout, events, logger } = this.#environment;
    await all(
      this.#environment.containersOf(name).map(async ({ record }) => {
        await this.#environment.removeContainer(record.id).catch((error: unknown) => {
          // Somebody else has removed it meanwhile.
          const gone = error instanceof EngineError && error.code === 'ERR_ARCBOX_CONTAINER_NOT_FOUND';
          if (!gone) throw error;
        });
      }),
    );
    await machine.stop();
    await this.#environment.removed(name);
    faultPoint('machine.unlink');
    await rm(layout.machine(name), { recursive: true, force: true });
    faultPoint('machine.forget');
    store.machines.delete(name);
    this.#machines.delete(name);
    events.emit('machine', 'destroy', name);
    logger.info('machine.removed', { machine: name });
  }
}

/** `the container web`, `the containers a, b, c and 2 more`. */
function namesOf(containers: readonly Container[]): string {
  const names = containers.map(({ record }) => record.name);
  const more = names.length - NAMES_SHOWN_MAX;
  const shown = names.slice(0, NAMES_SHOWN_MAX).join(', ');
  if (names.length === 1) return `the container ${shown}`;
  return `the containers ${shown}${more > 0 ? ` and ${more} more` : ''}`;
}

async function all(work: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find((one) => one.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
