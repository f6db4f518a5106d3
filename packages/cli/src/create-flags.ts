/** What `run` and `create` take on the command line, and the request that it makes. */
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import type { CreateContainerRequestJson, HostOptionsJson, UlimitJson } from '@arcbox/api/client';
import { environment, labels } from './environment.ts';
import { CliError } from './errors.ts';
import { type LifeFlags, lifeOptions } from './life-flags.ts';
import { type LimitFlags, limitsRequest, sizeBytes, stopDurationMs, wholeNumber } from './limit-flags.ts';
import { type MountFlags, mounts } from './mount-flags.ts';
import { type NetworkFlags, networkOptions } from './network-flags.ts';
import { refuseFlags } from './refused-flags.ts';

export interface CreateFlags extends LimitFlags, LifeFlags, MountFlags, NetworkFlags {
  readonly rm?: boolean;
  readonly interactive?: boolean;
  readonly tty?: boolean;
  readonly detach?: boolean;
  readonly env?: readonly string[];
  readonly envFile?: readonly string[];
  readonly workdir?: string;
  readonly name?: string;
  readonly machine?: string;
  readonly hostname?: string;
  readonly domainname?: string;
  readonly entrypoint?: string;
  readonly user?: string;
  readonly groupAdd?: readonly string[];
  readonly label?: readonly string[];
  readonly labelFile?: readonly string[];
  readonly privileged?: boolean;
  readonly capAdd?: readonly string[];
  readonly capDrop?: readonly string[];
  readonly securityOpt?: readonly string[];
  readonly readOnly?: boolean;
  readonly tmpfs?: readonly string[];
  readonly shmSize?: string;
  readonly ulimit?: readonly string[];
  readonly sysctl?: readonly string[];
  readonly init?: boolean;
  readonly oomScoreAdj?: string;
  readonly pid?: string;
  readonly ipc?: string;
  readonly uts?: string;
  readonly publish?: readonly string[];
  readonly publishAll?: boolean;
  readonly expose?: readonly string[];
  readonly attach?: readonly string[];
  readonly volumesFrom?: readonly string[];
  readonly addHost?: readonly string[];
  readonly dns?: readonly string[];
  readonly dnsSearch?: readonly string[];
  readonly dnsOption?: readonly string[];
  /** The same, as docker has it, too. */
  readonly dnsOpt?: readonly string[];
  readonly stopSignal?: string;
  readonly stopTimeout?: string;
  readonly platform?: string;
  readonly pull?: string;
  readonly quiet?: boolean;
  readonly cidfile?: string;
}

/** Throws `CliError` naming the flag that cannot be. */
export function createRequest(
  image: string,
  command: readonly string[],
  flags: CreateFlags,
): CreateContainerRequestJson {
  refuseFlags({ ...flags });
  if (flags.cidfile !== undefined && existsSync(flags.cidfile))
    throw new CliError(`the file ${flags.cidfile} is there already; remove it, or name another one`);
  if (flags.cidfile === '') throw new CliError('--cidfile needs a path');
  const attached = attachedStreams(flags);
  const stopTimeoutMs =
    flags.stopTimeout === undefined ? undefined : stopDurationMs('--stop-timeout', flags.stopTimeout);
  return {
    image,
    command: [...command],
    env: environment(flags.env, flags.envFile),
    tty: flags.tty === true,
    openStdin: flags.interactive === true,
    stdinOnce: flags.interactive === true && attached.has('stdin'),
    autoRemove: flags.rm === true,
    workingDir: flags.workdir ?? '',
    hostname: flags.hostname ?? '',
    domainname: flags.domainname ?? '',
    name: flags.name ?? '',
    machine: flags.machine ?? '',
    labels: labels(flags.label, flags.labelFile),
    stopSignal: flags.stopSignal ?? '',
    platform: flags.platform ?? '',
    idempotencyKey: randomUUID(),
    host: hostRequest(flags),
    life: lifeOptions(flags),
    mounts: mounts(flags),
    expose: [...(flags.expose ?? [])],
    volumesFrom: [...(flags.volumesFrom ?? [])],
    ...(stopTimeoutMs === undefined ? {} : { stopTimeoutMs }),
    ...(flags.entrypoint === undefined
      ? {}
      : { entrypoint: { argv: flags.entrypoint === '' ? [] : [flags.entrypoint] } }),
    ...(flags.user === undefined ? {} : { user: flags.user }),
  };
}

export type StandardStream = 'stdin' | 'stdout' | 'stderr';

/** Those that the client stays with: what `-a` names; without it all, and with `-d` none. Throws `CliError`. */
export function attachedStreams({
  attach,
  detach,
}: Pick<CreateFlags, 'attach' | 'detach'>): ReadonlySet<StandardStream> {
  if (attach === undefined) return new Set(detach === true ? [] : ['stdin', 'stdout', 'stderr']);
  if (detach === true) throw new CliError('-a and -d exclude each other');
  return new Set(
    attach.map((text) => {
      const name = text.toLowerCase();
      if (name === 'stdin' || name === 'stdout' || name === 'stderr') return name;
      throw new CliError(`-a ${JSON.stringify(text)}: there are stdin, stdout and stderr`);
    }),
  );
}

function hostRequest(flags: CreateFlags): HostOptionsJson {
  return {
    limits: limitsRequest(flags),
    privileged: flags.privileged === true,
    capAdd: [...(flags.capAdd ?? [])],
    capDrop: [...(flags.capDrop ?? [])],
    securityOpt: [...(flags.securityOpt ?? [])],
    readOnlyRoot: flags.readOnly === true,
    tmpfs: Object.fromEntries((flags.tmpfs ?? []).map(splitAt(':'))),
    shmBytes: flags.shmSize === undefined ? '0' : String(sizeBytes('--shm-size', flags.shmSize)),
    ulimits: (flags.ulimit ?? []).map(ulimit),
    sysctls: Object.fromEntries((flags.sysctl ?? []).map(splitAt('='))),
    groupAdd: [...(flags.groupAdd ?? [])],
    init: flags.init === true,
    oomScoreAdj: flags.oomScoreAdj === undefined ? 0 : wholeNumber('--oom-score-adj', flags.oomScoreAdj),
    pidMode: flags.pid ?? '',
    ipcMode: flags.ipc ?? '',
    utsMode: flags.uts ?? '',
    ...networkOptions(flags),
    publish: [...(flags.publish ?? [])],
    publishAll: flags.publishAll === true,
    extraHosts: [...(flags.addHost ?? [])],
    dns: [...(flags.dns ?? [])],
    dnsSearch: [...(flags.dnsSearch ?? [])],
    dnsOptions: [...(flags.dnsOption ?? []), ...(flags.dnsOpt ?? [])],
  };
}

function splitAt(separator: string): (text: string) => [string, string] {
  return (text) => {
    const at = text.indexOf(separator);
    return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
  };
}

/** `nofile=1024`, `nofile=1024:2048`; -1 is no limit. */
function ulimit(text: string): UlimitJson {
  const match = /^([a-z]+)=(-1|\d+)(?::(-1|\d+))?$/.exec(text);
  if (match === null)
    throw new CliError(`--ulimit ${JSON.stringify(text)} is not of the form NAME=SOFT[:HARD]`);
  const [, name = '', soft = ''] = match;
  return { name, soft, hard: match[3] ?? soft };
}
