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
}

/** What kvm-probe says. */
export interface KvmProbe {
  readonly ok: boolean;
  readonly reason: string;
  /** 0 when /dev/kvm did not get that far. */
  readonly apiVersion: number;
  readonly ms: number;
}

export interface ProbeOptions {
  /** Path of the program. */
  readonly kvmProbe: string;
  /** By default this process's; `ARCBOX_ACCEL` overrides the probe. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly platform?: NodeJS.Platform;
}

/** The probe has a limit of 3 s of its own. */
const PROBE_TIMEOUT_MS = 10_000;
const ACCELERATORS: readonly Accelerator[] = ['kvm', 'hvf', 'tcg'];

/** One probe of each program for each boot of the host. */
const probes = new Map<string, Promise<KvmProbe>>();

/** @throws {VmError} `ERR_ARCBOX_VM_CONFIG` when `ARCBOX_ACCEL` is no accelerator. */
export async function probeAccelerator(options: ProbeOptions): Promise<AcceleratorChoice> {
  const { kvmProbe, env = process.env, platform = process.platform } = options;
  const wanted = env.ARCBOX_ACCEL;
  if (wanted !== undefined && wanted !== '') {
    const accelerator = ACCELERATORS.find((name) => name === wanted);
    if (accelerator !== undefined) return { accelerator, reason: `ARCBOX_ACCEL says so` };
    throw new VmError(
      'ERR_ARCBOX_VM_CONFIG',
      `ARCBOX_ACCEL is ${wanted}; it can be ${ACCELERATORS.join(', ')}`,
    );
  }
  if (platform === 'darwin') return { accelerator: 'hvf', reason: 'this is macOS' };
  const { ok, reason } = await probeKvm(kvmProbe);
  return ok
    ? { accelerator: 'kvm', reason }
    : { accelerator: 'tcg', reason: `KVM is not usable here: ${reason}` };
}

/** Runs the probe, once for each boot of the host. A probe that cannot be run is one that failed. */
export function probeKvm(kvmProbe: string): Promise<KvmProbe> {
  const key = `${fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()} ${kvmProbe}`;
  const known = probes.get(key);
  if (known !== undefined) return known;
  const probe = runProbe(kvmProbe);
  probes.set(key, probe);
  return probe;
}

async function runProbe(kvmProbe: string): Promise<KvmProbe> {
  try {
    const { stdout } = await promisify(execFile)(kvmProbe, [], { timeout: PROBE_TIMEOUT_MS });
    return parseProbe(stdout);
  } catch (error) {
    return { ok: false, reason: `the probe ${kvmProbe} failed: ${reasonOf(error)}`, apiVersion: 0, ms: 0 };
  }
}

/** Exported for tests. */
export function parseProbe(line: string): KvmProbe {
  const value: unknown = JSON.parse(line);
  if (typeof value !== 'object' || value === null) throw new Error('the probe printed no object');
  const { ok, reason, api_version, ms } = value as Record<string, unknown>;
  if (
    typeof ok !== 'boolean' ||
    typeof reason !== 'string' ||
    typeof api_version !== 'number' ||
    typeof ms !== 'number'
  ) {
    throw new Error('the probe printed an object of another shape');
  }
  return { ok, reason, apiVersion: api_version, ms };
}
