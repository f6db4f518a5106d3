/**
 * The layers of images that a machine has: disks that are attached while it runs, each mounted once, whatever the
 * number of containers. One goes with its image, or when places for disks are short and no container uses it.
 */
import type { Layer } from '@arcbox/image';
import { AgentOpError } from '@arcbox/protocol';
import { type RunningVm, VmError } from '@arcbox/vm';
import { messageOf } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { Store } from '../state/store.ts';
import type { AgentSession } from './agent-session.ts';
import { layerDiskId, layerMount, layerNumberOfDisk } from './guest-layout.ts';
import { mountHotLayer } from './machine-set-up.ts';

export interface MachineLayersOptions {
  readonly vm: RunningVm;
  readonly agent: AgentSession;
  readonly store: Store;
  readonly logger: Logger;
  /** Digests of the layers that containers use, or are about to. */
  inUse(): Promise<ReadonlySet<string>>;
}

export class MachineLayers {
  readonly #options: MachineLayersOptions;
  /** Where it is mounted, by its number. */
  readonly #mounted = new Map<number, Promise<string>>();
  /** One release at a time. */
  #releasing: Promise<void> = Promise.resolve();
  #releases = 0;

  constructor(options: MachineLayersOptions) {
    this.#options = options;
  }

  /** Mounts what is attached and not mounted; `mounts` are the guest's mount points. */
  async resume(mounts: ReadonlySet<string>): Promise<void> {
    const { vm, agent } = this.#options;
    for (const disk of vm.hotDisks) {
      const number = layerNumberOfDisk(disk.id);
      if (number === undefined) continue;
      const target = layerMount(number);
      const mounting = mounts.has(target) ? Promise.resolve(target) : mountHotLayer(agent, number, disk.lun);
      this.#mounted.set(number, mounting);
    }
    await Promise.all(this.#mounted.values());
  }

  /** Where the layer is mounted in the guest; attaches and mounts it once. */
  mount(layer: Layer): Promise<string> {
    const number = this.#options.store.layerNumber(layer.digest);
    let mounting = this.#mounted.get(number);
    if (mounting === undefined) {
      mounting = this.#mount(number, layer.path);
      this.#mounted.set(number, mounting);
      // The next container tries again; the disk may be attached by then.
      mounting.catch(() => this.#mounted.delete(number));
    }
    return mounting;
  }

  /** Unmounts and detaches the layers that are here; no container may use them any more. Failures are logged. */
  async release(digests: readonly string[]): Promise<void> {
    const { store } = this.#options;
    await this.#release(digests.map((digest) => store.layerNumber(digest)));
  }

  async #mount(number: number, path: string): Promise<string> {
    const { vm, agent } = this.#options;
    await this.#releasing;
    const id = layerDiskId(number);
    const attach = async (): Promise<{ lun: number }> =>
      vm.hotDisks.find((disk) => disk.id === id) ??
      (await vm.attachDisk({ id, path, format: 'raw', readOnly: true }));
    let disk: { lun: number };
    try {
      disk = await attach();
    } catch (error) {
      if (!(error instanceof VmError) || error.code !== 'ERR_ARCBOX_VM_DISK') throw error;
      // All places may be taken by layers that were used once.
      if (!(await this.#releaseUnused(number))) throw error;
      disk = await attach();
    }
    return mountHotLayer(agent, number, disk.lun);
  }

  /** Answers whether any went, for us or for somebody else who was short of places. */
  async #releaseUnused(except: number): Promise<boolean> {
    const { store } = this.#options;
    const used = new Set([...(await this.#options.inUse())].map((digest) => store.layerNumber(digest)));
    const unused = [...this.#mounted.keys()].filter((number) => number !== except && !used.has(number));
    const helps = unused.length > 0 || this.#releases > 0;
    await this.#release(unused);
    return helps;
  }

  async #release(numbers: readonly number[]): Promise<void> {
    // Taken out at once: whoever needs one of them from here on mounts it again, after this.
    const going = numbers.flatMap((number) => {
      const mounting = this.#mounted.get(number);
      this.#mounted.delete(number);
      return mounting === undefined ? [] : [{ number, mounting }];
    });
    this.#releases += 1;
    const release = this.#releasing.then(async () => {
      for (const { number, mounting } of going) await this.#releaseOne(number, mounting);
      this.#releases -= 1;
    });
    this.#releasing = release;
    await release;
  }

  /** Never rejects: a layer that stays is found again when the machine comes up the next time. */
  async #releaseOne(number: number, mounting: Promise<string>): Promise<void> {
    const { vm, agent, logger } = this.#options;
    try {
      await mounting.catch(() => {});
      try {
        await agent.batch([
          { case: 'unmount', value: { target: layerMount(number) } },
          { case: 'remove', value: { path: layerMount(number), missingOk: true } },
        ]);
      } catch (error) {
        // It was attached and not mounted.
        if (!(error instanceof AgentOpError) || !['EINVAL', 'ENOENT'].includes(error.errnoName)) throw error;
      }
      if (vm.hotDisks.some(({ id }) => id === layerDiskId(number))) await vm.detachDisk(layerDiskId(number));
    } catch (error) {
      logger.warn('layer.release_failed', { number, reason: messageOf(error) });
    }
  }
}
