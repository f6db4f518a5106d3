/** The commands that say what there is, and take away what is not used. */
import type { Command } from 'commander';
import type { Context } from '../context.ts';
import { formatOption } from './flags.ts';
import { action, collect } from './support.ts';

export function defineUpkeepCommands(program: Command, context: Context): void {
  const upkeep = () => import('../commands/upkeep.ts');
  const prune = () => import('../commands/prune.ts');
  const system = program.command('system').description('Everything together');
  system
    .command('df')
    .description("Print what everything takes on the host's disk")
    .option('-v, --verbose', 'list images, containers, volumes and machines')
    .addOption(formatOption())
    .action(action(async (options) => (await upkeep()).systemDf(context, options)));
  system
    .command('prune')
    .description('Remove containers that do not run, and networks and images that nobody uses')
    .option('-a, --all', 'also images that have a name')
    .option('--volumes', 'also anonymous volumes')
    .option('-f, --force', 'without asking')
    .option('--filter <until=TIME>', 'only what was created before then', collect)
    .action(action(async (options) => (await prune()).systemPrune(context, options)));
}
