/** `arcbox run`, `create`, `start` and `attach`: making containers, and being with them while they run. */
import { writeFileSync } from 'node:fs';
import { ContainerStream, RemoteError } from '@arcbox/api/client';
import { type AttachOptions, attached, Outputs, releaseStdin } from '../attached.ts';
import type { Context } from '../context.ts';
import { attachedStreams, type CreateFlags, createRequest } from '../create-flags.ts';
import { CliError } from '../errors.ts';
import { complain, print } from '../output.ts';

export interface RunOptions extends CreateFlags {
  /** `--sig-proxy=false`. */
  readonly sigProxy?: string | boolean;
  readonly detachKeys?: string;
}

/** Answers with what to exit with. */
export async function run(
  context: Context,
  image: string,
  command: readonly string[],
  options: RunOptions,
): Promise<number> {
  const tty = options.tty === true;
  const streams = attachedStreams(options);
  const stdin = options.interactive === true && streams.has('stdin');
  const detach = options.detach === true;
  if (tty && stdin && !detach && !process.stdin.isTTY) {
    throw new CliError('standard input is not a terminal; leave -t out, or -i');
  }
  const id = await createContainer(context, image, command, options);
  const startRequest = { id, run: 1, ...terminalSize(tty) };
  const start = async (): Promise<void> => {
    await context.daemon.callIdempotent('ContainerService/Start', startRequest);
  };
  if (detach) {
    await start();
    print(id);
    return 0;
  }
  const wanted = new Set<1 | 2>();
  if (streams.has('stdout')) wanted.add(1);
  if (streams.has('stderr')) wanted.add(2);
  // As docker: who sees nothing of it is told its ID.
  if (wanted.size === 0) print(id);
  return attachTo(context, id, { ...common(options), tty, stdin, start }, wanted);
}

export async function create(
  context: Context,
  image: string,
  command: readonly string[],
  flags: CreateFlags,
): Promise<number> {
  print(await createContainer(context, image, command, flags));
  return 0;
}

export interface StartOptions {
  readonly attach?: boolean;
  readonly interactive?: boolean;
  readonly sigProxy?: string | boolean;
  readonly detachKeys?: string;
}

export async function start(
  context: Context,
  ids: readonly string[],
  options: StartOptions,
): Promise<number> {
  const { daemon } = context;
  if (options.attach === true || options.interactive === true) {
    const [id = '', ...others] = ids;
    if (others.length > 0) throw new CliError('only one container can be attached to at a time', 1);
    const { container } = await daemon.call('ContainerService/Inspect', { id });
    if (container?.state === 'running')
      throw new CliError(`the container ${id} is running; attach to it instead`, 1);
    const tty = container?.tty === true;
    const stdin = options.interactive === true && container?.openStdin === true;
    const startRequest = { id, run: (container?.run ?? 0) + 1, ...terminalSize(tty) };
    return attachTo(context, id, {
      ...common(options),
      tty,
      stdin,
      start: async () => {
        await daemon.callIdempotent('ContainerService/Start', startRequest);
      },
    });
  }
  let exitCode = 0;
  for (const id of ids) {
    try {
      await daemon.call('ContainerService/Start', { id });
      print(id);
    } catch (error) {
      complain(error instanceof Error ? error.message : String(error));
      exitCode = 1;
    }
  }
  return exitCode;
}

export interface AttachFlags {
  /** `--no-stdin`. */
  readonly stdin?: boolean;
  readonly sigProxy?: string | boolean;
  readonly detachKeys?: string;
}

export async function attach(context: Context, id: string, options: AttachFlags): Promise<number> {
  const { container } = await context.daemon.call('ContainerService/Inspect', { id });
  if (container?.state === 'paused') throw new CliError(`the container ${id} is paused; unpause it first`, 1);
  if (container?.state !== 'running')
    throw new CliError(`the container ${id} is ${container?.state}; start it with -a to be attached`, 1);
  const tty = container.tty === true;
  const { rows, columns } = process.stdout;
  return attachTo(context, container.id ?? id, {
    ...common(options),
    tty,
    stdin: options.stdin !== false && container.openStdin === true,
    start: async () => {
      if (tty && rows !== undefined)
        await context.daemon.call('ContainerService/Resize', { id, rows, columns });
    },
  });
}

async function createContainer(
  context: Context,
  image: string,
  command: readonly string[],
  flags: CreateFlags,
): Promise<string> {
  const { daemon } = context;
  const request = createRequest(image, command, flags);
  const make = () => daemon.callIdempotent('ContainerService/Create', request);
  const { container } = await withImage(context, image, flags, make);
  const id = container?.id ?? '';
  if (flags.cidfile !== undefined) writeFileSync(flags.cidfile, id, { flag: 'wx' });
  return id;
}

/** Pulls the image first when that is wanted, or when it is not there. */
async function withImage<T>(
  context: Context,
  image: string,
  flags: CreateFlags,
  make: () => Promise<T>,
): Promise<T> {
  const policy = flags.pull ?? 'missing';
  if (!['missing', 'always', 'never'].includes(policy)) {
    throw new CliError(`--pull is ${JSON.stringify(policy)}; it can be missing, always or never`);
  }
  const pull = async (heading?: string): Promise<void> => {
    const { pullImage } = await import('./transfer.ts');
    // What the container prints has standard output for itself.
    await pullImage(context, image, {
      ...(flags.platform === undefined ? {} : { platform: flags.platform }),
      stream: flags.quiet === true ? undefined : process.stderr,
      ...(heading === undefined ? {} : { heading }),
    });
  };
  if (policy === 'always') await pull();
  try {
    return await make();
  } catch (error) {
    const missing = error instanceof RemoteError && error.code === 'ERR_ARCBOX_IMAGE_NOT_FOUND';
    if (!missing || policy !== 'missing' || isImageId(image)) throw error;
    try {
      await pull(`${image} is not here yet; getting it from its registry`);
    } catch (failure) {
      const unreachable =
        failure instanceof RemoteError && failure.code === 'ERR_ARCBOX_REGISTRY_UNREACHABLE';
      // All in one sentence: nothing was said before.
      throw unreachable ? new CliError(`the image ${image} is not here, and ${failure.message}`) : failure;
    }
    return make();
  }
}

/** What can only be an ID is in no registry. */
function isImageId(image: string): boolean {
  return /^(?:sha256:[0-9a-f]{1,64}|[0-9a-f]{64})$/.test(image);
}

async function attachTo(
  { daemon }: Context,
  container: string,
  options: AttachOptions,
  wanted?: ReadonlySet<1 | 2>,
): Promise<number> {
  const outputs = new Outputs(wanted);
  const stream = new ContainerStream(daemon, {
    container,
    stdin: options.stdin,
    onOutput: outputs.onOutput,
    onError: ({ message }) => complain(message),
  });
  await stream.open();
  try {
    const exit = await attached(stream, outputs, options);
    if (exit === undefined) return 0;
    await stream.farewell();
    return exit.exitCode;
  } finally {
    stream.detach();
    releaseStdin();
  }
}

function common(options: { sigProxy?: string | boolean; detachKeys?: string }): {
  sigProxy: boolean;
  detachKeys: string | undefined;
} {
  return {
    sigProxy: options.sigProxy !== 'false' && options.sigProxy !== false,
    detachKeys: options.detachKeys,
  };
}

function terminalSize(tty: boolean): { rows?: number; columns?: number } {
  const { rows, columns } = process.stdout;
  return tty && rows !== undefined ? { rows, columns } : {};
}
