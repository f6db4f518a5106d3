/** A QEMU driver with a run root of its own, and a template's place on tmpfs: what the VM benchmarks start from. */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type BootAssets, bootDirectory, loadBootAssets } from '@arcbox/engine';
import { type Accelerator, probeAccelerator, QemuDriver, type VmConfig } from '@arcbox/vm';

const TMPFS = '/dev/shm';
const BOOT_LIMIT_MS = 30_000;

export interface BenchHost extends AsyncDisposable {
  readonly driver: QemuDriver;
  readonly accelerator: Accelerator;
  readonly assets: BootAssets;
  config(options: ConfigOptions): VmConfig;
}

export interface ConfigOptions {
  readonly name: string;
  readonly memoryMib: number;
  readonly memory?: VmConfig['memory'];
}

export async function benchHost(): Promise<BenchHost> {
  const assets = await loadBootAssets(bootDirectory(process.env));
  const { accelerator } = await probeAccelerator({ kvmProbe: path.join(assets.directory, 'kvm-probe') });
  const runRoot = await mkdtemp(path.join(os.tmpdir(), 'arcbox-bench-'));
  const driver = new QemuDriver({
    runRoot,
    guardian: path.join(assets.directory, 'guardian'),
    accelerator,
  });
  return {
    driver,
    accelerator,
    assets,
    config: ({ name, memoryMib, memory = { kind: 'memfd' } }) => ({
      name,
      architecture: assets.architecture,
      vcpus: 1,
      memoryMib,
      memory,
      kernel: assets.kernel,
      initramfs: assets.initramfs,
      kernelArgs: [],
      disks: [],
      nics: [],
      lifetime: { kind: 'ephemeral' },
      bootTimeoutMs: BOOT_LIMIT_MS,
    }),
    [Symbol.asyncDispose]: () => rm(runRoot, { recursive: true, force: true }),
  };
}

export interface TemplateDirectory extends AsyncDisposable {
  readonly path: string;
  file(name: string): string;
}

export async function templateDirectory(): Promise<TemplateDirectory> {
  const directory = await mkdtemp(path.join(TMPFS, 'arcbox-bench-'));
  return {
    path: directory,
    file: (name) => path.join(directory, name),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}
