/** How a container runs on its machine: limits, privileges, mounts of its own. As the user asked for it, checked once. */
import { isIP } from 'node:net';
import { EngineError } from '../errors.ts';
import { HOSTNAME_LENGTH_MAX, MEMORY_LIMIT_BYTES_MIN, OPTION_ENTRIES_MAX } from '../limits.ts';
import { portMappings } from '../network/port-bindings.ts';
import { formatSize } from '../size.ts';
import { capabilitySet } from './capabilities.ts';

/** What may be used of the machine; absent: no limit. Can be changed while the container runs. */
export interface ResourceLimits {
  readonly memoryBytes?: number;
  /** Memory and swap together; -1: as much swap as there is. */
  readonly memorySwapBytes?: number;
  /** Kept for it when memory is short. */
  readonly memoryReservationBytes?: number;
  /** Billionths of a CPU; not together with quota and period. */
  readonly nanoCpus?: number;
  /** Microseconds of CPU time in each period. */
  readonly cpuQuotaUs?: number;
  readonly cpuPeriodUs?: number;
  /** Relative to other containers; 1024 is usual. */
  readonly cpuShares?: number;
  /** `0-2,4`. */
  readonly cpusetCpus?: string;
  readonly cpusetMems?: string;
  /** -1: no limit, also where there was one. */
  readonly pidsMax?: number;
  /** Share of the machine's disks when they are busy; a container without one has 100. */
  readonly blkioWeight?: number;
}

export interface Ulimit {
  /** As in `nofile`. */
  readonly name: string;
  readonly soft: number;
  readonly hard: number;
}

/** A container's place in a network besides its first one; what is empty is chosen for it. */
export interface NetworkJoin {
  readonly network: string;
  readonly address: string;
  readonly address6: string;
  readonly mac: string;
  readonly aliases: readonly string[];
}

export interface HostOptions {
  readonly limits: ResourceLimits;
  readonly privileged: boolean;
  readonly capAdd: readonly string[];
  readonly capDrop: readonly string[];
  /** `seccomp=unconfined`, `no-new-privileges`. */
  readonly securityOpt: readonly string[];
  readonly readOnlyRoot: boolean;
  /** Mount options, comma-separated, by path. */
  readonly tmpfs: Readonly<Record<string, string>>;
  /** Of /dev/shm; 0: the default. */
  readonly shmBytes: number;
  readonly ulimits: readonly Ulimit[];
  readonly sysctls: Readonly<Record<string, string>>;
  /** Further groups of the container's user, names or numbers. */
  readonly groupAdd: readonly string[];
  /** A process 1 that reaps orphans and passes signals on. */
  readonly init: boolean;
  readonly oomScoreAdj: number;
  /** Empty: its own; `host`: the machine's; `container:ID`. */
  readonly pidMode: string;
  /** Empty or `private`, `shareable`, `none`, `host`, `container:ID`. */
  readonly ipcMode: string;
  /** Empty: its own; `host`: the machine's. */
  readonly utsMode: string;
  /** Empty: `bridge`; `none`, `host`, `container:ID`, or a network. */
  readonly networkMode: string;
  /** In the network that `networkMode` names; empty: the next free one. */
  readonly ipAddress: string;
  /** Likewise, of a network that has IPv6. */
  readonly ip6Address: string;
  /** Empty: one that follows from the address. */
  readonly macAddress: string;
  /** Further names of the container in that network. */
  readonly networkAliases: readonly string[];
  /** Networks that it is in besides, in the order of its interfaces. */
  readonly networks: readonly NetworkJoin[];
  /** Ports of the host that lead to it: `8080:80`, `127.0.0.1::53/udp`. */
  readonly publish: readonly string[];
  /** All that it exposes was published; those ports are in `publish`. */
  readonly publishAll: boolean;
  /** `NAME:ADDRESS`. */
  readonly extraHosts: readonly string[];
  readonly dns: readonly string[];
  readonly dnsSearch: readonly string[];
  readonly dnsOptions: readonly string[];
}

export const DEFAULT_HOST_OPTIONS: HostOptions = {
  limits: {},
  privileged: false,
  capAdd: [],
  capDrop: [],
  securityOpt: [],
  readOnlyRoot: false,
  tmpfs: {},
  shmBytes: 0,
  ulimits: [],
  sysctls: {},
  groupAdd: [],
  init: false,
  oomScoreAdj: 0,
  pidMode: '',
  ipcMode: '',
  utsMode: '',
  networkMode: '',
  ipAddress: '',
  ip6Address: '',
  macAddress: '',
  networkAliases: [],
  networks: [],
  publish: [],
  publishAll: false,
  extraHosts: [],
  dns: [],
  dnsSearch: [],
  dnsOptions: [],
};

/** Stands for the address at which the host is reached, in `--add-host`. */
export const HOST_GATEWAY = 'host-gateway';

/** RLIMIT_* by the names that docker's `--ulimit` has. */
export const ULIMIT_NUMBERS: Readonly<Record<string, number>> = {
  cpu: 0,
  fsize: 1,
  data: 2,
  stack: 3,
  core: 4,
  rss: 5,
  nproc: 6,
  nofile: 7,
  memlock: 8,
  as: 9,
  locks: 10,
  sigpending: 11,
  msgqueue: 12,
  nice: 13,
  rtprio: 14,
  rttime: 15,
};

const CPU_PERIOD_US = { min: 1000, max: 1_000_000 };
const CPU_SHARES = { min: 2, max: 262_144 };
const BLKIO_WEIGHT = { min: 10, max: 1000 };
const CPU_QUOTA_US_MIN = 1000;
const NANO_CPUS_MIN = 10_000_000;
const OOM_SCORE_ADJ_MAX = 1000;
const CPU_LIST = /^\d+(-\d+)?(,\d+(-\d+)?)*$/;
/** Sysctls that belong to a namespace of the container's own, so that no other container feels them. */
const SYSCTL = {
  ipc: /^(kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\..+)$/,
  net: /^net\..+$/,
};
const TMPFS_OPTION =
  /^(rw|ro|exec|noexec|suid|nosuid|dev|nodev|sync|async|dirsync|(no)?atime|(no)?diratime|(no)?relatime|(no)?strictatime|size=\d+[kmg%]?|mode=[0-7]{1,5}|uid=\d+|gid=\d+|nr_inodes=\d+[kmg]?|nr_blocks=\d+[kmg]?)$/i;

const invalid = (message: string): never => {
  throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', message);
};

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT` naming what is wrong. */
export function checkHostOptions(options: Partial<HostOptions>): HostOptions {
  const checked: HostOptions = { ...DEFAULT_HOST_OPTIONS, ...options };
  for (const [name, value] of Object.entries(checked)) {
    const entries = Array.isArray(value) ? value.length : 0;
    if (entries > OPTION_ENTRIES_MAX)
      invalid(`${entries} entries of ${name}; the limit is ${OPTION_ENTRIES_MAX}`);
  }
  checkLimits(checked.limits);
  capabilitySet(checked.capAdd, checked.capDrop);
  for (const option of checked.securityOpt) checkSecurityOption(option);
  for (const [path, mountOptions] of Object.entries(checked.tmpfs)) checkTmpfs(path, mountOptions);
  if (checked.shmBytes < 0) invalid('the size of /dev/shm cannot be negative');
  for (const { name, soft, hard } of checked.ulimits) {
    if (ULIMIT_NUMBERS[name] === undefined)
      invalid(`${JSON.stringify(name)} is no ulimit; there are ${Object.keys(ULIMIT_NUMBERS).join(', ')}`);
    if (hard >= 0 && (soft < 0 || soft > hard))
      invalid(`the soft limit of ${name}, ${soft}, is above the hard one, ${hard}`);
  }
  if (Math.abs(checked.oomScoreAdj) > OOM_SCORE_ADJ_MAX)
    invalid(`the OOM score adjustment ${checked.oomScoreAdj} is not between -1000 and 1000`);
  checkMode('--pid', checked.pidMode, ['host']);
  checkMode('--ipc', checked.ipcMode, ['private', 'shareable', 'none', 'host']);
  if (checked.utsMode !== '' && checked.utsMode !== 'host')
    invalid(`${JSON.stringify(checked.utsMode)} is no mode of --uts; there is host`);
  const joinsNothing =
    ['none', 'host'].includes(checked.networkMode) || containerOfMode(checked.networkMode) !== undefined;
  const { ipAddress, ip6Address, macAddress, networkAliases } = checked;
  if (joinsNothing && ipAddress + ip6Address + macAddress + networkAliases.join('') !== '')
    invalid(
      `an address or alias was given, but with the network ${checked.networkMode} the container is in none`,
    );
  portMappings(checked.publish);
  if (joinsNothing && checked.publish.length > 0)
    invalid(`a port was published, but with the network ${checked.networkMode} the container is in none`);
  checkNetworks(checked, joinsNothing);
  for (const name of Object.keys(checked.sysctls)) checkSysctl(name, checked);
  for (const entry of checked.extraHosts) {
    const [name = '', address = ''] = splitHost(entry);
    if (!isHostname(name) || (isIP(address) === 0 && address !== HOST_GATEWAY))
      invalid(`${JSON.stringify(entry)} is not of the form NAME:ADDRESS`);
  }
  for (const address of checked.dns)
    if (isIP(address) === 0) invalid(`${JSON.stringify(address)} is not the address of a name server`);
  for (const text of [...checked.dnsSearch, ...checked.dnsOptions]) {
    if (!/^[\w.:-]+$/.test(text)) invalid(`${JSON.stringify(text)} cannot be in /etc/resolv.conf`);
  }
  return checked;
}

/** What further networks say of addresses, networks themselves check. */
function checkNetworks({ networkMode, networkAliases, networks }: HostOptions, joinsNothing: boolean): void {
  if (joinsNothing && networks.length > 0)
    invalid(
      `with the network ${networkMode} a container is in no other; leave ${networks[0]?.network} out, or ${networkMode}`,
    );
  for (const { network } of networks)
    if (['', 'none', 'host'].includes(network) || containerOfMode(network) !== undefined)
      invalid(`${JSON.stringify(network)} cannot be joined besides another network`);
  for (const alias of [...networkAliases, ...networks.flatMap(({ aliases }) => aliases)])
    if (!isHostname(alias)) invalid(`the network alias ${JSON.stringify(alias)} is not a host name`);
}

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
export function checkLimits(limits: ResourceLimits): void {
  const {
    memoryBytes,
    memorySwapBytes,
    memoryReservationBytes,
    nanoCpus,
    cpuQuotaUs,
    cpuPeriodUs,
    cpuShares,
    pidsMax,
    blkioWeight,
  } = limits;
  const whole: readonly [string, number | undefined, number, number][] = [
    ['CPU shares', cpuShares, CPU_SHARES.min, CPU_SHARES.max],
    ['the CPU period in µs', cpuPeriodUs, CPU_PERIOD_US.min, CPU_PERIOD_US.max],
    ['the CPU quota in µs', cpuQuotaUs, CPU_QUOTA_US_MIN, Number.MAX_SAFE_INTEGER],
    ['the number of CPUs, in billionths,', nanoCpus, NANO_CPUS_MIN, Number.MAX_SAFE_INTEGER],
    ['the weight of block I/O', blkioWeight, BLKIO_WEIGHT.min, BLKIO_WEIGHT.max],
    ['the limit of processes', pidsMax === -1 ? undefined : pidsMax, 1, Number.MAX_SAFE_INTEGER],
  ];
  for (const [name, value, min, max] of whole) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= min && value <= max))
      invalid(
        `${name} is ${value}; it must be a whole number from ${min}${max === Number.MAX_SAFE_INTEGER ? ' on' : ` to ${max}`}`,
      );
  }
  if (nanoCpus !== undefined && (cpuQuotaUs !== undefined || cpuPeriodUs !== undefined))
    invalid('a number of CPUs and a CPU quota or period say the same thing twice; leave one out');
  if (memoryBytes !== undefined && !(memoryBytes >= MEMORY_LIMIT_BYTES_MIN))
    invalid(
      `the memory limit ${formatSize(memoryBytes)} is below the least, ${formatSize(MEMORY_LIMIT_BYTES_MIN)}`,
    );
  if (memorySwapBytes !== undefined && memorySwapBytes !== -1) {
    if (memoryBytes === undefined) invalid('a limit of memory and swap needs a memory limit as well');
    else if (memorySwapBytes < memoryBytes)
      invalid('the limit of memory and swap together is below the memory limit');
  }
  if (memoryReservationBytes !== undefined) {
    if (memoryReservationBytes < MEMORY_LIMIT_BYTES_MIN)
      invalid(
        `the memory reservation ${formatSize(memoryReservationBytes)} is below the least, ${formatSize(MEMORY_LIMIT_BYTES_MIN)}`,
      );
    if (memoryBytes !== undefined && memoryReservationBytes > memoryBytes)
      invalid('the memory reservation is above the memory limit');
  }
  for (const list of [limits.cpusetCpus, limits.cpusetMems]) {
    if (list !== undefined && !CPU_LIST.test(list))
      invalid(`${JSON.stringify(list)} is no list such as 0-2,4`);
  }
}

/** The capabilities that its processes have. */
export function capabilitiesOf({ capAdd, capDrop, privileged }: HostOptions): string[] {
  return capabilitySet(privileged ? ['ALL'] : capAdd, privileged ? [] : capDrop);
}

export function isSeccompUnconfined({ securityOpt, privileged }: HostOptions): boolean {
  return privileged || securityOpt.some((option) => /^seccomp[=:]unconfined$/.test(option));
}

export function hasNoNewPrivileges({ securityOpt }: HostOptions): boolean {
  return securityOpt.some((option) => /^no-new-privileges([=:]true)?$/.test(option));
}

/** The container that a mode names, if it does. */
export function containerOfMode(mode: string): string | undefined {
  return mode.startsWith('container:') ? mode.slice('container:'.length) : undefined;
}

/** `NAME:ADDRESS`, where an IPv6 address has colons itself, also in brackets. */
export function splitHost(entry: string): [string, string] {
  const colon = entry.search(/[:=]/);
  return [entry.slice(0, Math.max(0, colon)), entry.slice(colon + 1).replace(/^\[(.*)\]$/, '$1')];
}

export function isHostname(text: string): boolean {
  return text.length <= HOSTNAME_LENGTH_MAX && /^[a-zA-Z0-9](?:[a-zA-Z0-9._-]*[a-zA-Z0-9])?$/.test(text);
}

function checkSecurityOption(option: string): void {
  if (
    /^seccomp[=:]unconfined$|^no-new-privileges([=:](true|false))?$|^(label|apparmor)[=:](disable|unconfined)$/.test(
      option,
    )
  )
    return;
  invalid(
    `the security option ${JSON.stringify(option)} is not supported; there are seccomp=unconfined and no-new-privileges`,
  );
}

function checkTmpfs(path: string, mountOptions: string): void {
  if (!path.startsWith('/') || path === '/' || path.includes('\0'))
    invalid(`${JSON.stringify(path)} is no path for a tmpfs`);
  for (const option of mountOptions.split(',')) {
    if (option !== '' && !TMPFS_OPTION.test(option))
      invalid(`${JSON.stringify(option)} is no mount option of a tmpfs`);
  }
}

function checkMode(flag: string, mode: string, known: readonly string[]): void {
  if (mode === '' || known.includes(mode) || (containerOfMode(mode) ?? '') !== '') return;
  invalid(`${JSON.stringify(mode)} is no mode of ${flag}; there are ${known.join(', ')} and container:NAME`);
}

function checkSysctl(name: string, { ipcMode }: HostOptions): void {
  if (SYSCTL.net.test(name)) return;
  if (SYSCTL.ipc.test(name)) {
    if (ipcMode === 'host') invalid(`the sysctl ${name} needs an IPC namespace of the container's own`);
    return;
  }
  invalid(
    `the sysctl ${JSON.stringify(name)} is not separate for each container; there are net.*, fs.mqueue.* and those of System V IPC`,
  );
}
