/**
 * Docker's rules for `cp`: what a source becomes at a destination that is a directory, something else, or not there, and
 * what a slash or `/.` at an end means. The same in both directions.
 */
import { posix } from 'node:path';
import { CliError } from './errors.ts';

/** What there is at a path: nothing, a directory, or anything else. */
export type Kind = 'none' | 'directory' | 'file';

export interface CopyPlan {
  /** The source; with `/.` at its end only what is in it. */
  readonly source: string;
  /** The directory to unpack into. */
  readonly directory: string;
  /** What the top entry becomes; absent: it keeps its name. */
  readonly name?: string;
}

/** Throws `CliError` for what cannot be copied like that. `parent` is what there is where the destination would be made. */
export function planCopy(
  source: { readonly path: string; readonly kind: Kind },
  target: { readonly path: string; readonly kind: Kind; readonly parent: Kind },
): CopyPlan {
  const contentsOnly = /(^|\/)\.$/.test(source.path);
  const from = stripEnd(source.path);
  if (source.kind === 'none') throw new CliError(`${source.path} does not exist`, 1);
  if (source.kind === 'file' && /\/\.?$/.test(source.path))
    throw new CliError(`${source.path} is not a directory`, 1);
  if (target.kind === 'directory') {
    const directory = target.path;
    if (source.kind === 'directory' && contentsOnly) return { source: `${from}/.`, directory };
    return { source: from, directory, name: posix.basename(from) };
  }
  if (target.kind === 'file') {
    if (source.kind === 'directory')
      throw new CliError(`a directory cannot be copied over the file ${target.path}`, 1);
    if (target.path.endsWith('/')) throw new CliError(`${target.path} is not a directory`, 1);
  } else {
    if (source.kind === 'file' && target.path.endsWith('/'))
      throw new CliError(`the directory ${target.path} does not exist`, 1);
    if (target.parent !== 'directory')
      throw new CliError(`the directory ${posix.dirname(stripEnd(target.path))} does not exist`, 1);
  }
  const to = stripEnd(target.path);
  return { source: from, directory: posix.dirname(to), name: posix.basename(to) };
}

/** Without slashes and `/.` at its end. */
export function stripEnd(path: string): string {
  const stripped = path.replace(/(\/+\.?)+$/, '');
  return stripped === '' ? '/' : stripped;
}

/** `CONTAINER:PATH`; undefined for a path of the host: one that begins with `.` or `/`, or has no colon. */
export function splitContainerPath(text: string): { container: string; path: string } | undefined {
  const colon = text.indexOf(':');
  if (colon < 1 || /^[./]/.test(text)) return undefined;
  const path = text.slice(colon + 1);
  return { container: text.slice(0, colon), path: path.startsWith('/') ? path : `/${path}` };
}
