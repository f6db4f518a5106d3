/**
 * The OCI runtime configuration (runtime-spec 1.0) of a container: Docker's defaults, so that what runs there runs here.
 */
import { CGROUP_PARENT, type ContainerPaths } from '../machine/guest-layout.ts';
import type { ContainerConfig } from './container-record.ts';
import { capabilitiesOf, type HostOptions, hasNoNewPrivileges, isSeccompUnconfined } from './host-options.ts';
import { hiddenPaths, INIT_PATH, ociMounts } from './oci-mounts.ts';
import { ociResources, ociRlimits } from './oci-resources.ts';
import type { ResolvedUser } from './user.ts';

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

/** Processes of the machine whose namespaces are joined. */
export interface JoinedNamespaces {
  readonly pid?: number;
  readonly ipc?: number;
  /** Path of a network namespace, or `host` for the machine's. */
  readonly network?: string;
}

export interface SpecInput {
  readonly id: string;
  readonly config: ContainerConfig;
  readonly user: ResolvedUser;
  readonly paths: ContainerPaths;
  readonly seccompBase64: string;
  readonly terminalSize: TerminalSize | undefined;
  readonly joined: JoinedNamespaces;
  /** After those that every container has. */
  readonly mounts: readonly Record<string, unknown>[];
}

/** `config.json` of the bundle, as a plain object. */
export function ociSpec(input: SpecInput): Record<string, unknown> {
  const { config, user, paths } = input;
  const { host } = config;
  const capabilities = capabilitiesOf(host);
  return {
    ociVersion: '1.0.2',
    ...(host.utsMode === 'host' ? {} : { hostname: config.hostname }),
    ...(config.domainname === '' || host.utsMode === 'host' ? {} : { domainname: config.domainname }),
    root: { path: paths.rootfs, readonly: host.readOnlyRoot },
    process: {
      terminal: config.tty,
      ...(config.tty && input.terminalSize !== undefined
        ? { consoleSize: { height: input.terminalSize.rows, width: input.terminalSize.columns } }
        : {}),
      args: host.init ? [INIT_PATH, '--', ...config.argv] : config.argv,
      env: containerEnvironment(config, user),
      cwd: config.workingDir,
      user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
      capabilities: { bounding: capabilities, permitted: capabilities, effective: capabilities },
      rlimits: ociRlimits(host),
      oomScoreAdj: host.oomScoreAdj,
      noNewPrivileges: hasNoNewPrivileges(host),
    },
    mounts: [...ociMounts(host, paths), ...input.mounts],
    ...(isSeccompUnconfined(host)
      ? {}
      : { annotations: { 'run.oci.seccomp_bpf_data': input.seccompBase64 } }),
    linux: {
      namespaces: namespaces(host, input.joined),
      cgroupsPath: `${CGROUP_PARENT}/${input.id}`,
      resources: ociResources(host),
      ...(Object.keys(host.sysctls).length === 0 ? {} : { sysctl: host.sysctls }),
      ...hiddenPaths(host),
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

function namespaces(host: HostOptions, joined: JoinedNamespaces): Record<string, string>[] {
  const own = (type: string): Record<string, string> => ({ type });
  const of = (type: string, file: string, pid: number | undefined): Record<string, string> =>
    pid === undefined ? own(type) : { type, path: `/proc/${pid}/ns/${file}` };
  return [
    ...(host.pidMode === 'host' ? [] : [of('pid', 'pid', joined.pid)]),
    ...(joined.network === 'host'
      ? []
      : [joined.network === undefined ? own('network') : { type: 'network', path: joined.network }]),
    ...(host.ipcMode === 'host' ? [] : [of('ipc', 'ipc', joined.ipc)]),
    ...(host.utsMode === 'host' ? [] : [own('uts')]),
    own('mount'),
    own('cgroup'),
  ];
}
