/** The real command on a data directory of its own, and what it may leave behind: nothing. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const LAUNCHER = fileURLToPath(new URL('../arcbox', import.meta.url));
/** How long what was told to end may take, on a machine that has much else to do. */
const LEFTOVERS_TIMEOUT_MS = 20_000;

export interface Outcome {
  readonly stdout: string;
  readonly stderr: string;
  /** Null when a signal ended it. */
  readonly code: number | null;
}

export interface RunOptions {
  readonly input?: string;
  readonly environment?: Readonly<Record<string, string>>;
}

export class Arcbox implements AsyncDisposable {
  readonly home = mkdtempSync(join(tmpdir(), 'arcbox-e2e-'));
  readonly #environment: NodeJS.ProcessEnv;
  readonly #wrapper: readonly string[];

  /** `wrapper` is what our command is given to, for example `nsenter` with its options. */
  constructor(environment: Readonly<Record<string, string>> = {}, wrapper: readonly string[] = []) {
    this.#wrapper = wrapper;
    const inherited = Object.entries(process.env).filter(
      ([name]) => !name.startsWith('ARCBOX_') || name === 'ARCBOX_BOOT_DIR',
    );
    this.#environment = {
      ...Object.fromEntries(inherited),
      ARCBOX_HOME: this.home,
      ARCBOX_MACHINE_MEMORY: '512m',
      ...environment,
    };
  }

  /** Starts a command; its standard streams are pipes. */
  spawn(args: readonly string[], options: RunOptions = {}): ChildProcess {
    const [program = LAUNCHER, ...words] = [...this.#wrapper, LAUNCHER, ...args];
    const child = spawn(program, words, {
      env: { ...this.#environment, ...options.environment },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    // A command may end without having read its input; how it ended is told by its exit code.
    child.stdin?.on('error', () => {});
    if (options.input !== undefined) child.stdin?.end(options.input);
    return child;
  }

  /** Runs a command to its end. Without `input` its standard input is at its end. */
  async run(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    return outcome(this.spawn(args, { input: '', ...options }));
  }

  /** The daemon's ends of the connections that it has, or will take next: inode numbers. */
  #connections(): Set<string> {
    const connected = new RegExp(` 03 +(\\d+) ${join(this.home, 'run', 'arcbox.sock')}$`, 'gm');
    const table = readFileSync('/proc/net/unix', 'utf8');
    return new Set(Array.from(table.matchAll(connected), ([, inode = '']) => inode));
  }

  /** Starts a command that waits for something; resolves when the daemon has been asked. */
  async spawnWaiting(args: readonly string[]): Promise<ChildProcess> {
    // A connection of the command before it may still be closing: what counts is one that was not there.
    const before = this.#connections();
    const child = this.spawn(args, { input: '' });
    const asked = (): boolean => this.#connections().difference(before).size > 0;
    await backOff(() => asked() || child.exitCode !== null);
    // Whoever asks now comes after it: the daemon takes connections, and what they say, in turn.
    return child;
  }

  get daemonPid(): number {
    const pid = Number(readFileSync(join(this.home, 'run', 'daemon.pid'), 'utf8'));
    // A signal to 0 would be one to ourselves.
    if (!(pid > 1)) throw new Error(`daemon.pid holds ${pid}`);
    return pid;
  }

  /** Kills the daemon that is up now, or as soon as one is, as a crash does; waits until its process is gone. */
  async crashDaemon(): Promise<void> {
    let pid = 0;
    await backOff(() => {
      try {
        pid = this.daemonPid;
        // The file may be of a daemon that was killed before, of which only the exit status is left.
        return isRunning(pid) && process.kill(pid, 'SIGKILL');
      } catch (error) {
        const code = error instanceof Error && 'code' in error ? error.code : '';
        if (code !== 'ESRCH' && code !== 'ENOENT') throw error;
        return false;
      }
    });
    await processGone(pid);
  }

  /** Process IDs of the virtual machines of this data directory: children of the guardians that name it. */
  machines(): number[] {
    const all = processes();
    const guardians = all
      .filter(({ command }) => command.includes(`--dir ${this.home}/run/`))
      .map(({ pid }) => pid);
    return all.filter(({ parent }) => guardians.includes(parent)).map(({ pid }) => pid);
  }

  daemonLog(): string {
    return readFileSync(join(this.home, 'log', 'daemon.log'), 'utf8');
  }

  /** Stops everything; throws when something of this data directory goes on. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { code, stdout, stderr } = await this.run(['daemon', 'stop']);
    const remaining = (): ProcessInfo[] => {
      const machines = this.machines();
      return processes().filter(
        ({ pid, command, environment }) =>
          command.includes(this.home) || environment.includes(this.home) || machines.includes(pid),
      );
    };
    // A command that a test killed, or a guardian that has ended its machine, may be on its way out.
    const endMs = performance.now() + LEFTOVERS_TIMEOUT_MS;
    await backOff(() => remaining().length === 0 || performance.now() > endMs);
    const left = remaining();
    for (const { pid } of left) process.kill(pid, 'SIGKILL');
    const sockets = readdirSync(join(this.home, 'run')).filter(
      (name) => name.endsWith('.sock') || /^[0-9a-f]{8}$/.test(name),
    );
    const containers = readdirSync(join(this.home, 'containers'));
    const log = left.length + sockets.length > 0 ? this.daemonLog() : '';
    rmSync(this.home, { recursive: true, force: true });
    if (code !== 0) throw new Error(`daemon stop failed: ${stdout}${stderr}`);
    if (left.length > 0)
      throw new Error(`left running: ${left.map(({ command }) => command).join('; ')}\n${log}`);
    if (sockets.length > 0) throw new Error(`left in run: ${sockets.join(', ')}\n${log}`);
    if (containers.length > 0) throw new Error(`left in containers: ${containers.join(', ')}`);
  }
}

export async function outcome(child: ChildProcess): Promise<Outcome> {
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  await once(child, 'close');
  return { stdout, stderr, code: child.exitCode };
}

/** Asks until it is so, from 1 ms on; the limit is the test's own. */
export async function backOff(isSo: () => boolean): Promise<void> {
  for (let delayMs = 1; !isSo(); delayMs = Math.min(delayMs * 2, 50)) {
    await new Promise((resolve) => setTimeout(resolve, delayMs));
  }
}

/** Resolves when the process is gone, or only its exit status is left. */
export async function processGone(pid: number): Promise<void> {
  await backOff(() => !isRunning(pid));
}

/** Says something to a port of loopback; all that it answers, which is nothing when nobody listens behind it. */
export async function answerOf(port: number, said: string): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port });
  socket.on('error', () => {});
  socket.write(said);
  let answer = '';
  try {
    for await (const data of socket) answer += String(data);
    return answer;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (!['ECONNREFUSED', 'ECONNRESET', 'EPIPE'].includes(code)) throw error;
    return '';
  }
}

/** The same until there is an answer: a server of one connection does not listen between two of them. */
export async function untilAnswered(port: number, said: string): Promise<string> {
  for (let delayMs = 1; ; delayMs = Math.min(delayMs * 2, 500)) {
    const answer = await answerOf(port, said);
    if (answer !== '') return answer;
    await new Promise((resolve) => setTimeout(resolve, delayMs));
  }
}

/** Ends a command that goes on by itself, and waits for that. */
export async function killed(child: ChildProcess): Promise<void> {
  const closed = child.exitCode === null && child.signalCode === null ? once(child, 'close') : undefined;
  child.kill();
  await closed;
}

export function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** What a child has printed since somebody first waited for it: a text may come while nobody waits. */
interface Transcript {
  seen: string;
  ended: boolean;
  readonly waiting: Set<() => void>;
}

const transcripts = new WeakMap<ChildProcess, Transcript>();

function transcriptOf(child: ChildProcess): Transcript {
  const known = transcripts.get(child);
  if (known !== undefined) return known;
  const transcript: Transcript = { seen: '', ended: false, waiting: new Set() };
  transcripts.set(child, transcript);
  const wake = (): void => {
    const waiting = [...transcript.waiting];
    transcript.waiting.clear();
    for (const go of waiting) go();
  };
  child.stdout?.on('data', (data: Buffer | string) => {
    transcript.seen += data.toString();
    wake();
  });
  child.once('close', () => {
    transcript.ended = true;
    wake();
  });
  return transcript;
}

/** Resolves when what the child has printed, since the first call for it, contains the text. */
export async function untilOutput(child: ChildProcess, text: string): Promise<void> {
  const transcript = transcriptOf(child);
  while (!transcript.seen.includes(text)) {
    if (transcript.ended) throw new Error(`it ended without having printed ${text}: ${transcript.seen}`);
    await new Promise<void>((resolve) => transcript.waiting.add(resolve));
  }
}

/** Resolves with the child's next output; rejects when it ends without any. */
export async function nextOutput(child: ChildProcess): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const ended = (): void => reject(new Error('it ended without further output'));
  child.stdout?.once('data', () => resolve());
  child.once('close', ended);
  await promise.finally(() => child.off('close', ended));
}

interface ProcessInfo {
  readonly pid: number;
  readonly parent: number;
  readonly command: string;
  readonly environment: string;
}

function processes(): ProcessInfo[] {
  const found: ProcessInfo[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    try {
      const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ');
      const environment = readFileSync(`/proc/${name}/environ`, 'utf8');
      if (isRunning(Number(name))) {
        const parent = Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${name}/status`, 'utf8'))?.[1]);
        found.push({ pid: Number(name), parent, command, environment });
      }
    } catch {
      // It ended while we looked, or is a kernel thread.
    }
  }
  return found;
}

/** The first of so many ports in a row that nobody has, below those that the kernel gives out. */
export async function freePorts(count: number): Promise<number> {
  for (let first = 20_000 + (process.pid % 10_000); ; first += count) {
    const servers = Array.from({ length: count }, (_, index) =>
      createServer().listen(first + index, '127.0.0.1'),
    );
    const bound = await Promise.allSettled(servers.map((server) => once(server, 'listening')));
    for (const server of servers) server.close();
    if (bound.every(({ status }) => status === 'fulfilled')) return first;
  }
}
