/** The boot benchmark's peer: QEMU started by hand, the same kernel, an init that only says it runs. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const BOOT_LIMIT_MS = 30_000;
const MARK = 'bare init up';

export class RawQemu implements Disposable {
  readonly #directory: string;
  readonly #kernel: string;
  readonly #memoryMib: number;

  constructor(kernel: string, memoryMib: number) {
    this.#kernel = kernel;
    this.#memoryMib = memoryMib;
    this.#directory = mkdtempSync(path.join(os.tmpdir(), 'arcbox-bench-'));
    const root = path.join(this.#directory, 'root');
    mkdirSync(root);
    const source = path.join(import.meta.dirname, '..', 'native', 'bare-init.c');
    execFileSync('cc', ['-static', '-Os', '-s', '-o', path.join(root, 'init'), source]);
    execFileSync('sh', ['-c', 'printf "init\\n" | cpio --quiet --create --format=newc >../initramfs'], {
      cwd: root,
    });
  }

  /** Milliseconds from the spawn of QEMU to the first word of init. */
  async boot(): Promise<number> {
    const began = performance.now();
    const child = spawn(
      'qemu-system-x86_64',
      [
        ...['-M', 'microvm,x-option-roms=off,rtc=on,acpi=off', '-accel', 'tcg', '-cpu', 'max,-svm'],
        ...[
          '-m',
          String(this.#memoryMib),
          '-nodefaults',
          '-no-user-config',
          '-no-reboot',
          '-display',
          'none',
        ],
        ...['-kernel', this.#kernel, '-initrd', path.join(this.#directory, 'initramfs'), '-serial', 'stdio'],
        ...['-append', 'console=ttyS0 reboot=t panic=-1 quiet'],
      ],
      { stdio: ['ignore', 'pipe', 'inherit'], timeout: BOOT_LIMIT_MS },
    );
    const exit = once(child, 'exit');
    let elapsed = Number.NaN;
    let seen = '';
    for await (const chunk of child.stdout) {
      seen += String(chunk);
      if (Number.isNaN(elapsed) && seen.includes(MARK)) elapsed = performance.now() - began;
    }
    await exit;
    if (Number.isNaN(elapsed))
      throw new Error(`raw QEMU did not reach init; it printed: ${seen.slice(-500)}`);
    return elapsed;
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
