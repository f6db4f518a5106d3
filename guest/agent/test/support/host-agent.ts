/**
 * The agent on the host, over a Unix socket.
 *
 * It runs as root, in a mount namespace of its own, without the capabilities to set the clock, to reboot and to load
 * modules: a test that goes wrong must not touch the machine it runs on. At the end of a test it must still be alive,
 * hold no object, child or descriptor more than at its beginning, have said nothing of a sanitizer, and end when told.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Duplex } from 'node:stream';
import { AgentClient } from '@arcbox/protocol';
import { eventually } from './eventually.ts';

const BINARY = resolve(process.env.ARCBOX_AGENT ?? join(import.meta.dirname, '../../../../build/boot/agent'));
/** A sanitizer looks for leaks at the end, which takes its time. */
const END_LIMIT_MS = 60_000;
const DROPPED = '-sys_time,-sys_boot,-sys_module';

export const SECRET = new Uint8Array(16).fill(0x5a);

export class HostAgent implements AsyncDisposable {
  static async start(options: { leftovers?: boolean } = {}): Promise<HostAgent> {
    const directory = mkdtempSync(join(tmpdir(), 'agent-'));
    const socketPath = join(directory, 'socket');
    const child = spawn(
      'unshare',
      [
        '--mount',
        '--propagation',
        'private',
        'setpriv',
        '--bounding-set',
        DROPPED,
        BINARY,
        '--socket',
        socketPath,
      ],
      { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ASAN_OPTIONS: 'detect_leaks=1' } },
    );
    const agent = new HostAgent(child, directory, socketPath, options.leftovers ?? false);
    try {
      // It listens once it has started; there is nothing to wait on before that.
      const client = await eventually(async () => {
        agent.assertAlive();
        return await agent.connect();
      });
      const connected = agent.descriptors();
      await client.close();
      await eventually(() => assert.equal(agent.descriptors().length, connected.length - 1));
      agent.#descriptors = agent.descriptors();
    } catch (error) {
      child.kill('SIGKILL');
      rmSync(directory, { recursive: true, force: true });
      throw error;
    }
    return agent;
  }

  /** A directory for the test, removed at its end. */
  readonly directory: string;
  readonly socketPath: string;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #leftovers: boolean;
  #stderr = '';
  #descriptors: string[] = [];

  private constructor(child: ChildProcess, directory: string, socketPath: string, leftovers: boolean) {
    this.#child = child;
    // With it everything that it has said has come.
    this.#exited = once(child, 'close');
    this.directory = directory;
    this.socketPath = socketPath;
    this.#leftovers = leftovers;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
  }

  get pid(): number {
    assert.ok(this.#child.pid !== undefined);
    return this.#child.pid;
  }

  /** What it said so far. */
  get stderr(): string {
    return this.#stderr;
  }

  path(...parts: string[]): string {
    return join(this.directory, ...parts);
  }

  async socket(): Promise<net.Socket> {
    const socket = net.connect(this.socketPath);
    await once(socket, 'connect');
    return socket;
  }

  /** A new epoch; `through` wraps the channel. */
  async connect(through: (socket: net.Socket) => Duplex = (socket) => socket): Promise<AgentClient> {
    return await AgentClient.connect(through(await this.socket()), { secret: SECRET, timeoutMs: 20_000 });
  }

  /** What its descriptors are, sorted. */
  descriptors(): string[] {
    const directory = `/proc/${this.pid}/fd`;
    const links: string[] = [];
    for (const fd of readdirSync(directory)) {
      try {
        links.push(readlinkSync(join(directory, fd)).replace(/\[\d+\]/, ''));
      } catch {
        // It was closed between the two calls.
      }
    }
    return links.sort();
  }

  /** Its children, zombies included. */
  children(): string[] {
    return readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'utf8').split(' ').filter(Boolean);
  }

  assertAlive(): void {
    assert.ok(
      this.#child.exitCode === null && this.#child.signalCode === null,
      `the agent has ended (${this.#child.exitCode ?? this.#child.signalCode}): ${this.#stderr}`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.assertAlive();
      if (!this.#leftovers) await this.#assertNothingLeft();
    } finally {
      this.#child.kill('SIGTERM');
      const late = setTimeout(() => this.#child.kill('SIGKILL'), END_LIMIT_MS);
      await this.#exited;
      clearTimeout(late);
      rmSync(this.directory, { recursive: true, force: true });
    }
    assert.doesNotMatch(this.#stderr, /Sanitizer|runtime error/);
    assert.notEqual(this.#child.signalCode, 'SIGKILL', 'the agent did not end on SIGTERM');
  }

  async #assertNothingLeft(): Promise<void> {
    const client = await this.connect();
    const [result] = await client.batch([{ case: 'listObjects', value: {} }]);
    await client.close();
    assert.ok(result?.result.case === 'objects');
    assert.deepEqual(
      result.result.value.objects.map(({ id }) => id),
      [],
      'objects were left',
    );
    await eventually(() => {
      assert.deepEqual(this.children(), [], 'children were left');
      assert.deepEqual(this.descriptors(), this.#descriptors, 'descriptors were left');
    });
  }
}
