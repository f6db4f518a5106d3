/** The arcbox command with a home of its own, removed at the end: what the container benchmarks drive. */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { DaemonControl } from '@arcbox/api/client';
import { HostLayout } from '@arcbox/engine';

const LAUNCHER = path.join(import.meta.dirname, '..', '..', 'arcbox');
const COMMAND_LIMIT_MS = 120_000;

export class ArcBox implements AsyncDisposable {
  readonly home: string;
  readonly #environment: NodeJS.ProcessEnv;

  private constructor(home: string, environment: NodeJS.ProcessEnv) {
    this.home = home;
    this.#environment = environment;
  }

  static async create(environment: NodeJS.ProcessEnv = {}): Promise<ArcBox> {
    const home = await mkdtemp(path.join(os.tmpdir(), 'arcbox-bench-'));
    return new ArcBox(home, { ...process.env, ...environment, ARCBOX_HOME: home });
  }

  /** Starts a command; the caller waits for it. */
  start(args: readonly string[], options: SpawnOptions = {}): ChildProcess {
    return spawn(LAUNCHER, args, {
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: COMMAND_LIMIT_MS,
      ...options,
      env: this.#environment,
    });
  }

  /** Runs a command to its end; throws when it does not exit with 0. */
  async run(...args: string[]): Promise<{ readonly output: string; readonly elapsedMs: number }> {
    const began = performance.now();
    const child = this.start(args);
    const exit = once(child, 'exit');
    const output = child.stdout === null ? Buffer.alloc(0) : await buffer(child.stdout);
    const [code, signal] = (await exit) as [number | null, string | null];
    if (code !== 0) throw new Error(`arcbox ${args.join(' ')} ended with ${code ?? signal}`);
    return { output: output.toString(), elapsedMs: performance.now() - began };
  }

  /** For calls without a process of their own; the daemon has to run already. */
  daemon(): DaemonControl {
    const layout = new HostLayout(this.home);
    return new DaemonControl({
      paths: { socket: layout.socket, daemonLog: layout.daemonLog },
      command: [LAUNCHER, 'daemon', 'start'],
    });
  }

  async daemonPid(): Promise<number> {
    return Number((await readFile(path.join(this.home, 'run', 'daemon.pid'), 'utf8')).trim());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.run('daemon', 'stop');
    } finally {
      await rm(this.home, { recursive: true, force: true });
    }
  }
}
