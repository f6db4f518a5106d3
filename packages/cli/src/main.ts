/** The command line: what there is, and what to load for it. A command's code is imported when it is called. */
import './prelude.ts';
import './wake-early.ts';
import type { Context } from './context.ts';

const [
  { Command, Option },
  { createContext },
  { complain, put },
  { defineContainerCommands },
  { defineMachineCommands },
  { defineNetworkCommands },
  { defineImageCommands },
  { defineRegistryCommands },
  { formatOption: format, inspectFormatOption },
  { action, collect, exits },
  { defineVolumeCommands },
  { defineUpkeepCommands },
  { VERSION },
] = await Promise.all([
  import('commander'),
  import('./context.ts'),
  import('./output.ts'),
  import('./program/containers.ts'),
  import('./program/machines.ts'),
  import('./program/network.ts'),
  import('./program/images.ts'),
  import('./program/registry.ts'),
  import('./program/flags.ts'),
  import('./program/support.ts'),
  import('./program/volumes.ts'),
  import('./program/upkeep.ts'),
  import('@arcbox/api/client'),
]);

/** What an engine error exits with, as docker's. */
const ENGINE_ERROR = 125;

/** Commands that tell a wrong command line with the code of an engine error, as docker's. */
const ENGINE_COMMANDS = new Set(['run', 'create', 'exec']);
/** Also as `container run`. */
const VERB = process.argv.slice(2).find((word) => word !== 'container') ?? '';

const context = contextOrExit();

const program = new Command('arcbox')
  .description('Containers inside real virtual machines.')
  .version(`arcbox ${VERSION}`, '-v, --version', 'print the version')
  .enablePositionalOptions()
  .showHelpAfterError('(arcbox --help says more)')
  .exitOverride()
  .configureOutput({
    writeOut: (text) => put(process.stdout, text),
    writeErr: (text) => put(process.stderr, text),
    outputError: (text, write) => write(text.replace(/^error: /, 'arcbox: ')),
  });

defineContainerCommands(program, context);
defineImageCommands(program, context);
defineRegistryCommands(program, context);
defineVolumeCommands(program, context);
defineMachineCommands(program, context);
defineUpkeepCommands(program, context);
defineNetworkCommands(program, context);

const system = () => import('./commands/system.ts');

const daemon = program.command('daemon').description('The process behind the command');
daemon
  .command('start')
  .description('Start it, when it is not up')
  .option('--foreground', 'here, with its log on standard error')
  .action(action(async (options) => (await system()).daemonStart(context, options)));
daemon
  .command('stop')
  .description('Stop containers and machines, then the daemon')
  .action(action(async () => (await system()).daemonStop(context)));
daemon
  .command('status')
  .description('Say whether it is up')
  .action(action(async () => (await system()).daemonStatus(context)));

program
  .command('events')
  .description('Print what happens to containers, machines, images and volumes, as it happens')
  .option('--since <time>', 'begin with what happened then: a time, Unix seconds, or how long ago (10m)')
  .option('--until <time>', 'end then')
  .option(
    '-f, --filter <KEY=VALUE>',
    'only these; keys: type, event, label, container, image, machine, …',
    collect,
  )
  .addOption(new Option('--format <format>', 'text, json, or a template such as {{.Action}}').default('text'))
  .action(action(async (options) => (await import('./commands/events.ts')).events(context, options)));
program
  .command('doctor')
  .description('Look at everything that has to be right on this host')
  .addOption(format())
  .action(action(async (options) => (await system()).doctor(context, options)));
program
  .command('version')
  .description('Print versions')
  .addOption(inspectFormatOption())
  .action(action(async (options) => (await system()).version(context, options)));
program
  .command('info')
  .description('Print what the daemon has and how it is configured')
  .addOption(inspectFormatOption())
  .action(action(async (options) => (await system()).info(context, options)));

program
  .command('completion <shell>')
  .description('Print what makes bash, zsh or fish complete this command')
  .action(
    action(async (shell: string) => {
      const { completionScript } = await import('./completion.ts');
      put(process.stdout, completionScript(program, shell));
      return 0;
    }),
  );

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = exitCodeOf(error);
}

/** Where the data lies may be what is wrong. */
function contextOrExit(): Context {
  try {
    return createContext(process.env);
  } catch (error) {
    exits.kind = ENGINE_COMMANDS.has(VERB) ? 'engine' : 'plain';
    process.exit(exitCodeOf(error));
  }
}

function exitCodeOf(error: unknown): number {
  if (!(error instanceof Error)) throw error;
  const code = 'code' in error ? String(error.code) : '';
  // Commander has printed what it had to say: help, or what is wrong with the command line.
  if (code.startsWith('commander.')) {
    const asked = 'exitCode' in error && error.exitCode === 0;
    return asked ? 0 : ENGINE_COMMANDS.has(VERB) ? ENGINE_ERROR : 1;
  }
  if (!code.startsWith('ERR_ARCBOX_')) throw error;
  complain(error.message);
  const own = 'exitCode' in error && typeof error.exitCode === 'number' ? error.exitCode : ENGINE_ERROR;
  if (exits.kind === 'engine') return own;
  return exits.kind === 'command' && own > ENGINE_ERROR ? own : 1;
}
