/** The program that the network benchmarks run in a guest, and on the host as the service that is connected to. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

/** More than anybody makes. */
const CONNECTS_MAX = 1_000_000;

/** Static, so that it runs wherever it is put. */
export function buildNetProbe(output: string): void {
  const source = path.join(import.meta.dirname, '..', 'native', 'net-probe.c');
  execFileSync('cc', ['-static', '-O2', '-s', '-Wall', '-Werror', '-o', output, source]);
}

/**
 * A service of the host's loopback that takes what connects, in a process of its own that does next to nothing: where
 * two processors have to do for all, a service that works for its connections would be measured with them.
 */
export class LoopbackService implements AsyncDisposable {
  readonly port: number;
  readonly #directory: string;
  readonly #child: ChildProcess;

  private constructor(port: number, directory: string, child: ChildProcess) {
    this.port = port;
    this.#directory = directory;
    this.#child = child;
  }

  static async start(): Promise<LoopbackService> {
    const directory = mkdtempSync(path.join(os.tmpdir(), 'arcbox-bench-service-'));
    try {
      const program = path.join(directory, 'net-probe');
      buildNetProbe(program);
      const child = spawn(program, ['accept', '127.0.0.1', '0', String(CONNECTS_MAX)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      // It says its port, or ends without a word.
      const lines = createInterface({ input: child.stdout });
      const { value: port } = await lines[Symbol.asyncIterator]().next();
      if (port === undefined) throw new Error(`${program} ended before it listened; what it said is above`);
      return new LoopbackService(Number(port), directory, child);
    } catch (error) {
      rmSync(directory, { recursive: true, force: true });
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const exit = once(this.#child, 'exit');
      this.#child.kill('SIGKILL');
      await exit;
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
