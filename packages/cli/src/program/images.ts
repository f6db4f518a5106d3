/** The commands about images; each that docker has twice (`rmi`, `image rm`) is here twice, too. */
import { type Command, Option } from 'commander';
import type { Context } from '../context.ts';
import { formatOption, inspectFormatOption } from './flags.ts';
import { action, collect } from './support.ts';

export function defineImageCommands(program: Command, context: Context): void {
  const images = () => import('../commands/images.ts');
  const inspect = () => import('../commands/inspect.ts');
  const transfer = () => import('../commands/transfer.ts');
  const group = program.command('image').description('Images: list, inspect, get, remove');

  const list = (command: Command): Command =>
    command
      .description('List images')
      .option('-a, --all', 'images are never hidden; for those who type it')
      .option('-q, --quiet', 'IDs only')
      .option('--digests', "registries' digests, too")
      .option('--no-trunc', 'whole IDs')
      .option('-f, --filter <KEY=VALUE>', 'dangling, label, reference, before, since', collect)
      .addOption(formatOption())
      .action(
        action(async (name: string | undefined, options) => (await images()).images(context, name, options)),
      );
  const pull = (command: Command): Command =>
    command
      .description('Get an image from its registry')
      .option('-q, --quiet', 'without progress')
      .option('--platform <os/architecture>', "instead of this host's")
      .addOption(new Option('-a, --all-tags').hideHelp())
      .action(action(async (name: string, options) => (await transfer()).pull(context, name, options)));
  const push = (command: Command): Command =>
    command
      .description('Send an image to the registry that its name names')
      .option('-q, --quiet', 'without progress')
      .option('-a, --all-tags', 'under all names that it has here')
      .action(action(async (name: string, options) => (await transfer()).push(context, name, options)));
  const load = (command: Command): Command =>
    command
      .description('Take in images from an archive: docker save, or an OCI layout')
      .option('-i, --input <file>', 'instead of standard input')
      .option('-q, --quiet', 'without progress')
      .action(action(async (options) => (await transfer()).load(context, options)));
  const save = (command: Command): Command =>
    command
      .description('Write images as an archive that docker load and OCI tools take')
      .option('-o, --output <file>', 'instead of standard output')
      .action(action(async (names: string[], options) => (await transfer()).save(context, names, options)));
  const importImage = (command: Command): Command =>
    command
      .description('Make an image of a root file system: a tar, or - for standard input')
      .option('-c, --change <instruction>', "a Dockerfile's, such as 'CMD [\"sh\"]'", collect)
      .option('-m, --message <text>', 'for the history')
      .option('--platform <os/architecture>', "instead of this host's")
      .action(
        action(async (file: string, name: string | undefined, options) =>
          (await transfer()).importImage(context, file, name, options),
        ),
      );
  const remove = (command: Command): Command =>
    command
      .description('Take names away, and remove images with their last one')
      .option('-f, --force', 'also images of stopped containers')
      .option('--no-prune', 'nothing else goes anyway: images without a name are not kept for others')
      .action(action(async (names: string[], options) => (await images()).remove(context, names, options)));
  const tag = (command: Command): Command =>
    command
      .description('Give an image another name')
      .action(action(async (image: string, name: string) => (await images()).tag(context, image, name)));
  const history = (command: Command): Command =>
    command
      .description("List the steps of an image's making")
      .option('-q, --quiet', 'IDs only')
      .option('--no-trunc', 'whole lines')
      .addOption(new Option('-H, --human [yes]', 'sizes and times for people (true)').default('true'))
      .addOption(formatOption())
      .action(action(async (name: string, options) => (await images()).history(context, name, options)));

  list(program.command('images [repository]'));
  list(group.command('ls [repository]').alias('list'));
  pull(program.command('pull <name>'));
  pull(group.command('pull <name>'));
  push(program.command('push <image>'));
  push(group.command('push <image>'));
  load(program.command('load'));
  load(group.command('load'));
  save(program.command('save <image...>'));
  save(group.command('save <image...>'));
  importImage(program.command('import <file> [name]'));
  importImage(group.command('import <file> [name]'));
  remove(program.command('rmi <image...>'));
  remove(group.command('rm <image...>').alias('remove'));
  tag(program.command('tag <image> <name>'));
  tag(group.command('tag <image> <name>'));
  history(program.command('history <image>'));
  history(group.command('history <image>'));
  group
    .command('inspect <image...>')
    .description('Print everything about images')
    .addOption(inspectFormatOption())
    .action(
      action(async (names: string[], options) =>
        (await inspect()).inspect(context, names, { ...options, type: 'image' }),
      ),
    );
  group
    .command('prune')
    .description('Remove images that nobody uses')
    .option('-a, --all', 'also those that have a name')
    .option('-f, --force', 'without asking')
    .option('--filter <until=TIME>', 'only those created before then', collect)
    .action(action(async (options) => (await import('../commands/prune.ts')).imagePrune(context, options)));
}
