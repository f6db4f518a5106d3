/**
 * Starting and stopping the daemon from outside, and calls that start it when it is not up.
 *
 * Any number of processes may want the daemon at once. Each that finds nobody listening starts one; the lock decides
 * which stays, and the others say `busy` on their pipe and go, and their parents connect to the one that stayed. The
 * pipe (descriptor 3) is how a daemon says that it is ready: one line, `ready`, `busy`, or an error in JSON.
 */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { rotateDaemonLog } from '../daemon-log.ts';
import { ApiError, RemoteError } from '../errors.ts';
import type { TransferProgressJson } from '../gen/arcbox/v1/image_pb.ts';
import {
  CONNECT_RETRY_MS_MAX,
  CONNECT_RETRY_MS_MIN,
  DAEMON_START_DEATHS_MAX,
  DAEMON_START_TIMEOUT_MS,
  DAEMON_STOP_TIMEOUT_MS,
  SPAWN_RETRY_MS_MAX,
  SPAWN_RETRY_MS_MIN,
} from '../limits.ts';
import { call, isUnreachable, type Methods } from './client.ts';
import type { BulkQuery } from './image-bulk.ts';
import { callStream, type StreamMethods } from './stream-call.ts';

export interface DaemonPaths {
  readonly socket: string;
  readonly daemonLog: string;
}

export interface DaemonControlOptions {
  readonly paths: DaemonPaths;
  /** Program and arguments of the daemon, which reports on descriptor 3. */
  readonly command: readonly [string, ...string[]];
  /** Makes the data directory, or refuses it, before anything is written there. */
  readonly prepare?: () => Promise<void>;
}

/** The descriptor on which a daemon says how its start went. */
export const READY_FD = 3;
/** Set for a daemon that has it: in one that was started by hand the number may be anything's. */
export const READY_FD_VARIABLE = 'ARCBOX_READY_FD';

export class DaemonControl {
  readonly socketPath: string;
  readonly #options: DaemonControlOptions;

  constructor(options: DaemonControlOptions) {
    this.#options = options;
    this.socketPath = options.paths.socket;
  }

  /** A call that starts the daemon when nobody listens. A connection that breaks under a call is told, not repeated. */
  async call<Method extends keyof Methods>(
    method: Method,
    message: Methods[Method][0],
  ): Promise<Methods[Method][1]> {
    try {
      return await call(this.socketPath, method, message);
    } catch (error) {
      if (!nobodyListens(error)) throw error;
    }
    await this.start();
    return call(this.socketPath, method, message);
  }

  /** A call that may be carried out twice: repeated, with a new daemon when need be, until it is answered. */
  async callIdempotent<Method extends keyof Methods>(
    method: Method,
    message: Methods[Method][0],
  ): Promise<Methods[Method][1]> {
    let failingSinceMs: number | undefined;
    for (let delayMs = CONNECT_RETRY_MS_MIN; ; delayMs = Math.min(delayMs * 2, CONNECT_RETRY_MS_MAX)) {
      const calledMs = Date.now();
      try {
        return await this.call(method, message);
      } catch (error) {
        if (!isUnreachable(error)) throw error;
        const now = Date.now();
        // A call that went on for long had a daemon that worked: its end is the first failure.
        if (failingSinceMs === undefined || now - calledMs > DAEMON_START_TIMEOUT_MS) failingSinceMs = now;
        if (now - failingSinceMs > DAEMON_START_TIMEOUT_MS) throw error;
      }
      await sleep(delayMs);
    }
  }

  /** A call that is answered with a stream; starts the daemon when nobody listens. A break in the middle is told. */
  async *stream<Method extends keyof StreamMethods>(
    method: Method,
    message: StreamMethods[Method][0],
  ): AsyncGenerator<StreamMethods[Method][1]> {
    await this.call('SystemService/Ping', {});
    yield* callStream(this.socketPath, method, message);
  }

  /** Sends images as a tar; see `uploadImages`. Starts the daemon when nobody listens. */
  async *uploadImages(
    method: 'load' | 'import',
    query: BulkQuery,
    body: Readable,
  ): AsyncGenerator<TransferProgressJson, void, undefined> {
    await this.call('SystemService/Ping', {});
    const { uploadImages } = await import('./image-bulk.ts');
    yield* uploadImages(this.socketPath, method, query, body);
  }

  /** Images as a tar. Starts the daemon when nobody listens. */
  async downloadImages(names: readonly string[]): Promise<Readable> {
    await this.call('SystemService/Ping', {});
    const { downloadImages } = await import('./image-bulk.ts');
    return downloadImages(this.socketPath, names);
  }

  /** The call, only when a daemon is up; undefined when none is. */
  async callIfUp<Method extends keyof Methods>(
    method: Method,
    message: Methods[Method][0],
  ): Promise<Methods[Method][1] | undefined> {
    try {
      return await call(this.socketPath, method, message);
    } catch (error) {
      if (nobodyListens(error)) return undefined;
      throw error;
    }
  }

  /** Answers when a daemon answers; starts one when there is none. Throws `ERR_ARCBOX_DAEMON_START`. */
  async start(): Promise<void> {
    const deadline = Date.now() + DAEMON_START_TIMEOUT_MS;
    let deaths = 0;
    // Asking costs little; starting a process to be told `busy` does not.
    let nextSpawnMs = 0;
    let spawnDelayMs = SPAWN_RETRY_MS_MIN;
    for (let delayMs = CONNECT_RETRY_MS_MIN; ; delayMs = Math.min(delayMs * 2, CONNECT_RETRY_MS_MAX)) {
      if ((await this.callIfUp('SystemService/Ping', {}).catch(tolerateBreak)) !== undefined) return;
      if (Date.now() >= nextSpawnMs) {
        const word = await this.#spawn(deadline);
        if (word === 'ready') return;
        if (word === 'died') deaths += 1;
        if (word === 'busy') {
          nextSpawnMs = Date.now() + spawnDelayMs;
          spawnDelayMs = Math.min(spawnDelayMs * 2, SPAWN_RETRY_MS_MAX);
        }
      }
      if (deaths >= DAEMON_START_DEATHS_MAX) {
        throw new ApiError(
          'ERR_ARCBOX_DAEMON_START',
          `the daemon did not start; ${this.#options.paths.daemonLog} may say why (arcbox daemon start --foreground shows it)`,
        );
      }
      if (Date.now() > deadline) {
        throw new ApiError(
          'ERR_ARCBOX_DAEMON_START',
          `a daemon holds the lock but does not answer at ${this.socketPath}; see ${this.#options.paths.daemonLog}`,
        );
      }
      await sleep(delayMs);
    }
  }

  /**
   * Stops containers, machines and then the daemon; answers when its process is gone, with false when none was up.
   * Throws `ERR_ARCBOX_DAEMON_STOP`.
   */
  async stop(): Promise<boolean> {
    const version = await this.callIfUp('SystemService/Version', {});
    if (version === undefined) return false;
    await this.callIfUp('SystemService/Shutdown', {});
    const pid = version.daemonPid ?? 0;
    const deadline = Date.now() + DAEMON_STOP_TIMEOUT_MS;
    // Its process ends after everything else; there is no event for the end of a process that is not ours.
    for (
      let delayMs = CONNECT_RETRY_MS_MIN;
      isAlive(pid);
      delayMs = Math.min(delayMs * 2, CONNECT_RETRY_MS_MAX)
    ) {
      if (Date.now() > deadline) {
        throw new ApiError(
          'ERR_ARCBOX_DAEMON_STOP',
          `the daemon (process ${pid}) did not stop in time; end it by hand`,
        );
      }
      await sleep(delayMs);
    }
    return true;
  }

  /** `died`: without a word; it was killed on its way, or could not even load. */
  async #spawn(deadline: number): Promise<'ready' | 'busy' | 'died'> {
    const { daemonLog } = this.#options.paths;
    await this.#options.prepare?.();
    mkdirSync(dirname(daemonLog), { recursive: true, mode: 0o700 });
    rotateDaemonLog(daemonLog);
    const logFd = openSync(daemonLog, 'a', 0o600);
    const [program, ...args] = this.#options.command;
    const child = spawn(program, args, {
      cwd: '/',
      // A session of its own: neither our terminal's Ctrl-C nor its hang-up is the daemon's.
      detached: true,
      env: { ...process.env, [READY_FD_VARIABLE]: String(READY_FD) },
      stdio: ['ignore', logFd, logFd, 'pipe'],
    });
    closeSync(logFd);
    child.on('error', () => {
      // The pipe ends without a word, which is told below.
    });
    child.unref();
    const pipe = child.stdio[READY_FD] as Readable;
    const word = await firstLine(pipe, deadline);
    if (word === 'ready' || word === 'busy') return word;
    if (word.startsWith('{')) {
      const { code, message } = JSON.parse(word) as { code: string; message: string };
      throw new RemoteError(code, message, 125);
    }
    return 'died';
  }
}

/** Nobody was there to take the call, so it was certainly not carried out. */
function nobodyListens(error: unknown): boolean {
  if (!isUnreachable(error) || !(error instanceof Error)) return false;
  const code = (error.cause as NodeJS.ErrnoException | undefined)?.code;
  return code === 'ENOENT' || code === 'ECONNREFUSED';
}

function tolerateBreak(error: unknown): undefined {
  if (!isUnreachable(error)) throw error;
  return undefined;
}

async function firstLine(pipe: Readable, deadline: number): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let text = '';
  const timer = setTimeout(() => resolve(''), Math.max(0, deadline - Date.now()));
  pipe.setEncoding('utf8');
  pipe.on('data', (part: string) => {
    text += part;
    const end = text.indexOf('\n');
    if (end >= 0) resolve(text.slice(0, end));
  });
  pipe.on('close', () => resolve(''));
  pipe.on('error', () => resolve(''));
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    pipe.destroy();
  }
}

/** A process that has ended and was not waited for yet counts as gone. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
