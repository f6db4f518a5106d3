/** The command line: what there is, and what to load for it. A command's code is imported when it is called. */
import './prelude.ts';

const [{ Command, Option }, { createContext }, { addLifeFlags }, { complain, put }, { VERSION }] =
  await Promise.all([
    import('commander'),
    import('./context.ts'),
    import('./life-flags.ts'),
    import('./output.ts'),
    import('@arcbox/api/client'),
  ]);

/** What an engine error exits with, as docker's. */
const ENGINE_ERROR = 125;

const context = createContext(process.env);
let usageExitCode = 1;

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

const collect = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value];
const format = (): InstanceType<typeof Option> =>
  new Option('--format <format>', 'table or json').default('table');
const action =
  <Arguments extends unknown[]>(act: (...args: Arguments) => Promise<number>) =>
  async (...args: Arguments): Promise<void> => {
    process.exitCode = await act(...args);
  };

addLifeFlags(program.command('run <image> [command...]'))
  .description('Create a container from an image and run a command in it')
  .passThroughOptions()
  .option('--rm', 'remove the container when it has exited')
  .option('-i, --interactive', 'pass standard input on')
  .option('-t, --tty', 'give it a terminal')
  .option('-d, --detach', 'print its ID and leave it running')
  .option('-e, --env <KEY=VALUE>', 'set an environment variable', collect)
  .option('-w, --workdir <directory>', 'working directory')
  .option('-m, --memory <size>', 'memory limit, such as 64m')
  .option('--name <name>', 'name the container')
  .option('-h, --hostname <name>', 'its host name')
  .option('--entrypoint <program>', "instead of the image's entrypoint")
  .option('-u, --user <user[:group]>', 'who the command runs as')
  .helpOption('--help', 'say what there is')
  .action(
    action(async (image: string, command: string[], options) => {
      usageExitCode = ENGINE_ERROR;
      const { run } = await import('./commands/run.ts');
      return run(context, image, command, options);
    }),
  );

const containers = () => import('./commands/containers.ts');
const system = () => import('./commands/system.ts');

program
  .command('ps')
  .description('List containers')
  .option('-a, --all', 'also those that do not run')
  .option('-q, --quiet', 'IDs only')
  .addOption(format())
  .action(action(async (options) => (await containers()).ps(context, options)));
program
  .command('logs <container>')
  .description("Print a container's output")
  .option('-f, --follow', 'go on until it has exited')
  .action(action(async (id: string, options) => (await containers()).logs(context, id, options)));
program
  .command('stop <container...>')
  .description('Ask containers to end, and kill them after a while')
  .option('-t, --time <seconds>', 'how long until they are killed (10)')
  .action(action(async (ids: string[], options) => (await containers()).stop(context, ids, options)));
program
  .command('kill <container...>')
  .description('Send a signal to containers')
  .option('-s, --signal <signal>', 'name or number (KILL)')
  .action(action(async (ids: string[], options) => (await containers()).kill(context, ids, options)));
program
  .command('wait <container...>')
  .description('Wait until containers have exited, and print their exit codes')
  .action(action(async (ids: string[]) => (await containers()).wait(context, ids)));
program
  .command('rm <container...>')
  .description('Remove containers with their logs and everything they wrote')
  .option('-f, --force', 'kill them first')
  .action(action(async (ids: string[], options) => (await containers()).remove(context, ids, options)));
program
  .command('inspect <container...>')
  .description('Print everything about containers, as JSON')
  .action(action(async (ids: string[]) => (await containers()).inspect(context, ids)));
program
  .command('images')
  .description('List images')
  .option('-q, --quiet', 'IDs only')
  .addOption(format())
  .action(action(async (options) => (await system()).images(context, options)));

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

const machine = program.command('machine').description('The virtual machines that containers run in');
machine
  .command('ls')
  .description('List machines')
  .option('-q, --quiet', 'names only')
  .addOption(format())
  .action(action(async (options) => (await system()).machineList(context, options)));
machine
  .command('start <name...>')
  .description('Bring them up')
  .action(action(async (names: string[]) => (await system()).machineStart(context, names)));
machine
  .command('inspect <name...>')
  .description('Print everything about machines, as JSON')
  .action(action(async (names: string[]) => (await system()).machineInspect(context, names)));
machine
  .command('idle <name...>')
  .description('Save them and free their memory until they are needed again')
  .action(action(async (names: string[]) => (await system()).machineIdle(context, names)));
machine
  .command('stop <name...>')
  .description('Stop their containers and power them off')
  .action(action(async (names: string[]) => (await system()).machineStop(context, names)));

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
  .addOption(new Option('--format <format>', 'text or json').default('text'))
  .action(action(async (options) => (await import('./commands/events.ts')).events(context, options)));
program
  .command('doctor')
  .description('Look at everything that has to be right on this host')
  .addOption(format())
  .action(action(async (options) => (await system()).doctor(context, options)));
program
  .command('version')
  .description('Print versions')
  .addOption(format())
  .action(action(async (options) => (await system()).version(context, options)));
program
  .command('info')
  .description('Print what the daemon has and how it is configured')
  .addOption(format())
  .action(action(async (options) => (await system()).info(context, options)));

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = exitCodeOf(error);
}

function exitCodeOf(error: unknown): number {
  if (!(error instanceof Error)) throw error;
  const code = 'code' in error ? String(error.code) : '';
  // Commander has printed what it had to say: help, or what is wrong with the command line.
  if (code.startsWith('commander.')) {
    const asked = 'exitCode' in error && error.exitCode === 0;
    return asked ? 0 : process.argv[2] === 'run' ? ENGINE_ERROR : 1;
  }
  if (!code.startsWith('ERR_ARCBOX_')) throw error;
  complain(error.message);
  const own = 'exitCode' in error && typeof error.exitCode === 'number' ? error.exitCode : ENGINE_ERROR;
  return usageExitCode === ENGINE_ERROR ? own : 1;
}
