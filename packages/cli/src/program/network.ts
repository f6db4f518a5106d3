/** The definitions of `arcbox network`. */
import type { Command } from 'commander';
import type { Context } from '../context.ts';
import { formatOption, inspectFormatOption } from './flags.ts';
import { action, collect } from './support.ts';

const commands = () => import('../commands/network.ts');
const insight = () => import('../commands/network-insight.ts');

export function defineNetworkCommands(program: Command, context: Context): void {
  const network = program.command('network').description('Networks that containers are in');
  network
    .command('ls')
    .alias('list')
    .description('List networks')
    .option('-q, --quiet', 'IDs only')
    .option('--no-trunc', 'whole IDs')
    .option('-f, --filter <KEY=VALUE>', 'only these; keys: id, name, label, driver, type, dangling', collect)
    .addOption(formatOption())
    .action(action(async (options) => (await commands()).networkList(context, options)));
  network
    .command('create <name>')
    .description('Make a network and print its ID')
    .option('-d, --driver <driver>', 'bridge')
    .option('--ipv6', 'IPv6 beside IPv4')
    .option('--subnet <subnet>', 'such as 10.9.0.0/24, or fd00:9::/64 (one that is free)', collect)
    .option('--gateway <address>', "where the outside is reached (the subnet's first address)", collect)
    .option('--ip-range <subnet>', 'the part of the subnet that addresses are of', collect)
    .option('--internal', 'nothing leaves it')
    .option('--attachable', 'every network is; for those who type it')
    .option('--label <name=value>', 'metadata', collect)
    .action(
      action(async (name: string, options) => (await commands()).networkCreate(context, name, options)),
    );
  network
    .command('rm <network...>')
    .alias('remove')
    .description('Remove networks that no container is in')
    .option('-f, --force', 'one that is not there is no error')
    .action(
      action(async (names: string[], options) => (await commands()).networkRemove(context, names, options)),
    );
  network
    .command('inspect <network...>')
    .description('Print everything about networks, as JSON')
    .addOption(inspectFormatOption())
    .action(
      action(async (names: string[], options) => {
        const { inspect } = await import('../commands/inspect.ts');
        return inspect(context, names, { ...options, type: 'network' });
      }),
    );
  network
    .command('connect <network> <container>')
    .description('Put a container into a network')
    .option('--ip <address>', 'its address there')
    .option('--ip6 <address>', 'its IPv6 address there')
    .option('--mac-address <address>', 'of its interface there')
    .option('--alias <name>', 'a further name of it there', collect)
    .action(
      action(async (name: string, container: string, options) =>
        (await commands()).networkConnect(context, name, container, options),
      ),
    );
  network
    .command('disconnect <network> <container>')
    .description('Take a container out of a network')
    .option('-f, --force', 'it never needs force; for those who type it')
    .action(
      action(async (name: string, container: string) =>
        (await commands()).networkDisconnect(context, name, container),
      ),
    );
  network
    .command('prune')
    .description('Remove the networks that no container is in')
    .option('-f, --force', 'without asking')
    .option('--filter <KEY=VALUE>', 'only these; keys: until, label, label!', collect)
    .action(action(async (options) => (await import('../commands/prune.ts')).networkPrune(context, options)));
  // In the order they are written, whichever they are.
  const written: { readonly action: 'allow' | 'deny'; readonly text: string }[] = [];
  const rule = (action: 'allow' | 'deny') => (text: string) => written.push({ action, text });
  network
    .command('policy [container]')
    .description('Print what a container may reach, or change it; it counts from the next connection on')
    .option('--machine <name>', 'what a machine may reach, but for containers with a policy of their own')
    .option('--default <what>', 'deny, public-only or allow: what no rule decides')
    .option(
      '--allow <rule>',
      'such as example.com:443, *.example.com, 10.0.0.0/8:80/tcp, public; in order',
      rule('allow'),
    )
    .option('--deny <rule>', 'likewise; the first rule that matches decides', rule('deny'))
    .option('--file <file>', 'a policy as JSON, - for standard input')
    .option('--clear', 'take the policy away')
    .action(
      action(async (container: string | undefined, options) => {
        const { networkPolicy, parseRule } = await insight();
        const rules = written.map(({ action: what, text }) => parseRule(what, text));
        return networkPolicy(context, container, { ...options, rules });
      }),
    );
  network
    .command('stats')
    .description('Counters of machines, networks, policies and names')
    .option('--flows', 'what passes now, flow by flow')
    .option('-q, --quiet', 'names only')
    .addOption(formatOption())
    .action(action(async (options) => (await insight()).networkStats(context, options)));
  network
    .command('capture [container]')
    .description('Write the frames of a container, or of a machine, as pcapng')
    .option('--machine <name>', 'all of a machine (default: of the default machine)')
    .requiredOption('-w, --write <file>', 'where to, - for standard output')
    .option('--snap <bytes>', 'cut longer frames')
    .action(
      action(async (container: string | undefined, options) =>
        (await insight()).networkCapture(context, container, options),
      ),
    );
}
