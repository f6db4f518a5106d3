/** The part of an OCI runtime configuration that says how much of the machine a container may use. */
import { type HostOptions, type ResourceLimits, ULIMIT_NUMBERS } from './host-options.ts';

const CPU_PERIOD_US_DEFAULT = 100_000;
const NANO = 1e9;
const UNLIMITED = -1;
const OPEN_FILES_MAX = 1024 * 1024;

/** [type, major, minor, access]; undefined: any. */
const DEVICES: readonly (readonly ['c' | 'b', number | undefined, number | undefined, string])[] = [
  ['c', undefined, undefined, 'm'],
  ['b', undefined, undefined, 'm'],
  ['c', 1, 3, 'rwm'], // null
  ['c', 1, 5, 'rwm'], // zero
  ['c', 1, 7, 'rwm'], // full
  ['c', 1, 8, 'rwm'], // random
  ['c', 1, 9, 'rwm'], // urandom
  ['c', 5, 0, 'rwm'], // tty
  ['c', 5, 1, 'rwm'], // console
  ['c', 5, 2, 'rwm'], // ptmx
  ['c', 136, undefined, 'rwm'], // pts
];

/** `linux.resources`. */
export function ociResources({ limits, privileged }: HostOptions): Record<string, unknown> {
  const devices = privileged
    ? [{ allow: true, access: 'rwm' }]
    : [
        { allow: false, access: 'rwm' },
        ...DEVICES.map(([type, major, minor, access]) => ({
          allow: true,
          type,
          ...(major === undefined ? {} : { major }),
          ...(minor === undefined ? {} : { minor }),
          access,
        })),
      ];
  return { devices, ...ociLimits(limits) };
}

/** The limits alone, as they are also changed in a running container. */
export function ociLimits(limits: ResourceLimits): Record<string, unknown> {
  const cpu = {
    ...(limits.cpuShares === undefined ? {} : { shares: limits.cpuShares }),
    ...cpuTime(limits),
    ...(limits.cpusetCpus === undefined ? {} : { cpus: limits.cpusetCpus }),
    ...(limits.cpusetMems === undefined ? {} : { mems: limits.cpusetMems }),
  };
  const memory = {
    ...(limits.memoryBytes === undefined ? {} : { limit: limits.memoryBytes }),
    ...(limits.memorySwapBytes === undefined ? {} : { swap: limits.memorySwapBytes }),
    ...(limits.memoryReservationBytes === undefined ? {} : { reservation: limits.memoryReservationBytes }),
  };
  return {
    ...(Object.keys(memory).length === 0 ? {} : { memory }),
    ...(Object.keys(cpu).length === 0 ? {} : { cpu }),
    ...(limits.pidsMax === undefined || limits.pidsMax === -1 ? {} : { pids: { limit: limits.pidsMax } }),
    ...(limits.blkioWeight === undefined ? {} : { blockIO: { weight: limits.blkioWeight } }),
  };
}

/** `process.rlimits`: what the user wants, and many open files. */
export function ociRlimits({ ulimits }: HostOptions): Record<string, unknown>[] {
  return effectiveUlimits(ulimits).map(({ name, soft, hard }) => ({
    type: `RLIMIT_${name.toUpperCase()}`,
    soft,
    hard,
  }));
}

/** The same for the agent, which takes numbers. */
export function agentRlimits({ ulimits }: HostOptions): { resource: number; soft: bigint; hard: bigint }[] {
  return effectiveUlimits(ulimits).map(({ name, soft, hard }) => ({
    resource: ULIMIT_NUMBERS[name] ?? 0,
    soft: BigInt.asUintN(64, BigInt(soft)),
    hard: BigInt.asUintN(64, BigInt(hard)),
  }));
}

function effectiveUlimits(ulimits: HostOptions['ulimits']): HostOptions['ulimits'] {
  const openFiles = { name: 'nofile', soft: OPEN_FILES_MAX, hard: OPEN_FILES_MAX };
  return ulimits.some(({ name }) => name === 'nofile') ? ulimits : [...ulimits, openFiles];
}

function cpuTime({ nanoCpus, cpuQuotaUs, cpuPeriodUs }: ResourceLimits): Record<string, number> {
  if (nanoCpus !== undefined) {
    return { quota: Math.round((nanoCpus / NANO) * CPU_PERIOD_US_DEFAULT), period: CPU_PERIOD_US_DEFAULT };
  }
  if (cpuQuotaUs === undefined && cpuPeriodUs === undefined) return {};
  return { quota: cpuQuotaUs ?? UNLIMITED, period: cpuPeriodUs ?? CPU_PERIOD_US_DEFAULT };
}
