/** `arcbox inspect`: whatever has the name. Docker's order counts where two things have one. */
import { RemoteError } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { printInspected } from '../inspected.ts';
import { describeImage } from './images.ts';
import { describeNetwork } from './network.ts';
import { describeContainer, NO_SIZE } from './ps.ts';
import { describeVolume } from './volumes.ts';

type Describe = (context: Context, name: string) => Promise<Record<string, unknown>>;

const KINDS: Readonly<Record<string, Describe>> = {
  container: describeContainer,
  image: describeImage,
  volume: describeVolume,
  network: describeNetwork,
};

export async function inspect(
  context: Context,
  names: readonly string[],
  options: { readonly format?: string; readonly type?: string; readonly size?: boolean },
): Promise<number> {
  const { type } = options;
  if (options.size === true) throw new CliError(NO_SIZE, 1);
  const describe = type === undefined ? describeAny : KINDS[type];
  if (describe === undefined)
    throw new CliError(`--type ${JSON.stringify(type)}: there are ${Object.keys(KINDS).join(', ')}`, 1);
  return printInspected(names, options, (name) => describe(context, name));
}

async function describeAny(context: Context, name: string): Promise<Record<string, unknown>> {
  for (const describe of Object.values(KINDS)) {
    try {
      return await describe(context, name);
    } catch (error) {
      if (!isOfOtherKind(error)) throw error;
    }
  }
  throw new CliError(
    `no such object: ${name}; there is no container, image, volume or network of that name`,
    1,
  );
}

/** There is none, or it cannot be the name of one. */
function isOfOtherKind(error: unknown): boolean {
  return (
    error instanceof RemoteError &&
    /_NOT_FOUND$|^ERR_ARCBOX_INVALID_ARGUMENT$|^ERR_ARCBOX_REFERENCE_INVALID$/.test(error.code)
  );
}
