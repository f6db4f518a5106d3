/** The part of an OCI runtime configuration that says what a container sees besides its root. */
import type { ContainerPaths } from '../machine/guest-layout.ts';
import { TINI } from '../machine/guest-layout.ts';
import type { HostOptions } from './host-options.ts';

const SHM_BYTES_DEFAULT = 64 * 1024 * 1024;
const TMPFS_DEFAULTS = ['nosuid', 'nodev', 'noexec'];
/** Where process 1 is, for a container with `--init`. */
export const INIT_PATH = '/sbin/docker-init';

const MASKED_PATHS = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
];
const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

export function ociMounts(host: HostOptions, paths: ContainerPaths): OciMount[] {
  const bind = (source: string, destination: string, ...options: string[]): OciMount => ({
    destination,
    type: 'bind',
    source,
    options: ['bind', 'rprivate', ...options],
  });
  const access = host.privileged ? 'rw' : 'ro';
  const mounts: OciMount[] = [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
    },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', access] },
    {
      destination: '/sys/fs/cgroup',
      type: 'cgroup',
      source: 'cgroup',
      options: [access, 'nosuid', 'noexec', 'nodev'],
    },
    {
      destination: '/dev/mqueue',
      type: 'mqueue',
      source: 'mqueue',
      options: ['nosuid', 'noexec', 'nodev'],
    },
    ...sharedMemory(host, paths, bind),
    bind(`${paths.bundle}/resolv.conf`, '/etc/resolv.conf'),
    bind(`${paths.bundle}/hostname`, '/etc/hostname'),
    bind(`${paths.bundle}/hosts`, '/etc/hosts'),
    ...(host.init ? [bind(TINI, INIT_PATH, 'ro')] : []),
    ...Object.entries(host.tmpfs).map(([destination, options]) => tmpfs(destination, options)),
  ];
  // Where the user wants a tmpfs, ours of the same place is not wanted.
  const last = new Map(mounts.map((mount, index) => [mount.destination, index]));
  return mounts.filter(({ destination }, index) => last.get(destination) === index);
}

export function hiddenPaths({ privileged }: HostOptions): {
  maskedPaths?: string[];
  readonlyPaths?: string[];
} {
  return privileged ? {} : { maskedPaths: MASKED_PATHS, readonlyPaths: READONLY_PATHS };
}

/** Of /dev/shm, in bytes. */
export function shmBytes({ shmBytes: wanted }: HostOptions): number {
  return wanted === 0 ? SHM_BYTES_DEFAULT : wanted;
}

/** Whether /dev/shm is a mount of the machine's, which others can join. */
export function isShmShared({ ipcMode }: HostOptions): boolean {
  return ipcMode === 'shareable';
}

function sharedMemory(
  host: HostOptions,
  paths: ContainerPaths,
  bind: (source: string, destination: string, ...options: string[]) => OciMount,
): OciMount[] {
  const { ipcMode } = host;
  if (ipcMode === 'none') return [];
  if (ipcMode === 'host') return [bind('/dev/shm', '/dev/shm')];
  if (isShmShared(host) || ipcMode.startsWith('container:')) return [bind(paths.shm, '/dev/shm')];
  return [
    {
      destination: '/dev/shm',
      type: 'tmpfs',
      source: 'shm',
      options: ['nosuid', 'noexec', 'nodev', 'mode=1777', `size=${shmBytes(host)}`],
    },
  ];
}

function tmpfs(destination: string, text: string): OciMount {
  const options = text.split(',').filter((option) => option !== '');
  const sizes = options.map((option) => option.toLowerCase());
  return {
    destination,
    type: 'tmpfs',
    source: 'tmpfs',
    // As docker: more is forbidden than asked for, unless the opposite is asked for.
    options: [...TMPFS_DEFAULTS.filter((option) => !sizes.includes(option.slice(2))), ...sizes],
  };
}
