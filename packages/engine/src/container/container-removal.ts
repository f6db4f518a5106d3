/** Removing containers with everything that is theirs: on request, by themselves, and what a crash left to be done. */
import { rm } from 'node:fs/promises';
import { faultPoint } from '@arcbox/sys';
import type { Background } from '../background.ts';
import { EngineError } from '../errors.ts';
import { AUTO_REMOVE_GRACE_MS } from '../limits.ts';
import type { Machine } from '../machine/machine.ts';
import type { Container } from './container.ts';
import type { ContainerEnvironment } from './container-environment.ts';
import type { ContainerRecord } from './container-record.ts';
import type { ContainerTable } from './container-table.ts';
import { removeDiskOps, runTolerant } from './launch.ts';
import { canApply } from './transitions.ts';

export class ContainerRemoval {
  readonly #environment: ContainerEnvironment;
  readonly #containers: ContainerTable;
  readonly #background: Background;
  readonly #timers = new Set<NodeJS.Timeout>();

  constructor(environment: ContainerEnvironment, containers: ContainerTable, background: Background) {
    this.#environment = environment;
    this.#containers = containers;
    this.#background = background;
  }

  /**
   * Its transition must be the caller's. With `withVolumes` those that were made for it alone go, too: they are given up
   * with its record, and the answer is what remains to be done then. Throws `ERR_ARCBOX_CONTAINER_STATE` while it runs.
   */
  async remove(container: Container, withVolumes = false): Promise<() => Promise<void>> {
    const { record } = container;
    const { store, layout, logger, networks, volumes } = this.#environment;
    if (!this.#containers.has(record.id)) return async () => {};
    if (!canApply(record.state, 'remove')) {
      throw new EngineError(
        'ERR_ARCBOX_CONTAINER_STATE',
        `the container ${record.name} is ${record.state}; stop it first, or remove it with force`,
      );
    }
    faultPoint('remove.record');
    container.apply('remove');
    faultPoint('remove.files');
    await rm(layout.container(record.id), { recursive: true, force: true });
    networks.release(record.id);
    faultPoint('remove.forget');
    const condemned = store.transaction(() => {
      store.deleteContainer(record.id);
      return withVolumes ? volumes.condemn(record) : [];
    });
    this.#containers.delete(record.id);
    container.emit('destroy');
    this.#environment.removed(record.id);
    container.settleRemoved();
    logger.info('container.removed', { id: record.id, name: record.name });
    // That may be on its way out itself.
    const machine = this.#environment.machine(record.machine);
    // Its upper directory needs the machine; when that is not up now, `tidy` or the next `reconcile` finds it.
    this.#background.run(
      'remove_upper',
      container.cleanUp.then(() => this.#removeUpper(record, machine)),
    );
    // It may have been the last that held an image which was removed by force.
    this.#background.run(
      'collect_images',
      container.cleanUp.then(() => this.#environment.images.collect()),
    );
    return () => volumes.removeCondemned(condemned);
  }

  async #removeUpper(record: ContainerRecord, machine: Machine): Promise<void> {
    const up = await machine.current();
    faultPoint('remove.disk');
    // Also of one that never ran: files may have been copied into it.
    if (up !== undefined) await runTolerant(up.agent, removeDiskOps(record.id));
  }

  /** Removes it, once it has ended, unless a client is attached. */
  async autoRemove(container: Container): Promise<void> {
    const finish = await container.transitions.run(async () => {
      if (container.attached + container.restarting === 0 && canApply(container.record.state, 'remove'))
        return this.remove(container, true);
      return undefined;
    });
    await finish?.();
  }

  /** After a crash: containers whose removal we owe, once their clients had time to come back for the end. */
  removeExited(): void {
    for (const container of this.#containers.all()) {
      const { record } = container;
      if (record.state === 'removing')
        this.#background.run(
          'remove',
          container.transitions
            .run(() => this.remove(container, record.config.autoRemove))
            .then((finish) => finish()),
        );
      if (record.state !== 'exited' || !record.config.autoRemove) continue;
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        this.#background.run('auto_remove', this.autoRemove(container));
      }, AUTO_REMOVE_GRACE_MS).unref();
      this.#timers.add(timer);
    }
  }

  /** Containers whose time of grace is not over are left to the next daemon. */
  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }
}
