/** The configuration of an image that is made here: by `import`, `commit`, and later by builds. */

import { hostPlatform, type Platform } from '../manifest.ts';
import { applyChanges } from './changes.ts';

export interface NewConfigOptions {
  /** Configuration of the image that this one goes on from. */
  readonly base: Buffer | undefined;
  /** Of the new layer; absent: only the configuration changes. */
  readonly diffId: string | undefined;
  /** Fields of the configuration's `config` object (`Cmd`, `Env`, `Labels`, …) that replace the base's. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Dockerfile instructions on top of those. */
  readonly changes: readonly string[];
  readonly platform: Platform | undefined;
  readonly author: string;
  readonly comment: string;
  readonly createdBy: string;
  /** RFC 3339. */
  readonly created: string;
}

type Json = Record<string, unknown>;

/** Throws `ERR_ARCBOX_IMAGE_CHANGE`. */
export function newConfig(options: NewConfigOptions): Buffer {
  const base: Json = options.base === undefined ? {} : (JSON.parse(options.base.toString('utf8')) as Json);
  const { architecture, os, variant, rootfs, history, config } = base;
  const platform = options.platform ?? hostPlatform();
  const before = record(rootfs).diff_ids;
  const diffIds = Array.isArray(before) ? [...before] : [];
  if (options.diffId !== undefined) diffIds.push(options.diffId);
  const step: Json = {
    created: options.created,
    ...(options.createdBy === '' ? {} : { created_by: options.createdBy }),
    ...(options.author === '' ? {} : { author: options.author }),
    ...(options.comment === '' ? {} : { comment: options.comment }),
    ...(options.diffId === undefined ? { empty_layer: true } : {}),
  };
  const own = options.base === undefined;
  return Buffer.from(
    JSON.stringify({
      created: options.created,
      ...(options.author === '' ? {} : { author: options.author }),
      architecture: own ? platform.architecture : architecture,
      os: own ? platform.os : os,
      ...(own
        ? platform.variant === ''
          ? {}
          : { variant: platform.variant }
        : variant === undefined
          ? {}
          : { variant }),
      config: applyChanges({ ...record(config), ...options.config }, options.changes),
      rootfs: { type: 'layers', diff_ids: diffIds },
      history: [...(Array.isArray(history) ? history : []), step],
    }),
  );
}

function record(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
}
