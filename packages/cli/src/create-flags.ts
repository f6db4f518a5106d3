/** What `run` and `create` take on the command line, and the request that it makes. */
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import type { CreateContainerRequestJson, HostOptionsJson, UlimitJson } from '@arcbox/api/client';
import { environment, labels } from './environment.ts';
import { CliError } from './errors.ts';
import { type LifeFlags, lifeOptions } from './life-flags.ts';
import { durationMs, type LimitFlags, limitsRequest, sizeBytes, wholeNumber } from './limit-flags.ts';
import { type MountFlags, mounts } from './mount-flags.ts';

export interface CreateFlags extends LimitFlags, LifeFlags, MountFlags {
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
  readonly network?: string;
  readonly networkAlias?: readonly string[];
  readonly ip?: string;
  readonly ip6?: string;
  readonly macAddress?: string;
  readonly publish?: readonly string[];
  readonly addHost?: readonly string[];
  readonly dns?: readonly string[];
  readonly dnsSearch?: readonly string[];
  readonly dnsOption?: readonly string[];
  readonly stopSignal?: string;
  readonly stopTimeout?: string;
  readonly platform?: string;
  readonly pull?: string;
  readonly quiet?: boolean;
  readonly cidfile?: string;
  readonly device?: readonly string[];
}

/** Throws `CliError` naming the flag that cannot be. */
export function createRequest(
  image: string,
  command: readonly string[],
  flags: CreateFlags,
): CreateContainerRequestJson {
  if (flags.device !== undefined)
    throw new CliError(
      '--device is not supported: a container has no devices of the host, which is another machine',
    );
  if (flags.cidfile !== undefined && existsSync(flags.cidfile))
    throw new CliError(`the file ${flags.cidfile} is there already; remove it, or name another one`);
  if (flags.cidfile === '') throw new CliError('--cidfile needs a path');
  const stopTimeoutMs =
    flags.stopTimeout === undefined ? undefined : durationMs('--stop-timeout', flags.stopTimeout);
  return {
    image,
    command: [...command],
    env: environment(flags.env, flags.envFile),
    tty: flags.tty === true,
    openStdin: flags.interactive === true,
    stdinOnce: flags.interactive === true && flags.detach !== true,
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
    ...(stopTimeoutMs === undefined ? {} : { stopTimeoutMs }),
    ...(flags.entrypoint === undefined
      ? {}
      : { entrypoint: { argv: flags.entrypoint === '' ? [] : [flags.entrypoint] } }),
    ...(flags.user === undefined ? {} : { user: flags.user }),
  };
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
    networkMode: flags.network ?? '',
    networkAliases: [...(flags.networkAlias ?? [])],
    ipAddress: flags.ip ?? '',
    ip6Address: flags.ip6 ?? '',
    macAddress: flags.macAddress ?? '',
    publish: [...(flags.publish ?? [])],
    extraHosts: [...(flags.addHost ?? [])],
    dns: [...(flags.dns ?? [])],
    dnsSearch: [...(flags.dnsSearch ?? [])],
    dnsOptions: [...(flags.dnsOption ?? [])],
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
