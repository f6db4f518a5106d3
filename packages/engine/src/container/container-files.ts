/**
 * Files of containers: in and out as tar streams, what was changed, the whole root, the new layer.
 *
 * Of a running container they are looked at through its process, so that what is mounted in it is there as well; the
 * agent's archive process is chrooted into it. A container that does not run has its root mounted for the time of the
 * operation, and cannot be started or removed meanwhile.
 */
import { randomBytes } from 'node:crypto';
import { posix } from 'node:path';
import type { Image, ImageStore } from '@arcbox/image';
import { AgentOpError, Archive_Mode, type OpInput } from '@arcbox/protocol';
import { EngineError } from '../errors.ts';
import { ExecProcess } from '../exec/exec-process.ts';
import { ARCHIVE_MESSAGE_BYTES_MAX, CHANGES_BYTES_MAX } from '../limits.ts';
import type { AgentSession } from '../machine/agent-session.ts';
import { containerPaths } from '../machine/guest-layout.ts';
import type { Machine, UpMachine } from '../machine/machine.ts';
import { MS_RDONLY } from '../machine/mount-flags.ts';
import type { VolumeManager } from '../volume/volume-manager.ts';
import type { Container } from './container.ts';
import type { ContainerManager } from './container-manager.ts';
import { runTolerant } from './launch.ts';
import { withStoppedRoot } from './stopped-root.ts';

export interface FilesEnvironment {
  readonly images: ImageStore;
  readonly volumes: VolumeManager;
  containers(): ContainerManager;
  machine(name: string): Machine;
}

export interface PathStat {
  readonly name: string;
  readonly size: number;
  /** st_mode. */
  readonly mode: number;
  readonly mtimeMs: number;
  /** Of a symbolic link, otherwise empty. */
  readonly linkTarget: string;
}

export interface FileChange {
  readonly kind: 'A' | 'C' | 'D';
  readonly path: string;
}

export interface UnpackOptions {
  /** Refuse to replace a directory by a file and the reverse. */
  readonly noOverwriteDirNonDir?: boolean;
  /** Everything belongs to root, whatever the archive says. */
  readonly numericOwnerRoot?: boolean;
  /** What the top entry becomes; empty: it keeps its name. */
  readonly baseName?: string;
}

type ArchiveOp = Extract<OpInput, { case: 'archive' }>['value'];

interface Root {
  readonly up: UpMachine;
  readonly path: string;
}

/** Places that starting a container makes in its root; empty ones are no changes of its own. */
const START_PATHS = new Set([
  ...['/dev', '/dev/console', '/dev/mqueue', '/dev/pts', '/dev/shm', '/proc', '/sys', '/etc'],
  ...['/etc/hosts', '/etc/hostname', '/etc/resolv.conf', '/sbin/docker-init'],
]);
const START_PARENTS = new Set(['/etc', '/dev', '/sbin']);

export class ContainerFiles {
  readonly #environment: FilesEnvironment;

  constructor(environment: FilesEnvironment) {
    this.#environment = environment;
  }

  /** Throws `ERR_ARCBOX_PATH_NOT_FOUND`. Symbolic links on the way are followed within the container, the last is not. */
  async stat(reference: string, path: string, follow = false): Promise<PathStat> {
    return this.#withRoot(this.#find(reference), true, async ({ up, path: root }) =>
      statIn(up.agent, root, path, follow),
    );
  }

  /**
   * The path as a tar, its top entry called `baseName` or by its own name. The stream ends with an error when the path cannot be read.
   * Throws `ERR_ARCBOX_PATH_NOT_FOUND`.
   */
  pack(reference: string, path: string, baseName = ''): AsyncGenerator<Uint8Array, void, undefined> {
    const container = this.#find(reference);
    return this.#stream(container, true, async ({ up, path: root }) => {
      await statIn(up.agent, root, path);
      return { mode: Archive_Mode.PACK, root, path, baseName };
    });
  }

  /** The whole root as a tar, without what is mounted in it. */
  exportRoot(reference: string): AsyncGenerator<Uint8Array, void, undefined> {
    const container = this.#find(reference);
    const { rootfs } = containerPaths(container.record.id);
    return this.#stream(container, false, async () => ({ mode: Archive_Mode.PACK, root: rootfs, path: '/' }));
  }

  /** What the container changed, as the tar of an image's layer. */
  layer(reference: string): AsyncGenerator<Uint8Array, void, undefined> {
    const container = this.#find(reference);
    const { upper } = containerPaths(container.record.id);
    return this.#stream(container, false, async () => ({
      mode: Archive_Mode.PACK,
      root: upper,
      path: '/',
      layer: true,
    }));
  }

  /**
   * Unpacks a tar into the directory `path`. Throws `ERR_ARCBOX_PATH_NOT_FOUND`, `ERR_ARCBOX_ARCHIVE`, and what reading
   * the source throws; what was unpacked until then stays.
   */
  async unpack(
    reference: string,
    path: string,
    source: AsyncIterable<Uint8Array>,
    options: UnpackOptions = {},
  ): Promise<void> {
    const container = this.#find(reference);
    assertWritable(container, path);
    await this.#withRoot(container, true, async ({ up, path: root }) => {
      const target = await statIn(up.agent, root, path, true);
      if ((target.mode & S_IFMT) !== S_IFDIR)
        throw new EngineError('ERR_ARCBOX_PATH_NOT_FOUND', `${path} in the container is no directory`);
      const archive = await begin(up.agent, { mode: Archive_Mode.UNPACK, root, path, ...options });
      try {
        const messages = gather(archive.process);
        let ended = false;
        const note = (): void => {
          ended = true;
        };
        archive.process.end.then(note, note);
        for await (const piece of source) {
          // It has ended before its input has: it says why.
          if (ended) break;
          await archive.process.write(piece, false);
        }
        await archive.process.write(new Uint8Array(0), true);
        await finish(archive, await messages);
      } finally {
        await archive.release();
      }
    });
  }

  /** In the order of their paths. */
  async changes(reference: string): Promise<FileChange[]> {
    const container = this.#find(reference);
    const paths = containerPaths(container.record.id);
    const found = await this.#withRoot(container, false, async ({ up }) => {
      const image = await this.#environment.images.resolve(container.record.imageId);
      return this.#withLower(container, up, image, async (lower) => {
        const archive = await begin(up.agent, {
          mode: Archive_Mode.CHANGES,
          root: paths.upper,
          path: '/',
          lower,
        });
        try {
          const listed: Buffer[] = [];
          let bytes = 0;
          const messages = await gather(archive.process, (data) => {
            bytes += data.length;
            if (bytes > CHANGES_BYTES_MAX)
              throw new EngineError(
                'ERR_ARCBOX_LIMIT',
                `the container has changed too much to list it; export it instead`,
              );
            listed.push(data);
          });
          await finish(archive, messages);
          return Buffer.concat(listed).toString('utf8');
        } finally {
          await archive.release();
        }
      });
    });
    return withoutStartPaths(parseChanges(found));
  }

  #find(reference: string): Container {
    return this.#environment.containers().find(reference);
  }

  /** `volumes`: also those of a container that does not run; one that runs has them where we look. */
  async #withRoot<T>(container: Container, volumes: boolean, use: (root: Root) => Promise<T>): Promise<T> {
    const running = await this.#running(container);
    if (running !== undefined) return use(running);
    return container.transitions.run(async () => {
      // It may have been started, or removed, while we waited.
      const started = await this.#running(container);
      if (started !== undefined) return use(started);
      const { record } = container;
      this.#find(record.id);
      await container.cleanUp;
      const up = await this.#environment.machine(record.machine).ensure();
      return withStoppedRoot(this.#environment, record, up, volumes, (path) => use({ up, path }));
    });
  }

  /** The layers below a container as one file system, mounted for as long as it is used. */
  async #withLower<T>(
    container: Container,
    up: UpMachine,
    image: Image,
    use: (path: string) => Promise<T>,
  ): Promise<T> {
    const lowers = await Promise.all(image.layers.map((layer) => up.mountLayer(layer)));
    const [only] = lowers;
    if (only !== undefined && lowers.length === 1) return use(only);
    const { disk, lower: target } = containerPaths(container.record.id);
    const empty = `${disk}/empty`;
    return container.listing.run(async () => {
      try {
        // A daemon that died in the middle of this has left its own.
        await runTolerant(up.agent, [{ case: 'unmount', value: { target, detach: true } }]);
        await up.agent.batch([
          { case: 'mkdir', value: { path: empty, mode: 0o700, parents: true } },
          {
            case: 'mount',
            value: {
              source: 'overlay',
              target,
              type: 'overlay',
              flags: MS_RDONLY,
              data: `lowerdir=${[...lowers.toReversed(), empty].join(':')}`,
              mkdirTarget: true,
            },
          },
        ]);
        return await use(target);
      } finally {
        await runTolerant(up.agent, [
          { case: 'unmount', value: { target, detach: true } },
          { case: 'remove', value: { path: target, missingOk: true } },
          { case: 'remove', value: { path: empty, missingOk: true } },
        ]);
      }
    });
  }

  async #running({ record, process }: Container): Promise<Root | undefined> {
    if (process === undefined) return undefined;
    const up = await this.#environment.machine(record.machine).current();
    return up === undefined ? undefined : { up, path: `/proc/${process.pid}/root` };
  }

  /** An archive's bytes, as fast as they are taken; giving it up ends it. */
  async *#stream(
    container: Container,
    volumes: boolean,
    operation: (root: Root) => Promise<Omit<ArchiveOp, 'id'>>,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const pieces = new Handover<Uint8Array>();
    const working = this.#withRoot(container, volumes, async (root) => {
      const archive = await begin(root.up.agent, await operation(root));
      try {
        const messages = await gather(archive.process, (data) => pieces.give(data));
        if (!pieces.abandoned) await finish(archive, messages);
      } finally {
        await archive.release();
      }
    });
    working.then(
      () => pieces.end(),
      (error: unknown) => pieces.fail(error),
    );
    try {
      for (let piece = await pieces.take(); piece !== undefined; piece = await pieces.take()) yield piece;
    } finally {
      pieces.abandon();
      await working.catch(() => {});
    }
  }
}

/** As far as the path says it; what links lead to says so itself. Throws `ERR_ARCBOX_CONTAINER_STATE`. */
function assertWritable({ record, process }: Container, path: string): void {
  const { mounts, host } = record.config;
  const whole = `${posix.resolve('/', path)}/`;
  // What is mounted last is on top.
  const mount = mounts.findLast(({ target }) => whole.startsWith(`${target}/`));
  const what = mount === undefined ? 'root' : `mount ${mount.target}`;
  if (mount?.readOnly ?? (host.readOnlyRoot && process === undefined))
    throw new EngineError(
      'ERR_ARCBOX_CONTAINER_STATE',
      `the ${what} of the container ${record.name} is read-only`,
    );
}

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;

interface RunningArchive {
  readonly process: ExecProcess;
  readonly what: string;
  release(): Promise<void>;
}

async function begin(agent: AgentSession, op: Omit<ArchiveOp, 'id'>): Promise<RunningArchive> {
  const id = `a-${randomBytes(16).toString('hex')}`;
  await agent.batch([{ case: 'archive', value: { ...op, id } }]);
  return {
    process: new ExecProcess(agent, id),
    what: op.path ?? '/',
    async release() {
      if (!agent.ended.aborted) await agent.batch([{ case: 'release', value: { id, missingOk: true } }]);
    },
  };
}

/** Takes all output; answers with the messages. A taker that throws ends it. */
async function gather(
  process: ExecProcess,
  take: (data: Buffer) => Promise<void> | undefined | void = () => {},
): Promise<string> {
  let messages = '';
  for (let batch = await process.read(); batch !== undefined; batch = await process.read()) {
    for (const { channel, data } of batch) {
      if (channel === 1) await take(data);
      else if (messages.length < ARCHIVE_MESSAGE_BYTES_MAX) messages += data.toString('utf8');
    }
  }
  return messages;
}

/** Throws `ERR_ARCBOX_ARCHIVE` when it failed. */
async function finish({ process, what }: RunningArchive, messages: string): Promise<void> {
  const { code, error } = await process.end;
  if (code === 0) return;
  const reason = error || messages.trim() || `it ended with ${code}`;
  throw new EngineError('ERR_ARCBOX_ARCHIVE', `the archive of ${what} failed: ${reason}`);
}

async function statIn(agent: AgentSession, root: string, path: string, follow = false): Promise<PathStat> {
  try {
    const [result] = await agent.batch([{ case: 'stat', value: { path: path || '/', root, follow } }]);
    if (result?.result.case !== 'stat') throw new EngineError('ERR_ARCBOX_ARCHIVE', `${path} has no status`);
    const { mode, size, mtimeNs, linkTarget } = result.result.value;
    return {
      name: posix.basename(posix.resolve('/', path)) || '/',
      size: Number(size),
      mode,
      mtimeMs: Number(mtimeNs / 1_000_000n),
      linkTarget,
    };
  } catch (error) {
    if (!(error instanceof AgentOpError)) throw error;
    const reason = NOT_THERE.has(error.errnoName) ? 'does not exist' : `cannot be looked at: ${error.detail}`;
    throw new EngineError('ERR_ARCBOX_PATH_NOT_FOUND', `${path} in the container ${reason}`, {
      cause: error,
    });
  }
}

const NOT_THERE = new Set(['ENOENT', 'ENOTDIR']);

/** From the agent's records: a kind, a path, a zero byte. Exported for its test. */
export function parseChanges(text: string): FileChange[] {
  return text
    .split('\0')
    .filter((record) => record !== '')
    .map((record) => ({ kind: record[0] as FileChange['kind'], path: record.slice(1) }))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Without what starting the container added, and the directories that changed because of that alone. */
export function withoutStartPaths(changes: readonly FileChange[]): FileChange[] {
  const own = changes.filter(
    ({ kind, path }) => kind !== 'A' || !START_PATHS.has(path) || hasOther(changes, path),
  );
  return own.filter(
    ({ kind, path }) =>
      kind !== 'C' || !START_PARENTS.has(path) || own.some((other) => other.path.startsWith(`${path}/`)),
  );
}

/** Something in it that is not of the start's making. */
function hasOther(changes: readonly FileChange[], path: string): boolean {
  return changes.some((other) => other.path.startsWith(`${path}/`) && !START_PATHS.has(other.path));
}

/** From a giver that waits to a taker that waits, one piece at a time. */
class Handover<T> {
  #piece: { readonly value: T; readonly taken: () => void } | undefined;
  #waiting: PromiseWithResolvers<T | undefined> | undefined;
  #ended: { readonly error?: unknown } | undefined;
  abandoned = false;

  /** Resolves when it was taken. */
  give(value: T): Promise<void> {
    if (this.abandoned) throw new EngineError('ERR_ARCBOX_ARCHIVE', 'nobody takes the archive any more');
    const { promise, resolve } = Promise.withResolvers<void>();
    if (this.#waiting !== undefined) {
      this.#waiting.resolve(value);
      this.#waiting = undefined;
      // The taker has it now; it is done with it when it asks for the next.
    } else this.#piece = { value, taken: resolve };
    if (this.#piece === undefined) resolve();
    return promise;
  }

  async take(): Promise<T | undefined> {
    const piece = this.#piece;
    if (piece !== undefined) {
      this.#piece = undefined;
      piece.taken();
      return piece.value;
    }
    if (this.#ended !== undefined) {
      if ('error' in this.#ended) throw this.#ended.error;
      return undefined;
    }
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  end(): void {
    this.#ended ??= {};
    this.#waiting?.resolve(undefined);
  }

  fail(error: unknown): void {
    this.#ended ??= { error };
    this.#waiting?.reject(error);
  }

  /** The taker has gone. */
  abandon(): void {
    this.abandoned = true;
    this.#piece?.taken();
    this.#piece = undefined;
  }
}
