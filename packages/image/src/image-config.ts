/** The part of an OCI image configuration (image-spec, config.md) that a container needs, checked. */
import { ImageError } from './errors.ts';

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
  /** Digests of the uncompressed layers, lowest first. */
  readonly diffIds: readonly string[];
}

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
    diffIds: list(record(top.rootfs, 'rootfs').diff_ids, 'rootfs.diff_ids'),
  };
}
