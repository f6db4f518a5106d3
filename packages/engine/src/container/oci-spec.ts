/**
 * The OCI runtime configuration (runtime-spec 1.0) of a container: Docker's defaults, so that what runs there runs here.
 */
import { CGROUP_PARENT, type ContainerPaths } from '../machine/guest-layout.ts';
import type { ContainerConfig } from './container-record.ts';
import type { ResolvedUser } from './user.ts';

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Docker's default set. */
const CAPABILITIES = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
] as const;

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

const SHM_BYTES = 64 * 1024 * 1024;
const OPEN_FILES_MAX = 1024 * 1024;

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

export interface SpecInput {
  readonly id: string;
  readonly config: ContainerConfig;
  readonly user: ResolvedUser;
  readonly paths: ContainerPaths;
  readonly seccompBase64: string;
  readonly terminalSize: TerminalSize | undefined;
}

/** `config.json` of the bundle, as a plain object. */
export function ociSpec(input: SpecInput): Record<string, unknown> {
  const { config, user, paths } = input;
  const bind = (name: string): Record<string, unknown> => ({
    destination: `/etc/${name}`,
    type: 'bind',
    source: `${paths.bundle}/${name}`,
    options: ['bind', 'rprivate'],
  });
  return {
    ociVersion: '1.0.2',
    hostname: config.hostname,
    root: { path: paths.rootfs, readonly: false },
    process: {
      terminal: config.tty,
      ...(config.tty && input.terminalSize !== undefined
        ? { consoleSize: { height: input.terminalSize.rows, width: input.terminalSize.columns } }
        : {}),
      args: config.argv,
      env: containerEnvironment(config, user),
      cwd: config.workingDir,
      user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
      capabilities: {
        bounding: CAPABILITIES,
        permitted: CAPABILITIES,
        effective: CAPABILITIES,
      },
      rlimits: [{ type: 'RLIMIT_NOFILE', soft: OPEN_FILES_MAX, hard: OPEN_FILES_MAX }],
      oomScoreAdj: 0,
      noNewPrivileges: false,
    },
    mounts: [
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
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
      {
        destination: '/sys/fs/cgroup',
        type: 'cgroup',
        source: 'cgroup',
        options: ['ro', 'nosuid', 'noexec', 'nodev'],
      },
      {
        destination: '/dev/mqueue',
        type: 'mqueue',
        source: 'mqueue',
        options: ['nosuid', 'noexec', 'nodev'],
      },
      {
        destination: '/dev/shm',
        type: 'tmpfs',
        source: 'shm',
        options: ['nosuid', 'noexec', 'nodev', 'mode=1777', `size=${SHM_BYTES}`],
      },
      bind('resolv.conf'),
      bind('hostname'),
      bind('hosts'),
    ],
    annotations: { 'run.oci.seccomp_bpf_data': input.seccompBase64 },
    linux: {
      namespaces: ['pid', 'network', 'ipc', 'uts', 'mount', 'cgroup'].map((type) => ({ type })),
      cgroupsPath: `${CGROUP_PARENT}/${input.id}`,
      resources: {
        devices: [
          { allow: false, access: 'rwm' },
          ...DEVICES.map(([type, major, minor, access]) => ({
            allow: true,
            type,
            ...(major === undefined ? {} : { major }),
            ...(minor === undefined ? {} : { minor }),
            access,
          })),
        ],
        ...(config.memoryBytes === undefined ? {} : { memory: { limit: config.memoryBytes } }),
      },
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READONLY_PATHS,
    },
  };
}

/** Docker's order: PATH, HOSTNAME, TERM, then the image's and the user's, then HOME when nobody said it. */
export function containerEnvironment(config: ContainerConfig, user: ResolvedUser): string[] {
  const variables = new Map<string, string>([
    ['PATH', DEFAULT_PATH],
    ['HOSTNAME', config.hostname],
  ]);
  if (config.tty) variables.set('TERM', 'xterm');
  for (const entry of config.env) {
    const equals = entry.indexOf('=');
    if (equals > 0) variables.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  if (!variables.has('HOME')) variables.set('HOME', user.home);
  return [...variables].map(([key, value]) => `${key}=${value}`);
}
