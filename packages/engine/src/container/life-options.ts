/** What becomes of a container over time: whether it is started again, how its health is found out, how much log is kept. */
import type { Image } from '@arcbox/image';
import { EngineError } from '../errors.ts';
import {
  HEALTH_INTERVAL_MS,
  HEALTH_MS_MIN,
  HEALTH_RETRIES,
  HEALTH_TIMEOUT_MS,
  LOG_FILES_MAX,
  LOG_SEGMENT_BYTES,
  LOG_SEGMENT_BYTES_MIN,
  LOG_SEGMENTS,
} from '../limits.ts';
import { formatSize } from '../size.ts';

export type RestartName = 'no' | 'always' | 'on-failure' | 'unless-stopped';

export interface RestartPolicy {
  readonly name: RestartName;
  /** For `on-failure`: how often in a row at most; 0: without end. */
  readonly maxRetries: number;
}

export interface HealthCheck {
  /** `['CMD', program, …]` or `['CMD-SHELL', script]`. */
  readonly test: readonly string[];
  /** From the end of one check to the next. */
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** So many failures in a row make it unhealthy. */
  readonly retries: number;
  /** Failures do not count for so long after the start, */
  readonly startPeriodMs: number;
  /** and checks follow each other faster; 0: as afterwards. */
  readonly startIntervalMs: number;
}

/** A log is kept in so many files of about that size. */
export interface LogLimits {
  readonly maxSizeBytes: number;
  readonly maxFiles: number;
}

export interface LifeOptions {
  readonly restart: RestartPolicy;
  /** Absent: its health is nobody's concern. */
  readonly health?: HealthCheck;
  readonly log: LogLimits;
}

/** What a user asks for; all of it may be left out. */
export interface LifeRequest {
  readonly restart?: RestartPolicy;
  /** What is 0, or an empty list, is the image's; `test: ['NONE']` switches the image's check off. */
  readonly health?: HealthCheck;
  readonly log?: Partial<LogLimits>;
}

export const DEFAULT_LIFE: LifeOptions = {
  restart: { name: 'no', maxRetries: 0 },
  log: { maxSizeBytes: LOG_SEGMENT_BYTES, maxFiles: LOG_SEGMENTS },
};

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT` naming what is wrong. */
export function lifeOptions(request: LifeRequest, image: Image, autoRemove: boolean): LifeOptions {
  const restart = request.restart ?? DEFAULT_LIFE.restart;
  checkRestart(restart, autoRemove);
  const health = healthCheck(request.health, image.config.healthcheck);
  const log = { ...DEFAULT_LIFE.log, ...request.log };
  if (log.maxSizeBytes < LOG_SEGMENT_BYTES_MIN)
    throw invalid(`max-size is below the least, ${formatSize(LOG_SEGMENT_BYTES_MIN)}`);
  if (!(log.maxFiles >= 1 && log.maxFiles <= LOG_FILES_MAX))
    throw invalid(`max-file must be from 1 to ${LOG_FILES_MAX}`);
  return { restart, ...(health === undefined ? {} : { health }), log };
}

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
export function checkRestart(restart: RestartPolicy, autoRemove: boolean): void {
  if (autoRemove && restart.name !== 'no') {
    throw invalid('a container that is removed when it exits cannot be restarted; leave one of the two out');
  }
  if (restart.maxRetries > 0 && restart.name !== 'on-failure') {
    throw invalid(`a number of retries belongs to on-failure, not to ${restart.name}`);
  }
}

/** `no`, `always`, `unless-stopped`, `on-failure`, `on-failure:5`. Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
export function parseRestartPolicy(text: string): RestartPolicy {
  const match = /^(?:(no|always|unless-stopped)|on-failure(?::(\d{1,6}))?)$/.exec(text);
  if (match === null) {
    throw invalid(
      `${JSON.stringify(text)} is no restart policy; there are no, always, unless-stopped and on-failure[:n]`,
    );
  }
  const name = (match[1] ?? 'on-failure') as RestartName;
  return { name, maxRetries: Number(match[2] ?? 0) };
}

function healthCheck(
  asked: HealthCheck | undefined,
  image: Partial<HealthCheck> | undefined,
): HealthCheck | undefined {
  const test = asked !== undefined && asked.test.length > 0 ? asked.test : (image?.test ?? []);
  const [kind] = test;
  if (kind === undefined || kind === 'NONE') return undefined;
  if (
    (kind !== 'CMD' && kind !== 'CMD-SHELL') ||
    test.length < 2 ||
    (kind === 'CMD-SHELL' && test.length > 2)
  ) {
    throw invalid(
      `${JSON.stringify(test)} is no health check; it is CMD and a command, CMD-SHELL and a script, or NONE`,
    );
  }
  const duration = (name: keyof HealthCheck & `${string}Ms`, fallback: number): number => {
    const value = asked?.[name] || image?.[name] || fallback;
    if (value !== 0 && value < HEALTH_MS_MIN)
      throw invalid(`a health check's ${name} is ${value}; the least is ${HEALTH_MS_MIN}`);
    return value;
  };
  return {
    test,
    intervalMs: duration('intervalMs', HEALTH_INTERVAL_MS),
    timeoutMs: duration('timeoutMs', HEALTH_TIMEOUT_MS),
    retries: asked?.retries || image?.retries || HEALTH_RETRIES,
    startPeriodMs: duration('startPeriodMs', 0),
    startIntervalMs: duration('startIntervalMs', 0),
  };
}

function invalid(message: string): EngineError {
  return new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', message);
}
