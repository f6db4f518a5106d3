/** All containers, and finding one by what a user calls it. */
import { EngineError } from '../errors.ts';
import { Container } from './container.ts';
import type { ContainerEnvironment } from './container-environment.ts';
import type { ContainerProcess } from './container-process.ts';
import type { ContainerRecord } from './container-record.ts';

export class ContainerTable {
  readonly #containers = new Map<string, Container>();

  /** With those that are stored. */
  constructor(environment: ContainerEnvironment) {
    for (const record of environment.store.containers())
      this.#containers.set(record.id, new Container(record, environment));
  }

  get size(): number {
    return this.#containers.size;
  }

  add(container: Container): void {
    this.#containers.set(container.record.id, container);
  }

  delete(id: string): void {
    this.#containers.delete(id);
  }

  /** By its whole ID. */
  get(id: string): Container | undefined {
    return this.#containers.get(id);
  }

  has(id: string): boolean {
    return this.#containers.has(id);
  }

  list(): ContainerRecord[] {
    return [...this.#containers.values()].map((container) => ({ ...container.record }));
  }

  /** In the order of their creation. */
  all(): Container[] {
    return [...this.#containers.values()];
  }

  /** Whether a process of it runs, or is about to. */
  isLive(id: string): boolean {
    return this.#containers.get(id)?.live ?? false;
  }

  inspect(reference: string): ContainerRecord {
    return { ...this.find(reference).record };
  }

  /** Containers, in any state, that mount the volume. */
  usersOfVolume(name: string): ContainerRecord[] {
    return this.list().filter(({ config }) =>
      config.mounts.some((mount) => mount.type === 'volume' && mount.name === name),
    );
  }

  /** As `find`; undefined when there is none, or not only one. */
  lookUp(reference: string): Container | undefined {
    try {
      return this.find(reference);
    } catch (error) {
      if (error instanceof EngineError) return undefined;
      throw error;
    }
  }

  /** By ID, name, or the beginning of an ID. Throws `ERR_ARCBOX_CONTAINER_NOT_FOUND`. */
  find(reference: string): Container {
    const exact = this.#containers.get(reference);
    if (exact !== undefined) return exact;
    const all = [...this.#containers.values()];
    const byName = all.find((container) => container.record.name === reference);
    if (byName !== undefined) return byName;
    const byPrefix = /^[0-9a-f]+$/.test(reference)
      ? all.filter(({ record }) => record.id.startsWith(reference))
      : [];
    if (byPrefix.length > 1) {
      throw new EngineError(
        'ERR_ARCBOX_CONTAINER_NOT_FOUND',
        `${byPrefix.length} containers have an ID that begins with ${reference}; give more of it`,
      );
    }
    if (byPrefix[0] !== undefined) return byPrefix[0];
    throw new EngineError('ERR_ARCBOX_CONTAINER_NOT_FOUND', `no such container: ${reference}`);
  }

  /** Its process. Throws `ERR_ARCBOX_CONTAINER_STATE` when there is none. */
  running(container: Container, verb: string): ContainerProcess {
    const { record, process } = container;
    if (process !== undefined) return process;
    throw new EngineError(
      'ERR_ARCBOX_CONTAINER_STATE',
      `the container ${record.name} is ${record.state} and cannot be ${verb}; only a running one can`,
    );
  }
}
