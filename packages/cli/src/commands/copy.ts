/** `arcbox cp`, `export`, `diff` and `commit`: files out of containers and into them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, lstatSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { exportContainer, getArchive, type PathStat, putArchive, statPath } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { type Kind, planCopy, splitContainerPath, stripEnd } from '../copy-plan.ts';
import { CliError } from '../errors.ts';
import { print } from '../output.ts';

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;
const LINKS_MAX = 16;

export interface CopyOptions {
  /** Keep owners. */
  readonly archive?: boolean;
  readonly followLink?: boolean;
}

export async function copy(
  context: Context,
  source: string,
  target: string,
  options: CopyOptions,
): Promise<number> {
  const from = splitContainerPath(source);
  const to = splitContainerPath(target);
  if (from !== undefined && to !== undefined)
    throw new CliError('copying between containers is not supported; copy to the host first', 1);
  await context.daemon.call('SystemService/Ping', {});
  if (from !== undefined) await copyOut(context, from, target, options);
  else if (to !== undefined) await copyIn(context, source, to, options);
  else throw new CliError('one of the paths has to be in a container: NAME:PATH', 1);
  return 0;
}

export async function exportRoot(
  context: Context,
  id: string,
  options: { output?: string },
): Promise<number> {
  await context.daemon.call('SystemService/Ping', {});
  const { output } = options;
  if (output === undefined && process.stdout.isTTY)
    throw new CliError('a terminal is no place for a tar; use -o FILE, or redirect it', 1);
  const tar = exportContainer(context.daemon.socketPath, id);
  if (output === undefined) await pipeline(tar, process.stdout, { end: false });
  else await pipeline(tar, createWriteStream(output));
  return 0;
}

export async function diff(context: Context, id: string): Promise<number> {
  const { changes = [] } = await context.daemon.call('ContainerService/Changes', { id });
  for (const { kind = '', path = '' } of changes) print(`${kind} ${path}`);
  return 0;
}

export interface CommitOptions {
  readonly author?: string;
  readonly message?: string;
  readonly change?: readonly string[];
  /** `--no-pause`, `--pause=false`. */
  readonly pause?: boolean | string;
}

export async function commit(
  context: Context,
  id: string,
  name: string | undefined,
  options: CommitOptions,
): Promise<number> {
  const { imageId } = await context.daemon.call('ContainerService/Commit', {
    id,
    name: name ?? '',
    author: options.author ?? '',
    comment: options.message ?? '',
    changes: [...(options.change ?? [])],
    pause: options.pause !== false && options.pause !== 'false',
  });
  print(imageId ?? '');
  return 0;
}

async function copyOut(
  { daemon }: Context,
  { container, path }: { container: string; path: string },
  target: string,
  options: CopyOptions,
): Promise<void> {
  const { socketPath } = daemon;
  const source = await resolveLinks(socketPath, container, path, options.followLink === true);
  if (target === '-') {
    if (process.stdout.isTTY) throw new CliError('a terminal is no place for a tar; redirect it', 1);
    await pipeline(getArchive(socketPath, { container, path: source.path }), process.stdout, { end: false });
    return;
  }
  const plan = planCopy(
    { path: source.path, kind: kindOf(source.stat) },
    { path: target, kind: hostKind(target), parent: hostKind(dirname(resolve(stripEnd(target)))) },
  );
  const tar = getArchive(socketPath, {
    container,
    path: plan.source,
    // A link that was followed keeps the name by which it was asked for.
    ...(plan.name === undefined ? {} : { name: renamed(plan.name, plan.source, path) }),
  });
  // As tar does it: nothing outside of the directory is written, whatever the archive says.
  const child = spawn(
    'tar',
    [
      '-x',
      '-f',
      '-',
      '-p',
      options.archive === true ? '--same-owner' : '--no-same-owner',
      '-C',
      plan.directory,
    ],
    { stdio: ['pipe', 'ignore', 'pipe'] },
  );
  await withTar(child, pipeline(tar, child.stdin));
}

async function copyIn(
  { daemon }: Context,
  source: string,
  { container, path }: { container: string; path: string },
  options: CopyOptions,
): Promise<void> {
  const { socketPath } = daemon;
  const put = { keepOwners: options.archive === true, noOverwriteDirNonDir: true };
  if (source === '-') {
    const directory = stripEnd(path);
    await putArchive(socketPath, { container, path: directory }, process.stdin, { ...put, keepOwners: true });
    return;
  }
  const kind = hostKind(source, options.followLink === true);
  const target = await resolveLinks(socketPath, container, path, true);
  const parent = await statPath(socketPath, container, dirname(stripEnd(target.path)), { follow: true });
  const plan = planCopy(
    { path: source, kind },
    { path: target.path, kind: kindOf(target.stat), parent: kindOf(parent) },
  );
  const followed = options.followLink === true ? realpathSync(stripEnd(plan.source)) : plan.source;
  const contents = plan.source.endsWith('/.');
  const absolute = resolve(stripEnd(followed));
  const [directory, entry] = contents ? [absolute, '.'] : [dirname(absolute), basename(absolute)];
  const child = spawn('tar', ['-c', '-f', '-', '-C', directory, '--', entry || '.'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const sent = putArchive(
    socketPath,
    { container, path: plan.directory, ...(plan.name === undefined ? {} : { name: plan.name }) },
    child.stdout,
    put,
  );
  await withTar(child, sent);
}

/** Where the path leads when its last part is a link that is to be followed, within the container. */
async function resolveLinks(
  socketPath: string,
  container: string,
  path: string,
  follow: boolean,
): Promise<{ path: string; stat: PathStat | undefined }> {
  let at = path;
  for (let links = 0; links < LINKS_MAX; links += 1) {
    // A slash at its end is a wish for what is behind the link.
    const through = follow || /\/\.?$/.test(at);
    const stat = await statPath(socketPath, container, stripEnd(at));
    if (stat === undefined || !through || (stat.mode & S_IFMT) !== S_IFLNK) return { path: at, stat };
    const ending = at.slice(stripEnd(at).length);
    at = resolve(dirname(stripEnd(at)), stat.linkTarget) + (stripEnd(at) === '/' ? '' : ending);
  }
  throw new CliError(`${path} in the container leads through too many links`, 1);
}

/** Runs the host's tar beside what feeds or takes it; its own words when it fails. */
async function withTar(child: ChildProcess, work: Promise<void>): Promise<void> {
  const said: string[] = [];
  child.stderr?.setEncoding('utf8').on('data', (text: string) => said.push(text));
  const ended = once(child, 'close') as Promise<[number | null]>;
  ended.catch(() => {});
  try {
    await work;
  } catch (error) {
    child.kill();
    await ended.catch(() => {});
    // A broken pipe is tar's end, and tar says why.
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  }
  const [code] = await ended;
  if (code !== 0) throw new CliError(`tar failed: ${said.join('').trim() || `it exited with ${code}`}`, 1);
}

function renamed(name: string, source: string, asked: string): string {
  return name === basename(source) ? basename(stripEnd(asked)) : name;
}

function kindOf(stat: PathStat | undefined): Kind {
  if (stat === undefined) return 'none';
  return (stat.mode & S_IFMT) === S_IFDIR ? 'directory' : 'file';
}

function hostKind(path: string, follow = true): Kind {
  try {
    const isLinkWish = follow || path.endsWith('/') || path.endsWith('/.');
    const stat = isLinkWish ? statSync(path) : lstatSync(path);
    return stat.isDirectory() ? 'directory' : 'file';
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return 'none';
    throw error;
  }
}
