/** Starting a container's process in a machine, and removing every trace of it there: batches for the agent. */
import { AgentOpError, type OpInput } from '@arcbox/protocol';
import { EngineError } from '../errors.ts';
import { REASON_LENGTH_MAX } from '../limits.ts';
import type { AgentSession } from '../machine/agent-session.ts';
import {
  CGROUP_ROOT,
  CRUN,
  CRUN_STATE,
  containerPaths,
  namespacePath,
  processObjectId,
} from '../machine/guest-layout.ts';
import { MS_NOATIME, MS_NODEV, MS_NOEXEC, MS_NOSUID } from '../machine/mount-flags.ts';
import type { NetworkPlace } from '../network/container-network.ts';
import type { ContainerRecord } from './container-record.ts';
import { containerOfMode, HOST_GATEWAY, type HostOptions, splitHost } from './host-options.ts';
import { isShmShared, shmBytes } from './oci-mounts.ts';
import { type JoinedNamespaces, ociSpec, type TerminalSize } from './oci-spec.ts';
import type { ResolvedUser } from './user.ts';

/** How long crun may take, under a loaded emulator. */
const START_TIMEOUT_MS = 120_000;
const PASSWD_BYTES_MAX = 1024 * 1024;
const RUNTIME_LOG_BYTES_MAX = 64 * 1024;

/** Mounts the container's root; its layers are mounted already, `lowers` lowest first. */
export function mountOps(record: ContainerRecord, lowers: readonly string[]): OpInput[] {
  const paths = containerPaths(record.id);
  return [
    { case: 'mkdir', value: { path: paths.upper, mode: 0o755, parents: true } },
    { case: 'mkdir', value: { path: paths.work, mode: 0o700, parents: true } },
    { case: 'mkdir', value: { path: paths.bundle, mode: 0o700, parents: true } },
    {
      case: 'mount',
      value: {
        source: 'overlay',
        target: paths.rootfs,
        type: 'overlay',
        flags: MS_NOATIME,
        data: `lowerdir=${lowers.toReversed().join(':')},upperdir=${paths.upper},workdir=${paths.work}`,
        mkdirTarget: true,
      },
    },
    ...(isShmShared(record.config.host)
      ? [
          {
            case: 'mount' as const,
            value: {
              source: 'shm',
              target: paths.shm,
              type: 'tmpfs',
              flags: MS_NOSUID | MS_NODEV | MS_NOEXEC,
              data: `mode=1777,size=${shmBytes(record.config.host)}`,
              mkdirTarget: true,
            },
          },
        ]
      : []),
  ];
}

export interface LaunchInput {
  readonly record: ContainerRecord;
  readonly user: ResolvedUser;
  readonly seccompBase64: string;
  readonly terminalSize: TerminalSize | undefined;
  readonly joined: JoinedNamespaces;
  readonly network: NetworkPlace;
  /** Of the container whose /dev/shm is joined. */
  readonly shmOwnerId: string | undefined;
  /** OCI mounts besides those that every container has. */
  readonly mounts: readonly Record<string, unknown>[];
}

/** Writes the bundle and runs it; the last operation's result is the process. The root is mounted already. */
export function launchOps(input: LaunchInput): OpInput[] {
  const { record, terminalSize } = input;
  const paths = containerPaths(record.id);
  const shmOwnerId = containerOfMode(record.config.host.ipcMode) === undefined ? record.id : input.shmOwnerId;
  const spec = ociSpec({
    id: record.id,
    config: record.config,
    user: input.user,
    paths: { ...paths, shm: containerPaths(shmOwnerId ?? record.id).shm },
    seccompBase64: input.seccompBase64,
    terminalSize,
    joined: input.joined,
    mounts: input.mounts,
  });
  const file = (name: string, text: string): OpInput => ({
    case: 'write',
    value: {
      path: `${paths.bundle}/${name}`,
      data: Buffer.from(text),
      create: true,
      truncate: true,
      mode: 0o644,
    },
  });
  return [
    file('config.json', JSON.stringify(spec)),
    file('hostname', `${record.config.hostname}\n`),
    file('hosts', hostsFile(record, input.network)),
    file('resolv.conf', resolvConf(record, input.network)),
    {
      case: 'spawn',
      value: {
        id: processObjectId(record.id, record.run),
        argv: [
          CRUN,
          `--root=${CRUN_STATE}`,
          '--cgroup-manager=cgroupfs',
          `--log=${paths.runtimeLog}`,
          '--log-format=json',
          'run',
          '--detach',
          `--bundle=${paths.bundle}`,
          `--pid-file=${paths.pidFile}`,
          ...(record.config.tty ? [`--console-socket=${paths.consoleSocket}`] : []),
          record.id,
        ],
        env: ['PATH=/bin:/sbin'],
        cwd: '/',
        stdin: record.config.openStdin,
        tty: record.config.tty,
        ...(terminalSize === undefined ? {} : { size: terminalSize }),
        adoptPidFile: paths.pidFile,
        ...(record.config.tty ? { consoleSocket: paths.consoleSocket } : {}),
      },
    },
  ];
}

/** Answers with the process's pid in the machine. */
export async function launch(agent: AgentSession, ops: readonly OpInput[]): Promise<number> {
  const results = await agent.batch(ops, { timeoutMs: START_TIMEOUT_MS });
  const last = results.at(-1)?.result;
  return last?.case === 'process' ? last.value.pid : 0;
}

/** `/etc/passwd` and `/etc/group` of the mounted root; empty when they are not there. */
export async function readAccounts(
  agent: AgentSession,
  record: ContainerRecord,
): Promise<{ passwd: string; group: string }> {
  const { rootfs } = containerPaths(record.id);
  const read = async (path: string): Promise<string> => {
    try {
      // An image may have links there that lead out of its root, and we are outside of it.
      const [content] = await agent.batch([
        { case: 'read', value: { path, root: rootfs, limit: PASSWD_BYTES_MAX } },
      ]);
      return content?.result.case === 'data' ? Buffer.from(content.result.value.data).toString('utf8') : '';
    } catch (error) {
      if (error instanceof AgentOpError && NO_FILE.has(error.errnoName)) return '';
      throw error;
    }
  };
  const [passwd, group] = await Promise.all([read('/etc/passwd'), read('/etc/group')]);
  return { passwd, group };
}

/** What opening and reading something says that is no file. */
const NO_FILE = new Set(['ENOENT', 'ENOTDIR', 'EISDIR', 'ELOOP', 'ENXIO', 'EACCES', 'EINVAL', 'EAGAIN']);

function hostsFile(
  { config }: ContainerRecord,
  { address: own, address6, nameServer }: NetworkPlace,
): string {
  const { hostname, domainname, host } = config;
  const full = domainname === '' ? hostname : `${hostname}.${domainname} ${hostname}`;
  const extra = host.extraHosts.map((entry) => {
    const [name, address] = splitHost(entry);
    return `${address === HOST_GATEWAY ? nameServer : address}\t${name}\n`;
  });
  return `127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n${own || '127.0.1.1'}\t${full}\n${address6 === '' ? '' : `${address6}\t${full}\n`}${extra.join('')}`;
}

function resolvConf({ config: { host } }: ContainerRecord, { nameServer }: NetworkPlace): string {
  const servers = host.dns.length > 0 || nameServer === '' ? host.dns : [nameServer];
  const lines = [
    ...servers.map((address) => `nameserver ${address}`),
    ...(host.dnsSearch.length === 0 ? [] : [`search ${host.dnsSearch.join(' ')}`]),
    ...(host.dnsOptions.length === 0 ? [] : [`options ${host.dnsOptions.join(' ')}`]),
  ];
  return lines.map((line) => `${line}\n`).join('');
}

/** Why the runtime did not start the container, from its own log. */
export async function explainFailure(
  agent: AgentSession,
  record: ContainerRecord,
  failure: AgentOpError,
): Promise<EngineError> {
  let reason = failure.detail;
  try {
    const [log] = await agent.batch([
      { case: 'read', value: { path: containerPaths(record.id).runtimeLog, limit: RUNTIME_LOG_BYTES_MAX } },
    ]);
    if (log?.result.case === 'data')
      reason = lastMessage(Buffer.from(log.result.value.data).toString('utf8')) || reason;
  } catch (error) {
    if (!(error instanceof AgentOpError)) throw error;
  }
  return startError(record, clip(reason), failure);
}

/** Docker's distinction: no such command, a command that cannot be run, anything else. */
export function startError(record: ContainerRecord, reason: string, cause?: unknown): EngineError {
  const command = JSON.stringify(record.config.argv[0] ?? '');
  if (
    /executable file .* not found|exec.*No such file or directory|open executable.*No such file/i.test(reason)
  ) {
    const where = record.config.argv[0]?.includes('/') ? '' : ' in $PATH';
    return new EngineError(
      'ERR_ARCBOX_COMMAND_NOT_FOUND',
      `exec: ${command}: executable file not found${where}`,
      {
        cause,
      },
    );
  }
  if (
    /permission denied|exec format error|is a directory|open executable: Operation not permitted/i.test(
      reason,
    )
  ) {
    return new EngineError('ERR_ARCBOX_COMMAND_NOT_EXECUTABLE', `exec: ${command}: ${reason}`, { cause });
  }
  return new EngineError(
    'ERR_ARCBOX_CONTAINER_START',
    `the container ${record.name} could not be started: ${reason}`,
    { cause },
  );
}

/** An image decides on parts of the message, and the guest on all of it: patterns are not let loose on megabytes. */
function clip(reason: string): string {
  const half = REASON_LENGTH_MAX / 2;
  return reason.length <= REASON_LENGTH_MAX ? reason : `${reason.slice(0, half)} … ${reason.slice(-half)}`;
}

function lastMessage(log: string): string {
  const lines = log.split('\n').filter((line) => line !== '');
  const messages = lines.map((line) => {
    try {
      const { msg } = JSON.parse(line) as { msg?: unknown };
      return typeof msg === 'string' ? msg : '';
    } catch {
      // A line that the runtime wrote before it knew its log's format.
      return line;
    }
  });
  return messages.findLast((message) => message !== '') ?? '';
}

/** Releases everything that a run of the container has in the guest, except its upper directory. */
export function cleanUpOps(containerId: string, run: number, host?: HostOptions): OpInput[] {
  const paths = containerPaths(containerId);
  const shm = host !== undefined && isShmShared(host);
  // Without a process namespace of its own its other processes live on after the first one's end.
  const kill = host !== undefined && host.pidMode !== '';
  return [
    { case: 'release', value: { id: processObjectId(containerId, run), missingOk: true } },
    { case: 'unmount', value: { target: paths.rootfs, detach: true } },
    ...(shm ? [{ case: 'unmount' as const, value: { target: paths.shm, detach: true } }] : []),
    ...(shm ? [{ case: 'remove' as const, value: { path: paths.shm, missingOk: true } }] : []),
    { case: 'remove', value: { path: paths.bundle, recursive: true, missingOk: true } },
    ...(kill
      ? [
          {
            case: 'write' as const,
            value: { path: `${CGROUP_ROOT}${paths.cgroup}/cgroup.kill`, data: Buffer.from('1') },
          },
        ]
      : []),
    { case: 'unmount', value: { target: namespacePath(containerId), detach: true } },
    { case: 'remove', value: { path: namespacePath(containerId), missingOk: true } },
    // What `crun delete` would do, without a process: the container has no hooks.
    { case: 'remove', value: { path: paths.runtimeState, recursive: true, missingOk: true } },
    { case: 'remove', value: { path: CGROUP_ROOT + paths.cgroup, missingOk: true } },
  ];
}

/** Removes what the container wrote. */
export function removeDiskOps(containerId: string): OpInput[] {
  const { disk, lower } = containerPaths(containerId);
  return [
    // A daemon that died while it listed what the container had changed has left it.
    { case: 'unmount', value: { target: lower, detach: true } },
    { case: 'remove', value: { path: disk, recursive: true, missingOk: true } },
  ];
}

/** What cleaning up may find: the thing is not there, or not mounted. */
const ALREADY_GONE = new Set(['ENOENT', 'EINVAL', 'ENOTDIR']);

/** Runs all of the operations; one whose object is already gone has been done. */
export async function runTolerant(agent: AgentSession, ops: readonly OpInput[]): Promise<void> {
  let rest = ops;
  while (rest.length > 0) {
    try {
      await agent.batch(rest);
      return;
    } catch (error) {
      if (!(error instanceof AgentOpError) || !ALREADY_GONE.has(error.errnoName)) throw error;
      rest = rest.slice(error.index + 1);
    }
  }
}
