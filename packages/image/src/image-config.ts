/** The part of an OCI image configuration (image-spec, config.md) that a container needs, checked. */
import { isDigest } from './digest.ts';
import { ImageError } from './errors.ts';
import { LAYERS_MAX } from './limits.ts';

export interface ImageConfig {
  readonly architecture: string;
  readonly os: string;
  /** RFC 3339; the epoch when the image does not say. */
  readonly created: string;
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  /** `KEY=VALUE`. */
  readonly env: readonly string[];
  /** `/` when the image does not say. */
  readonly workingDir: string;
  /** `user`, `uid`, `user:group`…; empty: root. */
  readonly user: string;
  /** A signal's name or number; empty: SIGTERM. */
  readonly stopSignal: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Paths that want a volume of their own. */
  readonly volumes: readonly string[];
  /** As the image writes them: `80/tcp`, `53/udp`. */
  readonly exposedPorts: readonly string[];
  /** What is 0 the image does not say. */
  readonly healthcheck?: ImageHealthcheck;
  /** Digests of the uncompressed layers, lowest first. */
  readonly diffIds: readonly string[];
}

/** `Healthcheck` of Docker's image format; durations are milliseconds. */
export interface ImageHealthcheck {
  readonly test: readonly string[];
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly startPeriodMs: number;
  readonly startIntervalMs: number;
  readonly retries: number;
}

const NS_PER_MS = 1e6;
const EPOCH = '1970-01-01T00:00:00Z';

/** Checks and reduces an image configuration. `source` names it in the error. */
export function parseImageConfig(json: string, source: string): ImageConfig {
  const fail = (why: string, cause?: unknown): never => {
    throw new ImageError('ERR_ARCBOX_IMAGE_CORRUPT', `the image configuration ${source} ${why}`, { cause });
  };
  const record = (value: unknown, name: string): Record<string, unknown> => {
    if (value === undefined || value === null) return {};
    if (typeof value !== 'object' || Array.isArray(value)) return fail(`has a ${name} that is not an object`);
    return value as Record<string, unknown>;
  };
  const text = (value: unknown, name: string, fallback: string): string => {
    if (value === undefined || value === null || value === '') return fallback;
    return typeof value === 'string' ? value : fail(`has a ${name} that is not a string`);
  };
  const list = (value: unknown, name: string): readonly string[] => {
    if (value === undefined || value === null) return [];
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
    return fail(`has a ${name} that is not a list of strings`);
  };

  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch (error) {
    fail('is not JSON', error);
  }
  const top = record(parsed, 'top level');
  const config = record(top.config, 'config');
  const labels = record(config.Labels, 'Labels');
  for (const [key, value] of Object.entries(labels)) {
    if (typeof value !== 'string') fail(`has a label ${JSON.stringify(key)} that is not a string`);
  }
  const number = (value: unknown, name: string): number => {
    if (value === undefined || value === null) return 0;
    return typeof value === 'number' && Number.isFinite(value) && value >= 0
      ? value
      : fail(`has a ${name} that is not a number`);
  };
  const health = record(config.Healthcheck, 'Healthcheck');
  const healthMs = (key: string): number => Math.round(number(health[key], `Healthcheck.${key}`) / NS_PER_MS);
  const diffIds = list(record(top.rootfs, 'rootfs').diff_ids, 'rootfs.diff_ids');
  if (!diffIds.every(isDigest)) fail('names a layer by something that is no sha256 digest');
  if (diffIds.length > LAYERS_MAX) fail(`has ${diffIds.length} layers; the limit is ${LAYERS_MAX}`);
  return {
    architecture: text(top.architecture, 'architecture', ''),
    os: text(top.os, 'os', 'linux'),
    created: text(top.created, 'created', EPOCH),
    entrypoint: list(config.Entrypoint, 'Entrypoint'),
    cmd: list(config.Cmd, 'Cmd'),
    env: list(config.Env, 'Env'),
    workingDir: text(config.WorkingDir, 'WorkingDir', '/'),
    user: text(config.User, 'User', ''),
    stopSignal: text(config.StopSignal, 'StopSignal', ''),
    labels: labels as Record<string, string>,
    volumes: Object.keys(record(config.Volumes, 'Volumes')),
    exposedPorts: Object.keys(record(config.ExposedPorts, 'ExposedPorts')),
    ...(config.Healthcheck === undefined || config.Healthcheck === null
      ? {}
      : {
          healthcheck: {
            test: list(health.Test, 'Healthcheck.Test'),
            intervalMs: healthMs('Interval'),
            timeoutMs: healthMs('Timeout'),
            startPeriodMs: healthMs('StartPeriod'),
            startIntervalMs: healthMs('StartInterval'),
            retries: number(health.Retries, 'Healthcheck.Retries'),
          },
        }),
    diffIds,
  };
}
