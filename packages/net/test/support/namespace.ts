/**
 * Network namespaces for tests. A namespace lives in a process that ends when our end of its standard input closes, so
 * nothing is left over however the test ends.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';

const run = promisify(execFile);
const COMMAND_LIMIT_MS = 90_000;
/** What runs a TypeScript file with the pinned runtime. */
const NODE = process.execPath;

export class Namespace implements AsyncDisposable {
  readonly pid: number;
  readonly #holder: ChildProcess;

  private constructor(holder: ChildProcess, pid: number) {
    this.#holder = holder;
    this.pid = pid;
  }

  /** A namespace of its own, with loopback up. */
  static async create(): Promise<Namespace> {
    const holder = spawn(
      'unshare',
      ['--net', 'sh', '-c', 'ip link set lo up && echo ready && exec cat >/dev/null'],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    );
    const { stdout, pid } = holder;
    if (stdout === null || pid === undefined) throw new Error('unshare did not start');
    await Promise.race([
      once(stdout, 'data'),
      once(holder, 'exit').then(() => {
        throw new Error('a network namespace cannot be made; the tests of the network need root');
      }),
    ]);
    return new Namespace(holder, pid);
  }

  /** What runs a command in here. */
  get wrapper(): readonly string[] {
    return ['nsenter', '--target', String(this.pid), '--net', '--'];
  }

  #enter(command: readonly string[]): [string, string[]] {
    const [file = '', ...words] = this.wrapper;
    return [file, [...words, ...command]];
  }

  /** Runs a command to its end and gives its standard output; rejects when it fails. */
  async run(...command: string[]): Promise<string> {
    const { stdout } = await run(...this.#enter(command), { timeout: COMMAND_LIMIT_MS });
    return stdout;
  }

  /** Runs `ip` with these words. */
  async ip(words: string): Promise<string> {
    return this.run('ip', ...words.split(' '));
  }

  /** The exit code and the output of a command that may fail. */
  async attempt(...command: string[]): Promise<{ code: number; output: string }> {
    try {
      return { code: 0, output: await this.run(...command) };
    } catch (error) {
      const { code, stdout = '', stderr = '' } = error as { code?: number; stdout?: string; stderr?: string };
      return { code: typeof code === 'number' ? code : -1, output: stdout + stderr };
    }
  }

  /** Starts a command; the caller ends it. */
  spawn(...command: string[]): ChildProcess {
    const [file, args] = this.#enter(command);
    return spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  }

  /** Starts one of our programs in here, which says when it is ready and ends when its standard input does. */
  async program(file: string, ...args: string[]): Promise<Program> {
    const child = this.spawn(NODE, '--disable-warning=ExperimentalWarning', file, ...args);
    const program = new Program(child, 'input');
    try {
      await program.until('ready');
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
    return program;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exit = once(this.#holder, 'exit');
    this.#holder.stdin?.end();
    await exit;
  }
}

/** A child whose output is watched. */
export class Program implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #end: 'input' | 'signal';
  #output = '';
  /** It has ended, and all that it has printed is in `#output`. */
  #closed = false;
  #wake: () => void = () => {};

  /** It ends when its standard input does, or on SIGTERM. */
  constructor(child: ChildProcess, end: 'input' | 'signal') {
    this.#child = child;
    this.#end = end;
    child.stdout?.on('data', (data: Buffer) => {
      this.#output += data.toString();
      this.#wake();
    });
    // What is told to one that has ended goes nowhere.
    child.stdin?.on('error', () => {});
    child.once('close', () => {
      this.#closed = true;
      this.#wake();
    });
  }

  get output(): string {
    return this.#output;
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  /** Waits until it has printed `text`, after the first `from` characters. */
  async until(text: string, from = 0): Promise<void> {
    const limit = AbortSignal.timeout(COMMAND_LIMIT_MS);
    limit.addEventListener('abort', () => this.#wake());
    while (!this.#output.includes(text, from)) {
      if (this.#closed || limit.aborted) {
        const how = limit.aborted ? 'did not print' : 'ended before it printed';
        throw new Error(`the program ${how} ${text}; it printed: ${this.#output}`);
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Sends it a line. */
  tell(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exit = once(this.#child, 'exit');
    if (this.#end === 'input') this.#child.stdin?.end();
    else this.#child.kill('SIGTERM');
    await exit;
  }
}

/** A cable between two namespaces. */
export async function connect(a: Namespace, aName: string, b: Namespace, bName: string): Promise<void> {
  await a.ip(`link add ${aName} type veth peer name ${bName} netns ${b.pid}`);
  await a.ip(`link set ${aName} up`);
  await b.ip(`link set ${bName} up`);
}
