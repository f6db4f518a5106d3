/** What is mounted into a container besides its root: checked, with the volumes that its image wants. */
import { posix } from 'node:path';
import type { Image } from '@arcbox/image';
import { EngineError } from '../errors.ts';
import { MOUNTS_MAX, VOLUME_NAME_LENGTH_MAX } from '../limits.ts';

export interface VolumeMount {
  readonly type: 'volume';
  /** The volume's. */
  readonly name: string;
  readonly target: string;
  readonly readOnly: boolean;
  /** While the volume is empty, what the image has at `target` is copied into it. */
  readonly copy: boolean;
  /** Made for this container alone, without having been given a name. */
  readonly anonymous: boolean;
}

export interface TmpfsMount {
  readonly type: 'tmpfs';
  readonly target: string;
  readonly readOnly: boolean;
  /** Absent: half of the machine's memory, as Linux has it. */
  readonly sizeBytes?: number;
  readonly mode?: number;
}

export type ContainerMount = VolumeMount | TmpfsMount;

/** As a user asks for it. */
export interface MountRequest {
  readonly type: 'volume' | 'tmpfs' | 'bind';
  /** A volume's name (empty: one is made up), or a path of the host. */
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
  readonly noCopy: boolean;
  /** 0: not said. */
  readonly tmpfsBytes: number;
  readonly tmpfsMode: number;
}

/**
 * What was asked for comes before what is `borrowed` of other containers, and that before the image's own.
 *
 * Throws `ERR_ARCBOX_INVALID_ARGUMENT` and `ERR_ARCBOX_UNSUPPORTED`; `anonymousName` makes names for those without.
 */
export function containerMounts(
  requests: readonly MountRequest[],
  borrowed: readonly VolumeMount[],
  image: Image,
  anonymousName: () => string,
): ContainerMount[] {
  const mounts = requests.map((request) => containerMount(request, anonymousName));
  const asked = new Set(mounts.map(({ target }) => target));
  // As docker: of two containers that have something at the same place, the last one's counts.
  const byTarget = new Map(borrowed.map((mount) => [mount.target, mount]));
  mounts.push(...[...byTarget.values()].filter(({ target }) => !asked.has(target)));
  for (const path of image.config.volumes) {
    const target = checkTarget(path);
    if (mounts.some((mount) => mount.target === target)) continue;
    const name = anonymousName();
    mounts.push({ type: 'volume', name, target, readOnly: false, copy: true, anonymous: true });
  }
  const targets = mounts.map(({ target }) => target);
  const twice = targets.find((target, index) => targets.indexOf(target) !== index);
  if (twice !== undefined) throw invalid(`duplicate mount point: ${twice}`);
  if (mounts.length > MOUNTS_MAX) throw invalid(`a container has at most ${MOUNTS_MAX} mounts`);
  // What is above is mounted first.
  return mounts.sort((a, b) => a.target.split('/').length - b.target.split('/').length);
}

/** The volumes of another container, for `--volumes-from CONTAINER[:ro|:rw]`. Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
export function borrowedVolumes(
  text: string,
  mountsOf: (container: string) => readonly ContainerMount[],
): VolumeMount[] {
  const [container = '', mode = 'rw', ...more] = text.split(':');
  if (container === '' || !['ro', 'rw'].includes(mode) || more.length > 0)
    throw invalid(`${JSON.stringify(text)} is not of the form CONTAINER[:ro]`);
  return mountsOf(container)
    .filter((mount) => mount.type === 'volume')
    .map((mount) => ({ ...mount, readOnly: mount.readOnly || mode === 'ro' }));
}

function containerMount(request: MountRequest, anonymousName: () => string): ContainerMount {
  const { type, source, readOnly, noCopy, tmpfsBytes, tmpfsMode } = request;
  const target = checkTarget(request.target);
  if (type === 'bind' || source.startsWith('/')) {
    throw new EngineError(
      'ERR_ARCBOX_UNSUPPORTED',
      `${source} of the host cannot be mounted: sharing files of the host with a machine is not there yet; use a volume and copy the files into it`,
    );
  }
  if (type === 'tmpfs') {
    if (source !== '') throw invalid('a tmpfs has no source');
    return {
      type,
      target,
      readOnly,
      ...(tmpfsBytes === 0 ? {} : { sizeBytes: tmpfsBytes }),
      ...(tmpfsMode === 0 ? {} : { mode: tmpfsMode }),
    };
  }
  if (tmpfsBytes !== 0 || tmpfsMode !== 0)
    throw invalid('a size and a mode belong to a tmpfs, not to a volume');
  if (source === '') {
    return { type, name: anonymousName(), target, readOnly, copy: !noCopy, anonymous: true };
  }
  checkVolumeName(source);
  return { type, name: source, target, readOnly, copy: !noCopy, anonymous: false };
}

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT` unless it is a name that docker takes, too. It is a directory's name. */
export function checkVolumeName(name: string): void {
  if (/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/.test(name) && name.length <= VOLUME_NAME_LENGTH_MAX) return;
  throw invalid(
    `invalid volume name ${JSON.stringify(name)}: it has 2 to ${VOLUME_NAME_LENGTH_MAX} letters, digits, _ . or -, and begins with a letter or digit`,
  );
}

function checkTarget(path: string): string {
  const target = posix.normalize(path).replace(/(.)\/$/, '$1');
  if (!path.startsWith('/') || path.includes('\0'))
    throw invalid(`the mount point ${JSON.stringify(path)} is not an absolute path`);
  if (target === '/') throw invalid("nothing can be mounted over the container's root");
  return target;
}

/** For the OCI runtime configuration. `dataOf` says where a volume's data is in the machine. */
export function ociMounts(
  mounts: readonly ContainerMount[],
  dataOf: (mount: VolumeMount) => string,
): Record<string, unknown>[] {
  return mounts.map((mount) => {
    const access = mount.readOnly ? 'ro' : 'rw';
    if (mount.type === 'volume') {
      const options = ['rbind', access, 'rprivate'];
      return { destination: mount.target, type: 'bind', source: dataOf(mount), options };
    }
    const options = ['nosuid', 'nodev', 'noexec', access];
    if (mount.sizeBytes !== undefined) options.push(`size=${mount.sizeBytes}`);
    if (mount.mode !== undefined) options.push(`mode=${mount.mode.toString(8)}`);
    return { destination: mount.target, type: 'tmpfs', source: 'tmpfs', options };
  });
}

function invalid(message: string): EngineError {
  return new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', message);
}
