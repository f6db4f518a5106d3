/**
 * The volumes that a machine has mounted: one disk each, hot-plugged, at `/v/<number>`. The disk's root holds ext4's own
 * directories, so a volume's data is in a directory of it.
 */
import { AgentOpError } from '@arcbox/protocol';
import { faultPoint } from '@arcbox/sys';
import type { RunningVm } from '@arcbox/vm';
import { EngineError } from '../errors.ts';
import type { AgentSession } from './agent-session.ts';
import { volumeData, volumeDiskId, volumeMount, volumeNumberOfDisk } from './guest-layout.ts';
import { MS_NOATIME } from './mount-flags.ts';

const MODE = 0o755;

export class MachineVolumes {
  readonly #vm: RunningVm;
  readonly #agent: AgentSession;
  readonly #mounted = new Map<number, Promise<string>>();

  /** `mounts`: mount points that are there already, of a machine that was taken over. */
  constructor(vm: RunningVm, agent: AgentSession, mounts: ReadonlySet<string>) {
    this.#vm = vm;
    this.#agent = agent;
    for (const number of this.attached)
      if (mounts.has(volumeMount(number))) this.#mounted.set(number, Promise.resolve(volumeData(number)));
  }

  /** Numbers of the volumes whose disks the machine has. */
  get attached(): number[] {
    return this.#vm.hotDisks.map(({ id }) => volumeNumberOfDisk(id)).filter((number) => number !== undefined);
  }

  /** Where the volume's data is in the guest; attaches and mounts it once. */
  mount(number: number, path: string): Promise<string> {
    let mounting = this.#mounted.get(number);
    if (mounting === undefined) {
      mounting = this.#mount(number, path);
      this.#mounted.set(number, mounting);
      // The next container tries again; the disk may be attached by then.
      mounting.catch(() => this.#mounted.delete(number));
    }
    return mounting;
  }

  /** Unmounts and detaches it, when it is there. Nobody may use it. Throws `ERR_ARCBOX_VOLUME_IN_USE` when somebody does. */
  async release(number: number): Promise<void> {
    const mounting = this.#mounted.get(number);
    await mounting?.catch(() => {});
    if (!this.attached.includes(number)) return;
    this.#mounted.delete(number);
    try {
      await this.#agent.batch([{ case: 'unmount', value: { target: volumeMount(number) } }]);
    } catch (error) {
      if (error instanceof AgentOpError && error.errnoName === 'EBUSY') {
        if (mounting !== undefined) this.#mounted.set(number, mounting);
        throw new EngineError(
          'ERR_ARCBOX_VOLUME_IN_USE',
          `the volume at ${volumeMount(number)} is still in use`,
        );
      }
      // It was attached and not mounted: a crash came between the two.
      if (!(error instanceof AgentOpError) || !['EINVAL', 'ENOENT'].includes(error.errnoName)) throw error;
    }
    faultPoint('volume.detach');
    await this.#vm.detachDisk(volumeDiskId(number));
  }

  async #mount(number: number, path: string): Promise<string> {
    const id = volumeDiskId(number);
    faultPoint('volume.attach');
    const attached = this.#vm.hotDisks.find((disk) => disk.id === id);
    const { lun } = attached ?? (await this.#vm.attachDisk({ id, path, format: 'raw', readOnly: false }));
    const [device] = await this.#agent.batch([
      { case: 'waitDevice', value: { match: { case: 'scsiLun', value: lun } } },
    ]);
    if (device?.result.case !== 'device') {
      throw new EngineError('ERR_ARCBOX_MACHINE_LOST', `the agent did not name the disk at LUN ${lun}`);
    }
    faultPoint('volume.mount');
    const data = volumeData(number);
    await this.#agent.batch([
      {
        case: 'mount',
        value: {
          source: device.result.value.path,
          target: volumeMount(number),
          type: 'ext4',
          flags: MS_NOATIME,
          data: 'discard,noinit_itable',
          mkdirTarget: true,
        },
      },
      { case: 'mkdir', value: { path: data, mode: MODE, parents: true } },
    ]);
    return data;
  }
}
