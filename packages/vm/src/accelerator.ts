/** Which accelerator to use: found out by running a guest (native/kvm-probe.c), never by looking at /dev/kvm. */
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import { promisify } from 'node:util';
import { reasonOf, VmError } from './errors.ts';
import type { Accelerator } from './qemu/machine-types.ts';

export interface AcceleratorChoice {
  readonly accelerator: Accelerator;
  /** A sentence for people. */
  readonly reason: string;
  /** Rate of the host's time-stamp counter, which an emulated guest reads; `undefined` where there is none. */
  readonly tscKhz: number | undefined;
}

/** What kvm-probe says. */
export interface KvmProbe {
  readonly ok: boolean;
  readonly reason: string;
  /** 0 when /dev/kvm did not get that far. */
  readonly apiVersion: number;
  readonly ms: number;
  /** 0 where there is no time-stamp counter. */
  readonly tscKhz: number;
}

export interface ProbeOptions {
  /** Path of the program. */
  readonly kvmProbe: string;
  /** A file of ours that keeps the answer for as long as the host and the program are the same. */
  readonly cachePath?: string;
  /** By default this process's; `ARCBOX_ACCEL` overrides the probe. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly platform?: NodeJS.Platform;
}

/** The probe has a limit of 3 s of its own. */
const PROBE_TIMEOUT_MS = 10_000;
const ACCELERATORS: readonly Accelerator[] = ['kvm', 'hvf', 'tcg'];

/** @throws {VmError} `ERR_ARCBOX_VM_CONFIG` when `ARCBOX_ACCEL` is no accelerator. */
export async function probeAccelerator(options: ProbeOptions): Promise<AcceleratorChoice> {
  const { kvmProbe, cachePath, env = process.env, platform = process.platform } = options;
  const wanted = env.ARCBOX_ACCEL ?? '';
  const override = ACCELERATORS.find((name) => name === wanted);
  if (wanted !== '' && override === undefined) {
    throw new VmError(
      'ERR_ARCBOX_VM_CONFIG',
      `ARCBOX_ACCEL is ${wanted}; it can be ${ACCELERATORS.join(', ')}`,
    );
  }
  if (platform === 'darwin') {
    return {
      accelerator: override ?? 'hvf',
      reason: override ? 'ARCBOX_ACCEL says so' : 'this is macOS',
      tscKhz: undefined,
    };
  }
  const probe = await probeKvm(kvmProbe, cachePath);
  const tscKhz = probe.tscKhz === 0 ? undefined : probe.tscKhz;
  if (override !== undefined) return { accelerator: override, reason: 'ARCBOX_ACCEL says so', tscKhz };
  return probe.ok
    ? { accelerator: 'kvm', reason: probe.reason, tscKhz }
    : { accelerator: 'tcg', reason: `KVM is not usable here: ${probe.reason}`, tscKhz };
}

/**
 * Runs the probe, or reads what it said on this boot of the host. A probe that cannot be run is one that failed.
 */
export async function probeKvm(kvmProbe: string, cachePath?: string): Promise<KvmProbe> {
  const key = cacheKey(kvmProbe);
  const cached = cachePath === undefined ? undefined : readCache(cachePath, key);
  if (cached !== undefined) return cached;
  let stdout: string;
  let probe: KvmProbe;
  try {
    ({ stdout } = await promisify(execFile)(kvmProbe, [], { timeout: PROBE_TIMEOUT_MS }));
    probe = parseProbe(stdout);
  } catch (error) {
    return {
      ok: false,
      reason: `the probe ${kvmProbe} failed: ${reasonOf(error)}`,
      apiVersion: 0,
      ms: 0,
      tscKhz: 0,
    };
  }
  if (cachePath !== undefined) {
    try {
      fs.writeFileSync(cachePath, JSON.stringify({ key, line: stdout }));
    } catch {
      // The answer is right without being kept: the next start asks again.
    }
  }
  return probe;
}

/** @throws {Error} when it is not what the probe prints. */
export function parseProbe(line: string): KvmProbe {
  const value: unknown = JSON.parse(line);
  if (typeof value !== 'object' || value === null) throw new Error('the probe printed no object');
  const { ok, reason, api_version, ms, tsc_khz } = value as Record<string, unknown>;
  if (
    typeof ok !== 'boolean' ||
    typeof reason !== 'string' ||
    typeof api_version !== 'number' ||
    typeof ms !== 'number' ||
    typeof tsc_khz !== 'number'
  ) {
    throw new Error('the probe printed an object of another shape');
  }
  return { ok, reason, apiVersion: api_version, ms, tscKhz: tsc_khz };
}

/** Changes with every boot, with the program, and with who may open the device. */
function cacheKey(kvmProbe: string): string {
  const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  const program = fs.statSync(kvmProbe, { throwIfNoEntry: false });
  const device = fs.statSync('/dev/kvm', { throwIfNoEntry: false });
  return [
    boot,
    program?.ino,
    program?.mtimeMs,
    device?.mode,
    device?.uid,
    device?.gid,
    process.getuid?.(),
  ].join(' ');
}

/** A cache that cannot be read, or is another's, is none. */
function readCache(cachePath: string, key: string): KvmProbe | undefined {
  try {
    const cached: { key?: unknown; line?: unknown } = JSON.parse(fs.readFileSync(cachePath, 'utf8'));
    return cached.key === key && typeof cached.line === 'string' ? parseProbe(cached.line) : undefined;
  } catch {
    return undefined;
  }
}
