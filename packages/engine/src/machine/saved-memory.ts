/** What is kept of one machine while it is idle: the record, which is the truth, and the files that it speaks of. */
import { faultPoint } from '@arcbox/sys';
import type { RunningVm } from '@arcbox/vm';
import type { BootAssets } from '../boot-assets.ts';
import { messageOf } from '../errors.ts';
import type { HostLayout } from '../host-layout.ts';
import type { Logger } from '../logger.ts';
import type { Store } from '../state/store.ts';
import type { MachineSize } from './machine-record.ts';
import {
  checkSaved,
  discardSaved,
  type SavedGuest,
  type SavedMachine,
  saveMachine,
} from './saved-machine.ts';

export interface SavedMemoryEnvironment {
  readonly layout: HostLayout;
  readonly store: Store;
  readonly assets: BootAssets;
  readonly logger: Logger;
}

export class SavedMemory {
  readonly #machine: string;
  readonly #environment: SavedMemoryEnvironment;
  #record: SavedMachine | undefined;

  constructor(machine: string, environment: SavedMemoryEnvironment) {
    this.#machine = machine;
    this.#environment = environment;
    this.#record = environment.store.machines.saved(machine);
  }

  /** Undefined when there is nothing to go on from. */
  get record(): SavedMachine | undefined {
    return this.#record;
  }

  /** Saves the machine, which is paused and stays so. When this throws, nothing is kept. */
  async save(vm: RunningVm, guest: SavedGuest): Promise<SavedMachine> {
    const { store, assets } = this.#environment;
    try {
      const saved = await saveMachine(vm, guest, this.#directory, assets);
      faultPoint('idle.record');
      store.machines.setSaved(this.#machine, saved);
      this.#record = saved;
      return saved;
    } catch (error) {
      await this.discardFiles();
      throw error;
    }
  }

  /** Forgets the record, so that the machine may run from the files; `discardFiles` is the caller's then. */
  take(): SavedMachine | undefined {
    const saved = this.#record;
    if (saved === undefined) return undefined;
    faultPoint('wake.forget');
    this.#record = undefined;
    this.#environment.store.machines.setSaved(this.#machine, undefined);
    return saved;
  }

  /** Forgets what was saved unless a machine of this size can go on from it. */
  async check(size: MachineSize): Promise<void> {
    const { assets, logger } = this.#environment;
    if (this.#record !== undefined) {
      const wrong = await checkSaved(this.#record, assets, size);
      if (wrong === undefined) return;
      logger.warn('machine.saved_unusable', { machine: this.#machine, reason: wrong });
    }
    // Without a record there may still be files that a crash left.
    await this.forget();
  }

  async forget(): Promise<void> {
    if (this.#record !== undefined) {
      this.#environment.store.machines.setSaved(this.#machine, undefined);
      this.#record = undefined;
    }
    await this.discardFiles();
  }

  /** Never rejects. */
  async discardFiles(): Promise<void> {
    try {
      await discardSaved(this.#directory);
    } catch (error) {
      this.#environment.logger.warn('machine.discard_failed', {
        machine: this.#machine,
        reason: messageOf(error),
      });
    }
  }

  get #directory(): string {
    return this.#environment.layout.machineMemory(this.#machine);
  }
}
