/** `arcbox login` and `logout`: credentials go where docker keeps them, so that both know what either was told. */
import { RemoteError } from '@arcbox/api/client';
import {
  type Credentials,
  credentialsFor,
  eraseCredentials,
  storeCredentials,
} from '@arcbox/image/credentials';
import { DEFAULT_DOMAIN, registryDomain } from '@arcbox/image/reference';
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { complain, print } from '../output.ts';
import { askHidden, askLine } from '../prompt.ts';

export interface LoginFlags {
  readonly username?: string;
  readonly password?: string;
  readonly passwordStdin?: boolean;
}

/** Longer than any password or token. */
const PASSWORD_BYTES_MAX = 64 * 1024;

export async function login(context: Context, server: string, flags: LoginFlags): Promise<number> {
  const domain = registryDomain(server);
  const check = async (credentials: Credentials): Promise<void> => {
    await context.daemon.call('ImageService/Login', { server: domain, credentials });
  };
  const known =
    flags.username === undefined && !givesPassword(flags) ? await credentialsFor(domain) : undefined;
  if (known !== undefined) {
    print('Authenticating with existing credentials...');
    try {
      await check(known);
      print('Login Succeeded');
      return 0;
    } catch (error) {
      // They may have been changed at the registry; whoever sits there can say others.
      const denied = error instanceof RemoteError && error.code === 'ERR_ARCBOX_REGISTRY_DENIED';
      if (!denied || process.stdin.isTTY !== true) throw error;
      complain(error.message);
    }
  }
  const credentials = await given(domain, flags, known?.username ?? '');
  await check(credentials);
  const file = await storeCredentials(domain, credentials);
  if (file !== undefined)
    complain(
      `the password is kept in ${file}, not encrypted; credsStore there names a helper that does better`,
    );
  print('Login Succeeded');
  return 0;
}

export async function logout(server: string): Promise<number> {
  const domain = registryDomain(server);
  if (await eraseCredentials(domain)) print(`Removed the credentials for ${domain}`);
  else print(`Not logged in to ${domain}`);
  return 0;
}

function givesPassword({ password, passwordStdin }: LoginFlags): boolean {
  return password !== undefined || passwordStdin === true;
}

async function given(domain: string, flags: LoginFlags, known: string): Promise<Credentials> {
  const { username, password, passwordStdin = false } = flags;
  if (passwordStdin) {
    if (password !== undefined) throw new CliError('--password and --password-stdin exclude each other', 1);
    if (username === undefined || username === '') throw new CliError('--password-stdin needs --username', 1);
    return { username, password: await readPassword() };
  }
  if (password !== undefined)
    complain('--password shows the password to everybody who lists processes; use --password-stdin');
  if ((username === undefined || password === undefined) && process.stdin.isTTY !== true)
    throw new CliError('there is no terminal to ask at; give --username and --password-stdin', 1);
  const who = username ?? ((await askLine(known === '' ? 'Username: ' : `Username (${known}): `)) || known);
  const secret = password ?? (await askHidden(`Password for ${who} at ${domain}: `));
  if (who === '' || secret === '')
    throw new CliError(
      `a login at ${domain === DEFAULT_DOMAIN ? 'Docker Hub' : domain} needs a user name and a password`,
      1,
    );
  return { username: who, password: secret };
}

/** Without the end of its line. */
async function readPassword(): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of process.stdin as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > PASSWORD_BYTES_MAX)
      throw new CliError(`the password has more than ${PASSWORD_BYTES_MAX} bytes`, 1);
    parts.push(part);
  }
  const password = Buffer.concat(parts)
    .toString('utf8')
    .replace(/\r?\n$/, '');
  if (password === '') throw new CliError('the password on standard input is empty', 1);
  return password;
}
