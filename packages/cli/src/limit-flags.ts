/** Limits on the command line, for `run`, `create` and `update`. */
import type { ResourceLimitsJson } from '@arcbox/api/client';
import { CliError } from './errors.ts';
import { parseSize } from './size.ts';

const NANO = 1e9;

export interface LimitFlags {
  readonly memory?: string;
  readonly memorySwap?: string;
  readonly memoryReservation?: string;
  readonly cpus?: string;
  readonly cpuQuota?: string;
  readonly cpuPeriod?: string;
  readonly cpuShares?: string;
  readonly cpusetCpus?: string;
  readonly cpusetMems?: string;
  readonly pidsLimit?: string;
  readonly blkioWeight?: string;
}

export function limitsRequest(flags: LimitFlags): ResourceLimitsJson {
  const entries: Record<string, string | number | undefined> = {
    memoryBytes: size('--memory', flags.memory),
    memorySwapBytes: flags.memorySwap === '-1' ? '-1' : size('--memory-swap', flags.memorySwap),
    memoryReservationBytes: size('--memory-reservation', flags.memoryReservation),
    nanoCpus: cpus(flags.cpus),
    cpuQuotaUs: positive('--cpu-quota', flags.cpuQuota),
    cpuPeriodUs: positive('--cpu-period', flags.cpuPeriod),
    cpuShares:
      flags.cpuShares === undefined ? undefined : wholeNumber('--cpu-shares', flags.cpuShares) || undefined,
    cpusetCpus: flags.cpusetCpus || undefined,
    cpusetMems: flags.cpusetMems || undefined,
    blkioWeight:
      flags.blkioWeight === undefined
        ? undefined
        : wholeNumber('--blkio-weight', flags.blkioWeight) || undefined,
    pidsMax: flags.pidsLimit === undefined ? undefined : pids(flags.pidsLimit),
  };
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined));
}

/** Throws `CliError`. */
export function sizeBytes(flag: string, text: string): number {
  const bytes = parseSize(text);
  if (bytes !== undefined) return bytes;
  throw new CliError(`${flag}: ${JSON.stringify(text)} is not a size such as 64m or 1g`);
}

export function wholeNumber(flag: string, text: string): number {
  const value = Number(text);
  if (/^-?\d+$/.test(text) && Number.isSafeInteger(value)) return value;
  throw new CliError(`${flag}: ${JSON.stringify(text)} is not a whole number`);
}

/** What docker writes as -1: as long as it takes. A timer of Node cannot be longer. */
export const NO_TIMEOUT_MS = 2_147_483_647;

/** From seconds; -1: for ever. */
export function stopDurationMs(flag: string, text: string): number {
  if (text === '-1') return NO_TIMEOUT_MS;
  const seconds = Number(text);
  if (text !== '' && Number.isFinite(seconds) && seconds >= 0) return Math.round(seconds * 1000);
  throw new CliError(`${flag}: ${JSON.stringify(text)} is not a number of seconds`);
}

/** As docker: 0 says that there is no limit. */
function size(flag: string, text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const bytes = sizeBytes(flag, text);
  return bytes === 0 ? undefined : String(bytes);
}

function positive(flag: string, text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const value = wholeNumber(flag, text);
  return value === 0 ? undefined : String(value);
}

/** As docker: 0 and -1 say that there is no limit, also where there was one. */
function pids(text: string): string {
  const value = wholeNumber('--pids-limit', text);
  return value === 0 ? '-1' : String(value);
}

function cpus(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text === '' || !Number.isFinite(value) || value < 0)
    throw new CliError(`--cpus: ${JSON.stringify(text)} is not a number of CPUs such as 1.5`);
  return value === 0 ? undefined : String(Math.round(value * NANO));
}
