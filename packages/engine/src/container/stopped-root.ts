/**
 * The root of a container that does not run, mounted for as long as something looks into it: its layers, what it wrote
 * and, where they are wanted, its volumes.
 *
 * Mounting follows symbolic links, and we do it outside of the container's root. So a volume's mount point is first
 * resolved within the root, link by link: nobody changes that meanwhile, since the container does not run and its
 * transition is ours. What is in a volume others may change, and so nothing is mounted below one.
 */
import { posix } from 'node:path';
import type { ImageStore } from '@arcbox/image';
import { AgentOpError, type OpInput } from '@arcbox/protocol';
import { EngineError } from '../errors.ts';
import type { AgentSession } from '../machine/agent-session.ts';
import { containerPaths } from '../machine/guest-layout.ts';
import type { UpMachine } from '../machine/machine.ts';
import { MS_BIND, MS_RDONLY, MS_REMOUNT } from '../machine/mount-flags.ts';
import type { VolumeManager } from '../volume/volume-manager.ts';
import type { ContainerRecord } from './container-record.ts';
import { mountOps, runTolerant } from './launch.ts';

export interface StoppedRootEnvironment {
  readonly images: ImageStore;
  readonly volumes: VolumeManager;
}

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;
/** Links on the way to a mount point; as the kernel. */
const LINKS_MAX = 40;

/** Runs `use` with the path of the mounted root. The container must not run, and its transition must be the caller's. */
export async function withStoppedRoot<T>(
  { images, volumes }: StoppedRootEnvironment,
  record: ContainerRecord,
  up: UpMachine,
  withVolumes: boolean,
  use: (root: string) => Promise<T>,
): Promise<T> {
  const image = await images.resolve(record.imageId);
  const lowers = await Promise.all(image.layers.map((layer) => up.mountLayer(layer)));
  const { rootfs, bundle } = containerPaths(record.id);
  const mounted: string[] = [];
  let attached = false;
  try {
    await up.agent.batch(mountOps(record, lowers));
    if (withVolumes && record.config.mounts.some(({ type }) => type === 'volume')) {
      attached = true;
      const mounts = await volumes.attach(record, up);
      for (const mount of mounts) {
        const target = await mountPoint(up.agent, rootfs, mount, mounted);
        if (target === undefined) continue;
        mounted.push(target);
        await up.agent.batch(bindOps(mount, rootfs + target));
      }
    }
    return await use(rootfs);
  } finally {
    try {
      await runTolerant(up.agent, [
        ...mounted
          .toReversed()
          .map((target): OpInput => ({ case: 'unmount', value: { target: rootfs + target, detach: true } })),
        { case: 'unmount', value: { target: rootfs, detach: true } },
        { case: 'remove', value: { path: bundle, recursive: true, missingOk: true } },
      ]);
    } finally {
      if (attached) await volumes.release(record, up);
    }
  }
}

/** An OCI mount, as `ociMounts` makes them. */
type OciMount = Record<string, unknown>;

function bindOps(mount: OciMount, target: string): OpInput[] {
  const bind = { source: String(mount.source), target, type: '' };
  const readOnly = Array.isArray(mount.options) && mount.options.includes('ro');
  return [
    { case: 'mount', value: { ...bind, flags: MS_BIND, mkdirTarget: true } },
    ...(readOnly
      ? [{ case: 'mount' as const, value: { ...bind, flags: MS_BIND | MS_REMOUNT | MS_RDONLY } }]
      : []),
  ];
}

/** Undefined when this is not one to mount here: no volume, below another one, or in the way of a file. */
async function mountPoint(
  agent: AgentSession,
  rootfs: string,
  { type, destination }: OciMount,
  mounted: readonly string[],
): Promise<string | undefined> {
  if (type !== 'bind') return undefined;
  const target = await resolveWithin(String(destination), (path) => lstat(agent, rootfs, path));
  const isBelow = mounted.some((above) => target === above || target?.startsWith(`${above}/`) === true);
  return isBelow ? undefined : target;
}

type Looked = { readonly mode: number; readonly linkTarget: string } | undefined;

/**
 * The path without links, all of it below `/`; what does not exist is as it is written. Undefined when there is something
 * on it that is no directory. Exported for its test.
 */
export async function resolveWithin(
  path: string,
  look: (path: string) => Promise<Looked>,
): Promise<string | undefined> {
  const rest = segments(path);
  let done = '/';
  let links = 0;
  let exists = true;
  for (let segment = rest.shift(); segment !== undefined; segment = rest.shift()) {
    if (segment === '..') {
      // Whatever follows would not have been looked at.
      if (!exists) return undefined;
      done = posix.dirname(done);
      continue;
    }
    const next = posix.join(done, segment);
    const found: Looked = exists ? await look(next) : undefined;
    exists = found !== undefined;
    const kind = (found?.mode ?? S_IFDIR) & S_IFMT;
    if (kind === S_IFLNK) {
      links += 1;
      if (links > LINKS_MAX) return undefined;
      const to = found?.linkTarget ?? '';
      if (to.startsWith('/')) done = '/';
      rest.unshift(...segments(to));
    } else if (kind === S_IFDIR) done = next;
    else return undefined;
  }
  return done === '/' ? undefined : done;
}

function segments(path: string): string[] {
  return path.split('/').filter((segment) => segment !== '' && segment !== '.');
}

async function lstat(agent: AgentSession, root: string, path: string): Promise<Looked> {
  try {
    const [answer] = await agent.batch([{ case: 'stat', value: { root, path, follow: false } }]);
    if (answer?.result.case === 'stat') return answer.result.value;
    throw new EngineError('ERR_ARCBOX_ARCHIVE', `${path} has no status`);
  } catch (error) {
    if (error instanceof AgentOpError && error.errnoName === 'ENOENT') return undefined;
    throw error;
  }
}
