/** Starting a container's process in a machine, and removing every trace of it there: batches for the agent. */
import { AgentOpError, type OpInput, type OpResult } from '@arcbox/protocol';
import { EngineError } from '../errors.ts';
import { REASON_LENGTH_MAX } from '../limits.ts';
import type { AgentSession } from '../machine/agent-session.ts';
import { CGROUP_ROOT, CRUN, CRUN_STATE, containerPaths, processObjectId } from '../machine/guest-layout.ts';
import type { ContainerRecord } from './container-record.ts';
import { ociSpec, type TerminalSize } from './oci-spec.ts';
import type { ResolvedUser } from './user.ts';

const MS_NOATIME = 1024n;
/** How long crun may take, under a loaded emulator. */
const START_TIMEOUT_MS = 120_000;
const PASSWD_BYTES_MAX = 1024 * 1024;
const RUNTIME_LOG_BYTES_MAX = 64 * 1024;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;

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
  ];
}

export interface LaunchInput {
  readonly record: ContainerRecord;
  readonly user: ResolvedUser;
  readonly seccompBase64: string;
  readonly terminalSize: TerminalSize | undefined;
}

/** Writes the bundle and runs it; the last operation's result is the process. The root is mounted already. */
export function launchOps(input: LaunchInput): OpInput[] {
  const { record, terminalSize } = input;
  const paths = containerPaths(record.id);
  const spec = ociSpec({
    id: record.id,
    config: record.config,
    user: input.user,
    paths,
    seccompBase64: input.seccompBase64,
    terminalSize,
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
  const { hostname } = record.config;
  return [
    file('config.json', JSON.stringify(spec)),
    file('hostname', `${hostname}\n`),
    file(
      'hosts',
      `127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t${hostname}\n`,
    ),
    file('resolv.conf', ''),
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

export async function launch(agent: AgentSession, ops: readonly OpInput[]): Promise<void> {
  await agent.batch(ops, { timeoutMs: START_TIMEOUT_MS });
}

/** `/etc/passwd` and `/etc/group` of the mounted root; empty when they are not there, or not plain files. */
export async function readAccounts(
  agent: AgentSession,
  record: ContainerRecord,
): Promise<{ passwd: string; group: string }> {
  const { rootfs } = containerPaths(record.id);
  const read = async (name: string): Promise<string> => {
    try {
      // An image may have links there that lead out of its root, and we are outside of it.
      const [directory, file] = await agent.batch([
        { case: 'stat', value: { path: `${rootfs}/etc` } },
        { case: 'stat', value: { path: `${rootfs}/etc/${name}` } },
      ]);
      if (!hasType(directory, S_IFDIR) || !hasType(file, S_IFREG)) return '';
      const [content] = await agent.batch([
        { case: 'read', value: { path: `${rootfs}/etc/${name}`, limit: PASSWD_BYTES_MAX } },
      ]);
      return content?.result.case === 'data' ? Buffer.from(content.result.value.data).toString('utf8') : '';
    } catch (error) {
      if (error instanceof AgentOpError && error.errnoName === 'ENOENT') return '';
      throw error;
    }
  };
  const [passwd, group] = await Promise.all([read('passwd'), read('group')]);
  return { passwd, group };
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
export function cleanUpOps(containerId: string, run: number): OpInput[] {
  const paths = containerPaths(containerId);
  return [
    { case: 'release', value: { id: processObjectId(containerId, run), missingOk: true } },
    { case: 'unmount', value: { target: paths.rootfs, detach: true } },
    { case: 'remove', value: { path: paths.bundle, recursive: true, missingOk: true } },
    // What `crun delete` would do, without a process: the container has no hooks.
    { case: 'remove', value: { path: paths.runtimeState, recursive: true, missingOk: true } },
    { case: 'remove', value: { path: CGROUP_ROOT + paths.cgroup, missingOk: true } },
  ];
}

/** Removes what the container wrote. */
export function removeDiskOps(containerId: string): OpInput[] {
  return [
    { case: 'remove', value: { path: containerPaths(containerId).disk, recursive: true, missingOk: true } },
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

function hasType(result: OpResult | undefined, type: number): boolean {
  return result?.result.case === 'stat' && (result.result.value.mode & S_IFMT) === type;
}
