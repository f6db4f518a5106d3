/**
 * Flags of docker's `run` and `create` that are known here so that whoever writes them is told why not, and flags whose
 * one possible value is taken.
 */
import { type Command, Option } from 'commander';
import { CliError } from './errors.ts';

/** Reasons, by flag. */
const REFUSED: Readonly<Record<string, string>> = {
  '--device <path>': 'a container has no devices of the host, which is another machine',
  '--device-cgroup-rule <rule>': 'a container has no devices of the host, which is another machine',
  '--device-read-bps <limit>': 'disks belong to machines; --blkio-weight shares them out',
  '--device-read-iops <limit>': 'disks belong to machines; --blkio-weight shares them out',
  '--device-write-bps <limit>': 'disks belong to machines; --blkio-weight shares them out',
  '--device-write-iops <limit>': 'disks belong to machines; --blkio-weight shares them out',
  '--blkio-weight-device <weight>': 'disks belong to machines; --blkio-weight shares them out',
  '--gpus <request>': 'a machine has no GPU',
  '--annotation <KEY=VALUE>': 'annotations are for runtimes that read them, and ours reads none; use --label',
  '--memory-swappiness <number>': 'cgroup v2, which machines have, knows it for no container',
  '--kernel-memory <size>': 'cgroup v2, which machines have, does not count it apart; use --memory',
  '--oom-kill-disable':
    'cgroup v2, which machines have, cannot do it; --oom-score-adj says who is killed first',
  '--cpu-rt-period <µs>': 'cgroup v2, which machines have, knows no realtime budgets',
  '--cpu-rt-runtime <µs>': 'cgroup v2, which machines have, knows no realtime budgets',
  '--cgroup-parent <path>': "containers' cgroups are the engine's",
  '--link <container>':
    'containers of one network that was made (network create) find each other by their names',
  '--link-local-ip <address>': 'a container has the addresses of its networks',
  '--runtime <name>': 'there is one runtime, in a virtual machine; --machine names which machine',
  '--storage-opt <option>': 'containers share the disk of their machine; machine create has --disk',
  '--volume-driver <driver>': 'volumes are of one kind, local',
};

/** Flags that take what is the case anyway. */
const FIXED: Readonly<Record<string, { readonly values: readonly string[]; readonly why: string }>> = {
  '--cgroupns <mode>': { values: ['private'], why: 'a container has a cgroup namespace of its own' },
  '--userns <mode>': { values: ['host'], why: "containers have their machine's user namespace" },
  '--isolation <kind>': { values: ['default'], why: 'there is one kind, namespaces in a virtual machine' },
  '--log-driver <driver>': {
    values: ['json-file', 'local'],
    why: 'logs are kept by the engine, where `logs` and `--log-opt` find them',
  },
};

export function addRefusedFlags(command: Command): Command {
  for (const flags of [...Object.keys(REFUSED), ...Object.keys(FIXED)])
    command.addOption(new Option(flags).hideHelp());
  return command;
}

/** Throws `CliError` for one that was given. */
export function refuseFlags(given: Readonly<Record<string, unknown>>): void {
  for (const [flags, why] of Object.entries(REFUSED)) {
    const option = new Option(flags);
    if (given[option.attributeName()] !== undefined)
      throw new CliError(`${option.long} is not supported: ${why}`);
  }
  for (const [flags, { values, why }] of Object.entries(FIXED)) {
    const option = new Option(flags);
    const value = given[option.attributeName()];
    if (value !== undefined && !values.includes(String(value)))
      throw new CliError(
        `${option.long} ${value} is not supported: ${why}; it can be ${values.join(' or ')}`,
      );
  }
}
