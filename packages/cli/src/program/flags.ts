/** Options that several commands have. */
import { type Command, Option } from 'commander';
import { addRefusedFlags } from '../refused-flags.ts';
import { collect } from './support.ts';

export function formatOption(): Option {
  return new Option('--format <format>', 'table, json, or a template such as {{.ID}}');
}

/** Of every `inspect`. */
export function inspectFormatOption(): Option {
  return new Option('-f, --format <format>', 'json, or a template such as {{.State}}');
}

export function detachKeysOption(): Option {
  return new Option('--detach-keys <keys>', 'leave it with these (ctrl-p,ctrl-q)');
}

export function sigProxyOption(): Option {
  return new Option('--sig-proxy [yes]', 'pass signals on (true)').default('true');
}

export function limitFlags(command: Command): Command {
  return command
    .option('-m, --memory <size>', 'memory limit, such as 64m')
    .option('--memory-swap <size>', 'memory and swap together; -1: no limit of swap')
    .option('--memory-reservation <size>', 'memory that is kept for it')
    .option('--cpus <number>', 'so many CPUs, such as 1.5')
    .option('--cpu-quota <µs>', 'CPU time in each period')
    .option('--cpu-period <µs>', 'length of a period (100000)')
    .option('-c, --cpu-shares <number>', 'share of the CPUs when they are scarce (1024)')
    .option('--cpuset-cpus <list>', 'CPUs to run on, such as 0-2,4')
    .option('--cpuset-mems <list>', 'memory nodes to use')
    .option('--pids-limit <number>', 'processes at a time; -1: no limit')
    .option('--blkio-weight <number>', 'share of the disks when they are busy, 10 to 1000');
}

/** Of `run` and `create`. */
export function createFlags(command: Command): Command {
  limitFlags(command)
    .option('--name <name>', 'name the container')
    .option('--machine <name>', 'the machine that it runs in (default)')
    .option('--rm', 'remove the container when it has exited')
    .option('-i, --interactive', 'pass standard input on')
    .option('-t, --tty', 'give it a terminal')
    .option('-e, --env <KEY=VALUE>', 'set an environment variable', collect)
    .option('--env-file <file>', 'set those of a file', collect)
    .option('-w, --workdir <directory>', 'working directory')
    .option('-u, --user <user[:group]>', 'who the command runs as')
    .option('--group-add <group>', 'a further group of that user', collect)
    .option('--entrypoint <program>', "instead of the image's entrypoint")
    .option('-h, --hostname <name>', 'its host name')
    .option('--domainname <name>', 'its domain')
    .option('-l, --label <KEY=VALUE>', 'set a label', collect)
    .option('--label-file <file>', 'set those of a file', collect)
    .option('--privileged', 'every capability and device, no system-call filter')
    .option('--cap-add <capability>', 'add a capability, or ALL', collect)
    .option('--cap-drop <capability>', 'take a capability away, or ALL', collect)
    .option('--security-opt <option>', 'seccomp=unconfined, no-new-privileges', collect)
    .option('--read-only', 'its root cannot be written')
    .option('--tmpfs <path[:options]>', 'mount a tmpfs', collect)
    .option('--shm-size <size>', 'of /dev/shm (64m)')
    .option('--ulimit <name=soft[:hard]>', 'a limit such as nofile=1024', collect)
    .option('--sysctl <name=value>', 'a kernel parameter of its namespaces', collect)
    .option('--init', 'a process 1 that reaps and passes signals on')
    .option('--oom-score-adj <number>', 'from -1000 to 1000: who is killed first when memory is short')
    .option('--pid <mode>', 'process namespace: host or container:NAME')
    .option('--ipc <mode>', 'private, shareable, none, host or container:NAME')
    .option('--uts <mode>', 'host name: host')
    .option(
      '--net, --network <network>',
      'a network, none, host or container:NAME (bridge); more often: in those, too',
      collect,
    )
    .option('--network-alias <name>', 'a further name in that network', collect)
    .option('--ip <address>', 'its address in that network')
    .option('--ip6 <address>', 'its IPv6 address in that network')
    .option('-p, --publish <[address:][port:]port[/udp]>', 'a port of the host that leads to it', collect)
    .option('-P, --publish-all', 'publish all exposed ports, wherever there is room')
    .option(
      '--expose <port[-port][/udp]>',
      'a port that is meant to be reached, besides those of the image',
      collect,
    )
    .option('--mac-address <address>', 'of its interface in that network')
    .option('--add-host <name:address>', 'a line of its /etc/hosts', collect)
    .option('--dns <address>', 'a name server', collect)
    .option('--dns-search <domain>', 'a search domain', collect)
    .option('--dns-option <option>', 'a resolver option', collect)
    .addOption(new Option('--dns-opt <option>').argParser(collect).hideHelp())
    .option('--stop-signal <signal>', 'what stop sends (TERM)')
    .option('--stop-timeout <seconds>', 'how long until stop kills it (10); -1: it does not')
    .option('--platform <os/architecture>', "only the machine's own")
    .option('--pull <when>', 'get the image from its registry: missing, always or never (missing)')
    .option('-q, --quiet', 'without progress of that')
    .option('--cidfile <file>', 'write its ID to a file')
    .helpOption('--help', 'say what there is');
  return addRefusedFlags(command);
}
