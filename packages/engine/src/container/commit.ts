/** A new image of a container: its image, and what the container changed on top of it. */
import type { Image, ImageStore } from '@arcbox/image';
import { faultPoint } from '@arcbox/sys';
import type { Machine } from '../machine/machine.ts';
import type { ContainerFiles } from './container-files.ts';
import type { ContainerManager } from './container-manager.ts';
import type { ContainerConfig } from './container-record.ts';
import { freeze } from './running-cgroup.ts';

export interface CommitOptions {
  /** What it is to be called. */
  readonly names?: readonly string[];
  readonly author?: string;
  readonly comment?: string;
  /** Dockerfile instructions on top of the container's configuration. */
  readonly changes?: readonly string[];
  /** A running container stands still meanwhile. */
  readonly pause?: boolean;
}

export interface CommitEnvironment {
  readonly images: ImageStore;
  readonly containers: ContainerManager;
  readonly files: ContainerFiles;
  machine(name: string): Machine;
}

/** Throws what pausing, packing and making an image throw; then there is no new image. */
export async function commitContainer(
  { images, containers, files, machine }: CommitEnvironment,
  reference: string,
  options: CommitOptions,
): Promise<Image> {
  const container = containers.find(reference);
  const { record } = container;
  // It is not `paused`: should we die meanwhile, the next daemon lets it go on.
  const up =
    options.pause === true && record.state === 'running'
      ? await machine(record.machine).current()
      : undefined;
  if (up !== undefined) await freeze(up.agent, record.id, true);
  try {
    faultPoint('container.commit');
    return await images.createFromLayer({
      base: record.imageId,
      layer: files.layer(record.id),
      config: imageConfig(record.config),
      changes: options.changes ?? [],
      author: options.author ?? '',
      comment: options.comment ?? '',
      createdBy: record.config.argv.join(' '),
      names: options.names ?? [],
    });
  } finally {
    // It may have been killed, or paused by somebody, meanwhile.
    if (up !== undefined && record.state === 'running') await freeze(up.agent, record.id, false);
  }
}

/** What of a container's configuration is its image's. Exported for its test. */
export function imageConfig(config: ContainerConfig): Record<string, unknown> {
  const entrypoint = config.argv.slice(0, config.entrypointLength);
  return {
    Env: config.env,
    Cmd: config.argv.slice(config.entrypointLength),
    // Also none: the image's own may have been taken away.
    Entrypoint: entrypoint.length === 0 ? null : entrypoint,
    WorkingDir: config.workingDir,
    User: config.user,
    Labels: config.labels,
  };
}
