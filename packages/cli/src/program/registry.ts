/** The commands about registries themselves. */
import type { Command } from 'commander';
import type { Context } from '../context.ts';
import { action } from './support.ts';

export function defineRegistryCommands(program: Command, context: Context): void {
  const login = () => import('../commands/login.ts');
  program
    .command('login [server]')
    .description('Keep credentials for a registry (docker.io), once it has taken them')
    .option('-u, --username <name>', 'who we are there')
    .option('-p, --password <password>', 'better not: others see it in the list of processes')
    .option('--password-stdin', 'read the password from standard input')
    .action(
      action(async (server: string | undefined, options) =>
        (await login()).login(context, server ?? '', options),
      ),
    );
  program
    .command('logout [server]')
    .description('Forget the credentials for a registry (docker.io)')
    .action(action(async (server: string | undefined) => (await login()).logout(server ?? '')));
}
