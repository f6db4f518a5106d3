/** Real machines for tests: boot assets, a run root, and a look at what is left of them. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseProbe } from '../../src/accelerator.ts';
import { type FaultHook, QemuDriver, type QemuDriverOptions, type VmConfig } from '../../src/index.ts';
import type { ContractHarness } from '../contract.ts';

export const repository: string = path.join(import.meta.dirname, '../../../..');
export const bootDirectory: string = process.env.ARCBOX_BOOT_DIR ?? path.join(repository, 'build/boot');

export class QemuHarness implements ContractHarness {
  readonly root: string;
  readonly runRoot: string;
  /** On tmpfs: for memory files. */
  readonly memoryRoot: string;

  /** Rate of the host's time-stamp counter. */
  readonly #tscKhz = probeTscKhz();

  constructor() {
    this.root = fs.mkdtempSync(path.join(os.tmpdir(), 'arcbox-vm-'));
    this.runRoot = path.join(this.root, 'run');
    fs.mkdirSync(this.runRoot);
    this.memoryRoot = fs.mkdtempSync('/dev/shm/arcbox-vm-');
  }

  driver(fault?: FaultHook, more: Partial<QemuDriverOptions> = {}): QemuDriver {
    return new QemuDriver({
      runRoot: this.runRoot,
      guardian: path.join(bootDirectory, 'guardian'),
      accelerator: 'tcg',
      ...(this.#tscKhz > 0 ? { tscKhz: this.#tscKhz } : {}),
      ...(fault === undefined ? {} : { fault }),
      ...more,
    });
  }

  config(overrides: Partial<VmConfig> = {}): VmConfig {
    return {
      name: 'contract',
      architecture: 'x86_64',
      vcpus: 1,
      memoryMib: 256,
      memory: { kind: 'memfd' },
      kernel: path.join(bootDirectory, 'vmlinux'),
      initramfs: path.join(bootDirectory, 'initramfs'),
      kernelArgs: [],
      disks: [],
      nics: [],
      lifetime: { kind: 'ephemeral' },
      bootTimeoutMs: 90_000,
      ...overrides,
    };
  }

  makeDirectory(): string {
    return fs.mkdtempSync(path.join(this.memoryRoot, 'd-'));
  }

  /** Processes that name our run root, its entries, their cgroups, and our own descriptors. */
  leftovers(): string[] {
    const runDirs = fs.readdirSync(this.runRoot);
    return [
      ...this.processes().map((pid) => `process ${pid}`),
      ...runDirs.map((name) => `run directory ${name}`),
      ...fs.readdirSync(this.memoryRoot).map((name) => `memory ${name}`),
      ...this.#cgroups(),
      ...openDescriptors(),
    ];
  }

  processes(): number[] {
    return fs.readdirSync('/proc').flatMap((name) => {
      if (!/^[0-9]+$/.test(name) || Number(name) === process.pid) return [];
      try {
        return fs.readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(this.runRoot)
          ? [Number(name)]
          : [];
      } catch {
        return [];
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    fs.rmSync(this.root, { recursive: true });
    fs.rmSync(this.memoryRoot, { recursive: true });
  }

  readonly #seenCgroups = new Set<string>();

  /** Remembers a machine's cgroups, to look for them later. */
  watchCgroups(directories: readonly string[]): void {
    for (const directory of directories) this.#seenCgroups.add(directory);
  }

  #cgroups(): string[] {
    return [...this.#seenCgroups]
      .filter((directory) => fs.existsSync(directory))
      .map((directory) => `cgroup ${directory}`);
  }
}

function probeTscKhz(): number {
  return parseProbe(execFileSync(path.join(bootDirectory, 'kvm-probe'), { encoding: 'utf8' })).tscKhz;
}

/** Sockets, pipes, files: not what Node opens for itself. */
function openDescriptors(): string[] {
  return fs
    .readdirSync('/proc/self/fd')
    .flatMap((fd) => {
      try {
        const target = fs.readlinkSync(`/proc/self/fd/${fd}`);
        return target.startsWith('anon_inode') || target.startsWith('/proc')
          ? []
          : [`descriptor ${fd}: ${target}`];
      } catch {
        return [];
      }
    })
    .sort();
}
