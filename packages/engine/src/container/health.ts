/**
 * Whether running containers are healthy, by docker's rules: a command is run in the container again and again; one
 * success makes it healthy, `retries` failures in a row make it unhealthy, and failures during the start period do not
 * count as long as it has not been healthy yet.
 *
 * The verdict is not stored: a new daemon asks at once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../errors.ts';
import type { ExecManager } from '../exec/exec-manager.ts';
import type { ExecProcess } from '../exec/exec-process.ts';
import { HEALTH_LOG_ENTRIES, HEALTH_OUTPUT_BYTES } from '../limits.ts';
import type { Container } from './container.ts';
import type { HealthCheck } from './life-options.ts';

export type HealthStatus = 'starting' | 'healthy' | 'unhealthy';

export interface HealthProbe {
  /** Milliseconds since 1970. */
  readonly startMs: number;
  readonly endMs: number;
  /** -1: it could not be run, or took too long. */
  readonly exitCode: number;
  /** Its beginning. */
  readonly output: string;
}

export interface Health {
  status: HealthStatus;
  failingStreak: number;
  /** The last few, oldest first. */
  log: readonly HealthProbe[];
}

const SIGKILL = 9;

export class HealthMonitor {
  readonly #execs: ExecManager;

  constructor(execs: ExecManager) {
    this.#execs = execs;
  }

  /** Looks after the container until its process has ended. `adopted`: it may have been running for long. */
  async watch(container: Container, adopted: boolean): Promise<void> {
    const { process, record } = container;
    const check = record.config.life.health;
    if (process === undefined || check === undefined) return;
    const health: Health = { status: 'starting', failingStreak: 0, log: [] };
    container.health = health;
    const ended = new AbortController();
    const end = (): void => ended.abort();
    process.ended.then(end, end);
    const startedMs = record.startedMs ?? Date.now();
    for (let delayMs = adopted ? 0 : nextDelay(check, health, startedMs); ; ) {
      await sleep(delayMs, undefined, { signal: ended.signal, ref: false }).catch(() => {});
      if (ended.signal.aborted) return;
      if (record.state === 'running') {
        const probe = await this.#probe(container, check, ended.signal);
        if (ended.signal.aborted) return;
        const before = health.status;
        applyProbe(health, check, probe, startedMs);
        if (health.status !== before) container.emit(`health_status: ${health.status}`);
      }
      delayMs = nextDelay(check, health, startedMs);
    }
  }

  async #probe(container: Container, check: HealthCheck, ended: AbortSignal): Promise<HealthProbe> {
    const [kind, ...rest] = check.test;
    const argv = kind === 'CMD-SHELL' ? ['/bin/sh', '-c', ...rest] : rest;
    const startMs = Date.now();
    const done = (exitCode: number, output: string): HealthProbe => ({
      startMs,
      endMs: Date.now(),
      exitCode,
      output,
    });
    const limit = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    try {
      const { id } = this.#execs.create(container.record.id, { argv });
      const process = await this.#execs.start(id);
      timer = setTimeout(() => {
        limit.abort();
        // It may end by itself at this very moment.
        process.signal(SIGKILL).catch(() => {});
      }, check.timeoutMs);
      const [output, exitCode] = await Promise.all([collect(process), process.ended]);
      if (limit.signal.aborted && !ended.aborted)
        return done(-1, `Health check exceeded timeout (${check.timeoutMs / 1000}s)`);
      return done(exitCode, output);
    } catch (error) {
      return done(-1, messageOf(error));
    } finally {
      clearTimeout(timer);
    }
  }
}

/** What a probe's outcome makes of the verdict. */
export function applyProbe(health: Health, check: HealthCheck, probe: HealthProbe, startedMs: number): void {
  health.log = [...health.log, probe].slice(-HEALTH_LOG_ENTRIES);
  if (probe.exitCode === 0) {
    health.failingStreak = 0;
    health.status = 'healthy';
    return;
  }
  if (health.status === 'starting' && probe.startMs - startedMs < check.startPeriodMs) return;
  health.failingStreak += 1;
  if (health.failingStreak >= check.retries) health.status = 'unhealthy';
}

/** From the end of one probe to the beginning of the next. */
export function nextDelay(check: HealthCheck, health: Health, startedMs: number): number {
  const isStarting = health.status === 'starting' && Date.now() - startedMs < check.startPeriodMs;
  return isStarting && check.startIntervalMs > 0 ? check.startIntervalMs : check.intervalMs;
}

async function collect(process: ExecProcess): Promise<string> {
  const parts: Buffer[] = [];
  let left = HEALTH_OUTPUT_BYTES;
  for (let outputs = await process.read(); outputs !== undefined; outputs = await process.read()) {
    for (const { data } of outputs) {
      parts.push(data.subarray(0, left));
      left -= Math.min(left, data.length);
    }
  }
  return Buffer.concat(parts, HEALTH_OUTPUT_BYTES - left).toString('utf8');
}
