/** What has to be right on a host, looked at: each finding with what to do about it. */
import { execFile } from 'node:child_process';
import { access, constants, readFile, statfs } from 'node:fs/promises';
import { promisify } from 'node:util';
import { type BootAssets, formatSize } from '@arcbox/engine';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { type DoctorCheckSchema, DoctorCheck_Status as Status } from './gen/arcbox/v1/system_pb.ts';

export type Check = MessageInitShape<typeof DoctorCheckSchema> & {
  readonly name: string;
  readonly status: Status;
};
export type Doctor = () => Promise<Check[]>;

/** Looks at one thing. */
export type Probe = () => Promise<{ status: 'ok' | 'warn' | 'fail'; detail: string; nextStep?: string }>;

const run = promisify(execFile);
const TMPFS_BYTES_MIN = 512 * 1024 ** 2;
/** Memory snapshots live there. */
const TMPFS = '/dev/shm';

/** Runs the probes side by side; one that throws has failed. */
export function createDoctor(probes: Readonly<Record<string, Probe>>): Doctor {
  return () =>
    Promise.all(
      Object.entries(probes).map(async ([name, probe]): Promise<Check> => {
        try {
          const { status, detail, nextStep = '' } = await probe();
          const codes = { ok: Status.OK, warn: Status.WARN, fail: Status.FAIL };
          return { name, status: codes[status], detail, nextStep };
        } catch (error) {
          return { name, status: Status.FAIL, detail: String(error), nextStep: 'see the daemon log' };
        }
      }),
    );
}

export function probeBootAssets(assets: BootAssets): Probe {
  return async () => {
    for (const file of [assets.kernel, assets.initramfs]) await access(file, constants.R_OK);
    return { status: 'ok', detail: `${assets.directory} (${assets.hash}, ${assets.architecture})` };
  };
}

export function probeQemu(program: string): Probe {
  return async () => {
    try {
      const { stdout } = await run(program, ['--version']);
      return { status: 'ok', detail: stdout.split('\n')[0] ?? '' };
    } catch {
      return {
        status: 'fail',
        detail: `${program} does not run`,
        nextStep: 'apt-get install qemu-system-x86 (or run scripts/setup)',
      };
    }
  };
}

export const probeTmpfs: Probe = async () => {
  const { bsize, blocks, bavail } = await statfs(TMPFS);
  const detail = `${TMPFS} has ${formatSize(bsize * blocks)}, ${formatSize(bsize * bavail)} free`;
  if (bsize * bavail >= TMPFS_BYTES_MIN) return { status: 'ok', detail };
  return {
    status: 'warn',
    detail,
    nextStep: `memory snapshots need room there: mount -o remount,size=50% ${TMPFS}`,
  };
};

export function probeHome(home: string): Probe {
  return async () => {
    const { bsize, bavail } = await statfs(home);
    const detail = `${home} has ${formatSize(bsize * bavail)} free`;
    return bsize * bavail > 1024 ** 3
      ? { status: 'ok', detail }
      : { status: 'warn', detail, nextStep: 'free some space, or set ARCBOX_HOME to a larger file system' };
  };
}

export const probeMemory: Probe = async () => {
  const text = await readFile('/proc/meminfo', 'utf8');
  const available = Number(/^MemAvailable:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) * 1024;
  const detail = `${formatSize(available)} available`;
  return available > 1024 ** 3
    ? { status: 'ok', detail }
    : { status: 'warn', detail, nextStep: 'set machine.memory to less than that in config.toml' };
};
