/**
 * Whether there is room for more: asked before something is made, so that a full disk or a host without memory is a
 * refusal with a reason and not a failure half-way.
 */
import { readFile, statfs } from 'node:fs/promises';
import { EngineError } from './errors.ts';
import { MACHINE_START_BYTES } from './limits.ts';
import { formatSize } from './size.ts';

export interface Reserves {
  /** What must be left free where the data is. */
  readonly diskBytes: number;
  /** What must be left of the host's available memory when a machine starts. */
  readonly memoryBytes: number;
}

export class Room {
  readonly #home: string;
  readonly #reserves: Reserves;

  constructor(home: string, reserves: Reserves) {
    this.#home = home;
    this.#reserves = reserves;
  }

  async freeDiskBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#home);
    return bavail * bsize;
  }

  /** `what` is to be made; `bytes` is what it is known to take. Throws `ERR_ARCBOX_NO_SPACE`. */
  async needDisk(what: string, bytes = 0): Promise<void> {
    const free = await this.freeDiskBytes();
    const { diskBytes } = this.#reserves;
    if (free >= diskBytes + bytes) return;
    const needs = bytes === 0 ? '' : ` and ${what} takes ${formatSize(bytes)}`;
    throw new EngineError(
      'ERR_ARCBOX_NO_SPACE',
      `there is no room for ${what}: ${this.#home} has ${formatSize(free)} free, of which ${formatSize(diskBytes)} are kept (disk.reserve)${needs}; arcbox system prune removes what is not used`,
    );
  }

  /** A machine is to start. Throws `ERR_ARCBOX_NO_MEMORY`. */
  async needMemory(machine: string): Promise<void> {
    const available = await availableMemoryBytes();
    const { memoryBytes } = this.#reserves;
    if (available >= memoryBytes + MACHINE_START_BYTES) return;
    throw new EngineError(
      'ERR_ARCBOX_NO_MEMORY',
      `the machine ${machine} cannot start: the host has ${formatSize(available)} of memory available, a machine needs ${formatSize(MACHINE_START_BYTES)} to start and ${formatSize(memoryBytes)} are kept (memory.reserve); end something first`,
    );
  }
}

/** `MemAvailable`: what can be had without swapping. */
export async function availableMemoryBytes(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'latin1');
  return Number(/^MemAvailable:\s+(\d+) kB/m.exec(text)?.[1] ?? Number.NaN) * 1024;
}
