/** `arcbox exec`: another command in a running container. */
import { ExecStream } from '@arcbox/api/client';
import { attached, Outputs, releaseStdin, terminalSize } from '../attached.ts';
import type { Context } from '../context.ts';
import { environment } from '../environment.ts';
import { CliError } from '../errors.ts';
import { complain } from '../output.ts';

export interface ExecOptions {
  readonly interactive?: boolean;
  readonly tty?: boolean;
  readonly detach?: boolean;
  readonly env?: readonly string[];
  readonly envFile?: readonly string[];
  readonly workdir?: string;
  readonly user?: string;
  readonly privileged?: boolean;
  readonly detachKeys?: string;
}

/** Answers with what to exit with. */
export async function exec(
  { daemon }: Context,
  container: string,
  command: readonly string[],
  options: ExecOptions,
): Promise<number> {
  const tty = options.tty === true;
  const detach = options.detach === true;
  const stdin = options.interactive === true && !detach;
  if (tty && stdin && !process.stdin.isTTY) {
    throw new CliError('standard input is not a terminal; leave -t out, or -i', 1);
  }
  const { id = '' } = await daemon.call('ExecService/Create', {
    container,
    command: [...command],
    env: environment(options.env, options.envFile),
    workingDir: options.workdir ?? '',
    user: options.user ?? '',
    tty,
    openStdin: stdin,
    privileged: options.privileged === true,
  });
  if (detach) {
    await daemon.call('ExecService/Start', { id });
    return 0;
  }
  const outputs = new Outputs();
  const stream = new ExecStream({
    socketPath: daemon.socketPath,
    id,
    stdin,
    // Asking for our standard streams makes them, which takes a moment.
    ...(tty ? terminalSize() : {}),
    onOutput: outputs.onOutput,
    onError: ({ message }) => complain(message),
  });
  try {
    const exit = await attached(stream, outputs, {
      tty,
      stdin,
      // As docker: a signal ends this command, and not what it started.
      sigProxy: false,
      detachKeys: options.detachKeys,
      start: () => stream.start(),
    });
    return exit?.exitCode ?? 0;
  } finally {
    stream.detach();
    if (stdin) releaseStdin();
  }
}
