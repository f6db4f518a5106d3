/** The commands about volumes. */
import type { Command } from 'commander';
import type { Context } from '../context.ts';
import { formatOption, inspectFormatOption } from './flags.ts';
import { action, collect } from './support.ts';

export function defineVolumeCommands(program: Command, context: Context): void {
  const volumes = () => import('../commands/volumes.ts');
  const volume = program.command('volume').description('Disks that outlive containers');
  volume
    .command('create [name]')
    .description('Make one')
    .option('--label <KEY=VALUE>', 'label it', collect)
    .option('--size <size>', 'of its file system, which takes what is in it (64g)')
    .action(
      action(async (name: string | undefined, options) =>
        (await volumes()).volumeCreate(context, name, options),
      ),
    );
  volume
    .command('ls')
    .alias('list')
    .description('List volumes')
    .option('-q, --quiet', 'names only')
    .option('--dangling', 'only those that no container has')
    .option('-f, --filter <KEY=VALUE>', 'only these; keys: name, label, dangling, driver', collect)
    .addOption(formatOption())
    .action(action(async (options) => (await volumes()).volumeList(context, options)));
  volume
    .command('inspect <volume...>')
    .description('Print everything about volumes, as JSON')
    .addOption(inspectFormatOption())
    .action(
      action(async (names: string[], options) => {
        const { inspect } = await import('../commands/inspect.ts');
        return inspect(context, names, { ...options, type: 'volume' });
      }),
    );
  volume
    .command('rm <volume...>')
    .alias('remove')
    .description('Remove volumes that no container has, with everything in them')
    .option('-f, --force', 'one that is not there is no error')
    .action(
      action(async (names: string[], options) => (await volumes()).volumeRemove(context, names, options)),
    );
  volume
    .command('prune')
    .description('Remove the anonymous volumes that no container has')
    .option('-a, --all', 'also those that were given a name')
    .option('-f, --force', 'without asking')
    .option('--filter <KEY=VALUE>', 'only these; keys: label, label!, all', collect)
    .action(action(async (options) => (await import('../commands/prune.ts')).volumePrune(context, options)));
}
