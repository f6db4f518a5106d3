/** The commands about machines. */
import type { Command } from 'commander';
import type { Context } from '../context.ts';
import { formatOption, inspectFormatOption } from './flags.ts';
import { action } from './support.ts';

export function defineMachineCommands(program: Command, context: Context): void {
  const machines = () => import('../commands/machines.ts');
  const machine = program.command('machine').description('The virtual machines that containers run in');
  machine
    .command('create <name>')
    .description('Make one, for containers that name it')
    .option('--cpus <number>', 'so many CPUs (machine.cpus)')
    .option('-m, --memory <size>', 'its RAM, such as 2g (machine.memory)')
    .option('--disk <size>', 'of its disk, which takes what is in it (machine.disk)')
    .action(
      action(async (name: string, options) => (await machines()).machineCreate(context, name, options)),
    );
  machine
    .command('rm <machine...>')
    .alias('remove')
    .description('Remove machines that are not up and have no containers, with their disks')
    .option('-f, --force', 'remove their containers, too, and power them off')
    .action(
      action(async (names: string[], options) => (await machines()).machineRemove(context, names, options)),
    );
  machine
    .command('ls')
    .alias('list')
    .description('List machines')
    .option('-q, --quiet', 'names only')
    .addOption(formatOption())
    .action(action(async (options) => (await machines()).machineList(context, options)));
  machine
    .command('start <machine...>')
    .description('Bring them up')
    .action(action(async (names: string[]) => (await machines()).machineStart(context, names)));
  machine
    .command('inspect <machine...>')
    .description('Print everything about machines, as JSON')
    .addOption(inspectFormatOption())
    .action(
      action(async (names: string[], options) => (await machines()).machineInspect(context, names, options)),
    );
  machine
    .command('idle <machine...>')
    .description('Save them and free their memory until they are needed again')
    .action(action(async (names: string[]) => (await machines()).machineIdle(context, names)));
  machine
    .command('stop <machine...>')
    .description('Stop their containers and power them off')
    .action(action(async (names: string[]) => (await machines()).machineStop(context, names)));
}
