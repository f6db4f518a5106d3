/** Commands by which images come and go. */
import { createReadStream, createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { TransferOutcomeJson, TransferProgressJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { familiar } from '../image-names.ts';
import { complain, print } from '../output.ts';
import { ownCredentials } from '../own-credentials.ts';
import { ProgressDisplay } from '../progress.ts';

const READ_BYTES = 256 * 1024;

export interface PullFlags {
  readonly quiet?: boolean;
  readonly platform?: string;
  readonly allTags?: boolean;
}

export async function pull(context: Context, name: string, options: PullFlags): Promise<number> {
  if (options.allTags === true)
    throw new CliError(
      '-a is not supported: a registry is not asked for all tags; pull those that are wanted',
      1,
    );
  const outcome = await pullImage(context, name, {
    ...(options.platform === undefined ? {} : { platform: options.platform }),
    stream: options.quiet === true ? undefined : process.stdout,
  });
  const full = outcome.images?.[0]?.names?.[0];
  if (options.quiet !== true) {
    const shown = full === undefined ? name : familiar(full);
    print(`Digest: ${outcome.digest ?? ''}`);
    print(
      outcome.changed === true
        ? `Status: Downloaded newer image for ${shown}`
        : `Status: Image is up to date for ${shown}`,
    );
  }
  print(full ?? name);
  return 0;
}

/** Gets an image; `stream` is where progress is shown, undefined for nowhere; `heading` comes before it, once there is any. */
export async function pullImage(
  { daemon }: Context,
  name: string,
  options: { platform?: string; stream: NodeJS.WriteStream | undefined; heading?: string },
): Promise<TransferOutcomeJson> {
  const { platform = '', stream, heading } = options;
  const request = { name, platform, ...(await ownCredentials(name)) };
  return shown(daemon.stream('ImageService/Pull', request), stream, heading);
}

export async function push(
  context: Context,
  name: string,
  options: { quiet?: boolean; allTags?: boolean },
): Promise<number> {
  if (options.allTags !== true) return pushOne(context, name, options);
  if (/[:@][^/]*$/.test(name)) throw new CliError(`with -a ${name} is to be without a tag`, 1);
  const { images = [] } = await context.daemon.call('ImageService/List', {});
  const names = images.flatMap(({ names: all = [] }) => all.map(familiar));
  const tagged = names.filter((each) => each.slice(0, each.lastIndexOf(':')) === familiar(name));
  if (tagged.length === 0) throw new CliError(`no image is called ${name}`, 1);
  for (const each of tagged.sort()) await pushOne(context, each, options);
  return 0;
}

async function pushOne(context: Context, name: string, options: { quiet?: boolean }): Promise<number> {
  const quiet = options.quiet === true;
  const messages = context.daemon.stream('ImageService/Push', {
    name,
    ...(await ownCredentials(name)),
  });
  const { digest = '' } = await shown(messages, quiet ? undefined : process.stdout);
  print(quiet ? name : `${name}: digest: ${digest}`);
  return 0;
}

export async function load(context: Context, options: { input?: string; quiet?: boolean }): Promise<number> {
  const body = openInput(options.input);
  const messages = context.daemon.uploadImages('load', [], body);
  const { images = [] } = await shown(messages, options.quiet === true ? undefined : progressStream());
  for (const { id = '', names = [] } of images) {
    for (const name of names) print(`Loaded image: ${familiar(name)}`);
    if (names.length === 0) print(`Loaded image ID: ${id}`);
  }
  return 0;
}

export async function save(
  context: Context,
  names: readonly string[],
  options: { output?: string },
): Promise<number> {
  const { output } = options;
  if (output === undefined && process.stdout.isTTY === true) {
    throw new CliError('an archive is nothing for a terminal; name a file with -o, or send it on', 1);
  }
  const archive = await context.daemon.downloadImages(names);
  if (output === undefined) {
    await pipeline(archive, process.stdout);
    return 0;
  }
  // Aside and renamed: a save that fails leaves what was there before.
  const aside = `${output}.${process.pid}.part`;
  try {
    await pipeline(archive, createWriteStream(aside, { flags: 'wx' }));
    await rename(aside, output);
  } catch (error) {
    await rm(aside, { force: true });
    throw asCliError(error, output);
  }
  return 0;
}

export interface ImportFlags {
  readonly change?: readonly string[];
  readonly message?: string;
  readonly platform?: string;
}

export async function importImage(
  context: Context,
  file: string,
  name: string | undefined,
  options: ImportFlags,
): Promise<number> {
  const query: [string, string][] = [
    ...(name === undefined ? [] : [['name', name] as [string, string]]),
    ...(options.change ?? []).map((change): [string, string] => ['change', change]),
    ['comment', options.message ?? `Imported from ${file}`],
    ...(options.platform === undefined ? [] : [['platform', options.platform] as [string, string]]),
  ];
  const body = openInput(file === '-' ? undefined : file);
  const { images = [] } = await shown(context.daemon.uploadImages('import', query, body), progressStream());
  for (const { id = '' } of images) print(id);
  return 0;
}

/** Standard output is for what came of it, which scripts read. */
function progressStream(): NodeJS.WriteStream | undefined {
  return process.stderr.isTTY === true ? process.stderr : undefined;
}

function openInput(file: string | undefined): Readable {
  if (file !== undefined) return createReadStream(file, { highWaterMark: READ_BYTES });
  if (process.stdin.isTTY === true) {
    throw new CliError('standard input is a terminal; name a file with -i, or send an archive there', 1);
  }
  return process.stdin;
}

async function shown(
  messages: AsyncIterable<TransferProgressJson>,
  stream: NodeJS.WriteStream | undefined,
  heading?: string,
): Promise<TransferOutcomeJson> {
  let isHeaded = heading === undefined || stream === undefined;
  const display = stream === undefined ? undefined : new ProgressDisplay(stream);
  let outcome: TransferOutcomeJson = {};
  try {
    for await (const message of messages) {
      if (message.outcome !== undefined) {
        outcome = message.outcome;
        continue;
      }
      if (!isHeaded) complain(heading ?? '');
      isHeaded = true;
      display?.show(message);
    }
  } catch (error) {
    throw asCliError(error, '');
  }
  return outcome;
}

/** What goes wrong with a file of the user's is the user's to know. */
function asCliError(error: unknown, file: string): unknown {
  const { code, path = file } = error as NodeJS.ErrnoException;
  const isOfFile = error instanceof Error && typeof code === 'string' && /^E[A-Z]+$/.test(code);
  return isOfFile ? new CliError(`${path}: ${error.message}`, 1) : error;
}
