/** The commands about containers. A command's code is imported when it is called. */
import { type Command, Option } from 'commander';
import type { Context } from '../context.ts';
import { addLifeFlags, restartOption } from '../life-flags.ts';
import { addMountFlags } from '../mount-flags.ts';
import {
  createFlags,
  detachKeysOption,
  formatOption,
  inspectFormatOption,
  limitFlags,
  sigProxyOption,
} from './flags.ts';
import { action, collect } from './support.ts';

/** Those that docker has twice (`ps`, `container ls`): at the top, and in the group, where `ps` has another name. */
function defineContainerVerbs(program: Command, context: Context, inGroup: boolean): void {
  const containers = () => import('../commands/containers.ts');
  const runs = () => import('../commands/run.ts');

  addMountFlags(addLifeFlags(createFlags(program.command('run <image> [command...]'))))
    .description('Create a container from an image and run a command in it')
    .passThroughOptions()
    .option('-a, --attach <stream>', 'only with stdin, stdout or stderr (all)', collect)
    .option('-d, --detach', 'print its ID and leave it running')
    .addOption(sigProxyOption())
    .addOption(detachKeysOption())
    .action(
      action(
        async (image: string, command: string[], options) =>
          (await runs()).run(context, image, command, options),
        'engine',
      ),
    );
  addMountFlags(addLifeFlags(createFlags(program.command('create <image> [command...]'))))
    .description('Create a container without starting it')
    .passThroughOptions()
    .option(
      '-a, --attach <stream>',
      'whether its input ends with the client: stdin, stdout or stderr (all)',
      collect,
    )
    .action(
      action(
        async (image: string, command: string[], options) =>
          (await runs()).create(context, image, command, options),
        'engine',
      ),
    );
  program
    .command('start <container...>')
    .description('Start containers that do not run')
    .option('-a, --attach', 'with its output, signals, and exit code')
    .option('-i, --interactive', 'and its standard input')
    .addOption(sigProxyOption())
    .addOption(detachKeysOption())
    .action(action(async (ids: string[], options) => (await runs()).start(context, ids, options), 'command'));
  program
    .command('attach <container>')
    .description('Be with a running container: its output, its input, signals')
    .option('--no-stdin', 'without its standard input')
    .addOption(sigProxyOption())
    .addOption(detachKeysOption())
    .action(action(async (id: string, options) => (await runs()).attach(context, id, options), 'command'));
  program
    .command('exec <container> <command...>')
    .description('Run another command in a running container')
    .passThroughOptions()
    .option('-i, --interactive', 'pass standard input on')
    .option('-t, --tty', 'give it a terminal')
    .option('-d, --detach', 'leave it running')
    .option('-e, --env <KEY=VALUE>', 'set an environment variable', collect)
    .option('--env-file <file>', 'set those of a file', collect)
    .option('-w, --workdir <directory>', 'working directory')
    .option('-u, --user <user[:group]>', 'who the command runs as')
    .option('--privileged', 'every capability, no system-call filter')
    .addOption(detachKeysOption())
    .action(
      action(async (id: string, command: string[], options) => {
        const { exec } = await import('../commands/exec.ts');
        return exec(context, id, command, options);
      }, 'command'),
    );
  program
    .command(inGroup ? 'ls' : 'ps')
    .aliases(inGroup ? ['list', 'ps'] : [])
    .description('List containers')
    .option('-a, --all', 'also those that do not run')
    .option('-q, --quiet', 'IDs only')
    .option('-n, --last <number>', 'the last created ones, in any state')
    .option('-l, --latest', 'the last created one, in any state')
    .option(
      '-f, --filter <name=value>',
      'only those of this name, id, status, label, ancestor, health, network, volume, publish, expose, exited, machine, before, since',
      collect,
    )
    .option('--no-trunc', 'IDs and commands in full')
    .addOption(new Option('-s, --size').hideHelp())
    .addOption(formatOption())
    .action(action(async (options) => (await import('../commands/ps.ts')).ps(context, options)));
  program
    .command('logs <container>')
    .description("Print a container's output")
    .option('-f, --follow', 'go on until it has exited')
    .option('-n, --tail <lines>', 'only so many last lines', 'all')
    .option('--since <time>', 'what was written then or later: a time, Unix seconds, or how long ago (10m)')
    .option('--until <time>', 'what was written then or earlier')
    .option('-t, --timestamps', 'begin each line with its time')
    .addOption(new Option('--details').hideHelp())
    .option(
      '--format <format>',
      'text, or json: an object a line with run, offset, time, stream and text or base64',
    )
    .action(
      action(async (id: string, options) => (await import('../commands/logs.ts')).logs(context, id, options)),
    );
  program
    .command('stop <container...>')
    .description('Ask containers to end, and kill them after a while')
    .option('-t, --time <seconds>', 'how long until they are killed (10)')
    .option('--timeout <seconds>', 'the same')
    .option('-s, --signal <signal>', 'what asks them')
    .action(action(async (ids: string[], options) => (await containers()).stop(context, ids, options)));
  program
    .command('restart <container...>')
    .description('Stop containers, if they run, and start them')
    .option('-t, --time <seconds>', 'how long until they are killed (10)')
    .option('--timeout <seconds>', 'the same')
    .option('-s, --signal <signal>', 'what asks them')
    .action(action(async (ids: string[], options) => (await containers()).restart(context, ids, options)));
  program
    .command('kill <container...>')
    .description('Send a signal to containers')
    .option('-s, --signal <signal>', 'name or number (KILL)')
    .action(action(async (ids: string[], options) => (await containers()).kill(context, ids, options)));
  program
    .command('pause <container...>')
    .description('Make the processes of containers stand still')
    .action(action(async (ids: string[]) => (await containers()).pause(context, ids)));
  program
    .command('unpause <container...>')
    .description('Let them go on')
    .action(action(async (ids: string[]) => (await containers()).unpause(context, ids)));
  program
    .command('rename <container> <name>')
    .description('Give a container another name')
    .action(action(async (id: string, name: string) => (await containers()).rename(context, id, name)));
  limitFlags(program.command('update <container...>'))
    .description('Change the limits of containers, of running ones at once, and their restart policies')
    .addOption(restartOption())
    .action(action(async (ids: string[], options) => (await containers()).update(context, ids, options)));
  program
    .command('wait <container...>')
    .description('Wait until containers have exited, and print their exit codes')
    .option('--condition <condition>', 'not-running, next-exit or removed', 'not-running')
    .action(action(async (ids: string[], options) => (await containers()).wait(context, ids, options)));
  program
    .command('rm <container...>')
    .description('Remove containers with their logs and everything they wrote')
    .option('-f, --force', 'kill them first')
    .option('-v, --volumes', 'with the volumes that were made for them alone')
    .action(action(async (ids: string[], options) => (await containers()).remove(context, ids, options)));
  program
    .command('top <container> [options...]')
    .description("List a container's processes; the options are those of ps: -ef, aux, or -o with a list")
    .passThroughOptions()
    .allowUnknownOption()
    .action(
      action(async (id: string, options: string[]) => {
        const { top } = await import('../commands/top.ts');
        return top(context, id, options);
      }),
    );
  program
    .command('stats [container...]')
    .description('Show what containers use, again and again')
    .option('-a, --all', 'also those that do not run')
    .option('--no-stream', 'once')
    .option('--no-trunc', 'IDs in full')
    .addOption(formatOption())
    .action(
      action(async (ids: string[], options) => {
        const { stats } = await import('../commands/stats.ts');
        return stats(context, ids, options);
      }),
    );
  const copies = () => import('../commands/copy.ts');
  program
    .command('cp <source> <target>')
    .description('Copy files out of a container (NAME:PATH) or into it; - is a tar on our standard streams')
    .option('-a, --archive', 'keep owners')
    .option('-L, --follow-link', 'copy what the source links to')
    .option('-q, --quiet', 'say nothing (it never does)')
    .action(
      action(async (source: string, target: string, options) =>
        (await copies()).copy(context, source, target, options),
      ),
    );
  program
    .command('export <container>')
    .description("Write a container's whole root as a tar")
    .option('-o, --output <file>', 'to a file instead of standard output')
    .action(action(async (id: string, options) => (await copies()).exportRoot(context, id, options)));
  program
    .command('diff <container>')
    .description('List what a container added (A), changed (C) and deleted (D) in the files of its image')
    .action(action(async (id: string) => (await copies()).diff(context, id)));
  program
    .command('commit <container> [name]')
    .description('Make an image of a container')
    .option('-a, --author <author>', 'who made it')
    .option('-m, --message <text>', 'a comment')
    .option('-c, --change <instruction>', 'apply a Dockerfile instruction such as CMD ["sh"]', collect)
    .option('-p, --pause [yes]', 'let it stand still meanwhile (true)', 'true')
    .action(
      action(async (id: string, name: string | undefined, options) =>
        (await copies()).commit(context, id, name, options),
      ),
    );
  program
    .command('port <container> [port]')
    .description('List published ports')
    .action(action(async (id: string, port?: string) => (await containers()).port(context, id, port)));
}

export function defineContainerCommands(program: Command, context: Context): void {
  defineContainerVerbs(program, context, false);
  program
    .command('inspect <object...>')
    .description('Print everything about containers, images, volumes and networks')
    .addOption(inspectFormatOption())
    .addOption(new Option('-s, --size').hideHelp())
    .option('--type <type>', 'only container, image, volume or network')
    .action(
      action(async (names: string[], options) =>
        (await import('../commands/inspect.ts')).inspect(context, names, options),
      ),
    );
  const group = program
    .command('container')
    .description('Containers: the same commands, and prune')
    .enablePositionalOptions();
  group
    .command('prune')
    .description('Remove containers that do not run')
    .option('-f, --force', 'without asking')
    .option('--filter <KEY=VALUE>', 'only these; keys: until, label, label!', collect)
    .action(
      action(async (options) => (await import('../commands/prune.ts')).containerPrune(context, options)),
    );
  // A second definition of all of them costs every command some 3 ms that only these need.
  if (!process.argv.slice(2).some((word) => ['container', 'completion'].includes(word))) return;
  defineContainerVerbs(group, context, true);
  group
    .command('inspect <container...>')
    .description('Print everything about containers')
    .addOption(inspectFormatOption())
    .addOption(new Option('-s, --size').hideHelp())
    .action(
      action(async (names: string[], options) =>
        (await import('../commands/inspect.ts')).inspect(context, names, { ...options, type: 'container' }),
      ),
    );
}
