/** A runtime on the fake driver, in a directory of its own, that can be left as a crash leaves it. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { FakeDriver, FakeHost } from '@arcbox/vm';
import {
  type BootAssets,
  type ContainerAttachment,
  HostLayout,
  loadConfig,
  Runtime,
  SILENT,
} from '../../src/index.ts';
import { FakeContainerGuest, type Program } from './fake-guest.ts';

export class FakeRuntime implements AsyncDisposable {
  readonly home: string;
  readonly layout: HostLayout;
  readonly guest: FakeContainerGuest;
  readonly host = new FakeHost();
  readonly assets: BootAssets;
  readonly #programs: Readonly<Record<string, Program>>;
  readonly #others = new Map<string, FakeContainerGuest>();

  static async create(programs: Readonly<Record<string, Program>> = {}): Promise<FakeRuntime> {
    const home = await mkdtemp(join(tmpdir(), 'arcbox-engine-'));
    const layout = new HostLayout(home);
    await layout.prepare();
    const config = {
      config: { Cmd: ['echo', 'default'] },
      rootfs: { diff_ids: [`sha256:${'1'.repeat(64)}`] },
    };
    await writeFile(join(home, 'busybox.json'), JSON.stringify(config));
    for (const name of ['busybox.squashfs', 'vmlinux', 'initramfs']) await writeFile(join(home, name), name);
    // A disk that is there is not made.
    await mkdir(layout.machine('default'), { recursive: true });
    await writeFile(layout.machineDisk('default'), '');
    return new FakeRuntime(home, layout, programs);
  }

  private constructor(home: string, layout: HostLayout, programs: Readonly<Record<string, Program>>) {
    this.home = home;
    this.layout = layout;
    this.#programs = programs;
    this.guest = new FakeContainerGuest(programs);
    this.assets = {
      directory: home,
      hash: 'fake',
      architecture: 'x86_64',
      kernel: join(home, 'vmlinux'),
      initramfs: join(home, 'initramfs'),
      seccompBase64: '',
    };
  }

  driver(): FakeDriver {
    return new FakeDriver({
      host: this.host,
      handlers: (guest, { name }) => this.guestOf(name).handlers(guest),
    });
  }

  /** The inside of a machine; `guest` is that of the default one. */
  guestOf(machine: string): FakeContainerGuest {
    const guest = this.#others.get(machine) ?? new FakeContainerGuest(this.#programs);
    if (machine === 'default') return this.guest;
    this.#others.set(machine, guest);
    return guest;
  }

  async open(environment: NodeJS.ProcessEnv = {}): Promise<Runtime> {
    const config = await loadConfig({ environment, file: this.layout.configFile });
    return new Runtime({
      layout: this.layout,
      config,
      assets: this.assets,
      driver: this.driver(),
      logger: SILENT,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const machine of this.host.machines.values()) machine.kill('the test is over');
    await rm(dirname(this.layout.machineMemory('default')), { recursive: true, force: true });
    await rm(this.home, { recursive: true, force: true });
  }
}

/** Everything that a run writes, until its end. */
export async function collect(attachment: ContainerAttachment): Promise<{ out: string; err: string }> {
  let out = '';
  let err = '';
  for (let batch = await attachment.read(); batch !== undefined; batch = await attachment.read()) {
    for (const { channel, data } of batch.records) {
      if (channel === 1) out += data.toString();
      else err += data.toString();
    }
  }
  return { out, err };
}
