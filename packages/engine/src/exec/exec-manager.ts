/**
 * Running further commands in running containers.
 *
 * The agent starts them itself (`ExecIn`): entering the container's namespaces and cgroup takes a few system calls, a
 * runtime's `exec` takes a process that costs more than all of them. What the container's process was given (capabilities,
 * system-call filter, limits) is given to them too.
 */
import { randomBytes } from 'node:crypto';
import { AgentOpError, type OpInput } from '@arcbox/protocol';
import { capabilityBits } from '../container/capabilities.ts';
import type { Container } from '../container/container.ts';
import type { ContainerManager } from '../container/container-manager.ts';
import { capabilitiesOf, hasNoNewPrivileges, isSeccompUnconfined } from '../container/host-options.ts';
import { readAccounts } from '../container/launch.ts';
import { agentRlimits } from '../container/oci-resources.ts';
import { containerEnvironment, type TerminalSize } from '../container/oci-spec.ts';
import { resolveUser } from '../container/user.ts';
import { EngineError, messageOf } from '../errors.ts';
import { ARGUMENTS_BYTES_MAX, EXECS_PER_CONTAINER_MAX } from '../limits.ts';
import type { Logger } from '../logger.ts';
import { CGROUP_ROOT, containerPaths, processObjectId, SECCOMP_FILTER } from '../machine/guest-layout.ts';
import type { Machine, UpMachine } from '../machine/machine.ts';
import { Exec, type ExecOptions, type ExecRecord, execObjectId } from './exec.ts';
import { ExecProcess } from './exec-process.ts';

const LOST_EXIT_CODE = 255;
const NOT_FOUND_EXIT_CODE = 127;
const NOT_EXECUTABLE_EXIT_CODE = 126;

export interface ExecEnvironment {
  readonly logger: Logger;
  containers(): ContainerManager;
  machine(name: string): Machine;
}

export class ExecManager {
  readonly #environment: ExecEnvironment;
  readonly #execs = new Map<string, Exec>();
  readonly #background = new Set<Promise<void>>();

  constructor(environment: ExecEnvironment) {
    this.#environment = environment;
  }

  /** Throws `ERR_ARCBOX_CONTAINER_STATE` unless the container runs. */
  create(container: string, options: ExecOptions): ExecRecord {
    checkOptions(options);
    const target = this.#environment.containers().find(container);
    runningProcess(target);
    this.#forgetOldest(target.record.id);
    const record: ExecRecord = {
      id: randomBytes(32).toString('hex'),
      containerId: target.record.id,
      options,
      state: 'created',
      pid: undefined,
      exitCode: undefined,
      error: '',
    };
    this.#execs.set(record.id, new Exec(record));
    target.emit(`exec_create: ${options.argv.join(' ')}`, { execID: record.id });
    return { ...record };
  }

  inspect(id: string): ExecRecord {
    return { ...this.find(id).record };
  }

  /** Of a container, in the order of their creation. */
  ofContainer(containerId: string): ExecRecord[] {
    return [...this.#execs.values()]
      .filter(({ record }) => record.containerId === containerId)
      .map(({ record }) => ({ ...record }));
  }

  /** Throws `ERR_ARCBOX_EXEC_NOT_FOUND`. */
  find(id: string): Exec {
    const exec = this.#execs.get(id);
    if (exec !== undefined) return exec;
    throw new EngineError(
      'ERR_ARCBOX_EXEC_NOT_FOUND',
      `no such exec: ${id.slice(0, 12)}; it went with its container, or with an earlier daemon`,
    );
  }

  /**
   * Starts it; answered when its program runs. Its output waits to be read from the process, or to be discarded.
   *
   * Throws `ERR_ARCBOX_COMMAND_NOT_FOUND`, `ERR_ARCBOX_COMMAND_NOT_EXECUTABLE`, `ERR_ARCBOX_EXEC_START`; the exec has
   * ended then, with an exit code that says the same.
   */
  async start(id: string, size?: TerminalSize): Promise<ExecProcess> {
    const exec = this.find(id);
    const { record } = exec;
    const container = this.#environment.containers().find(record.containerId);
    runningProcess(container);
    exec.begin();
    let up: UpMachine | undefined;
    try {
      up = await this.#environment.machine(container.record.machine).current();
      if (up === undefined)
        throw new EngineError('ERR_ARCBOX_MACHINE_LOST', 'the machine of the container is gone');
      const [result] = await up.agent.batch([await execOp(container, exec, up, size)]);
      record.pid = result?.result.case === 'process' ? result.result.value.pid : undefined;
    } catch (cause) {
      const error = explain(container, record.options, cause);
      const { code } = error;
      exec.end(
        code === 'ERR_ARCBOX_COMMAND_NOT_FOUND' ? NOT_FOUND_EXIT_CODE : NOT_EXECUTABLE_EXIT_CODE,
        error.message,
      );
      // Without an answer nobody knows whether it was begun; it is not to go on unowned.
      if (up !== undefined && !(cause instanceof AgentOpError)) this.#inBackground(release(up, record.id));
      throw error;
    }
    const process = new ExecProcess(up.agent, execObjectId(record.id));
    exec.process = process;
    container.emit(`exec_start: ${record.options.argv.join(' ')}`, { execID: id });
    this.#inBackground(this.#follow(exec, process, up, container));
    return process;
  }

  async resize(id: string, size: TerminalSize): Promise<void> {
    const { record, process } = this.find(id);
    if (process === undefined || record.state !== 'running') {
      throw new EngineError('ERR_ARCBOX_EXEC_STATE', `the exec ${id.slice(0, 12)} does not run`);
    }
    await process.resize(size);
  }

  /** The container is gone, and its execs with it. */
  forget(containerId: string): void {
    for (const [id, { record }] of this.#execs)
      if (record.containerId === containerId) this.#execs.delete(id);
  }

  async drain(): Promise<void> {
    while (this.#background.size > 0) await Promise.all(this.#background);
  }

  async #follow(exec: Exec, process: ExecProcess, up: UpMachine, container: Container): Promise<void> {
    try {
      exec.end(await process.ended, '');
    } catch (error) {
      exec.end(LOST_EXIT_CODE, messageOf(error));
    }
    exec.process = undefined;
    container.emit('exec_die', { execID: exec.record.id, exitCode: String(exec.record.exitCode ?? 0) });
    await release(up, exec.record.id, true);
  }

  #forgetOldest(containerId: string): void {
    const all = [...this.#execs.values()].filter(({ record }) => record.containerId === containerId);
    if (all.length < EXECS_PER_CONTAINER_MAX) return;
    const oldest =
      all.find(({ record }) => record.state === 'exited') ??
      all.find(({ record }) => record.state === 'created');
    if (oldest === undefined) {
      throw new EngineError(
        'ERR_ARCBOX_LIMIT',
        `${all.length} execs run in the container ${containerId.slice(0, 12)}; wait for some of them`,
      );
    }
    this.#execs.delete(oldest.record.id);
  }

  #inBackground(work: Promise<void>): void {
    const guarded = work
      .catch((error: unknown) => {
        this.#environment.logger.warn('background_failed', { what: 'exec', reason: messageOf(error) });
      })
      .finally(() => this.#background.delete(guarded));
    this.#background.add(guarded);
  }
}

/** With `keepGroup` processes that it left behind go on. */
async function release(up: UpMachine, execId: string, keepGroup = false): Promise<void> {
  if (up.agent.ended.aborted) return;
  const id = execObjectId(execId);
  await up.agent.batch([{ case: 'release', value: { id, missingOk: true, keepGroup } }]);
}

function checkOptions({ argv, env = [], workingDir = '', user = '' }: ExecOptions): void {
  const invalid = (message: string): never => {
    throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', message);
  };
  if (argv[0] === undefined || argv[0] === '') invalid('a command to run must be given');
  for (const entry of env) {
    if (entry.indexOf('=') < 1)
      invalid(`the environment variable ${JSON.stringify(entry)} is not of the form KEY=VALUE`);
  }
  if (workingDir !== '' && !workingDir.startsWith('/'))
    invalid(`the working directory ${JSON.stringify(workingDir)} is not an absolute path`);
  for (const text of [...argv, ...env, workingDir, user]) {
    if (text.includes('\0')) invalid(`${JSON.stringify(text)} contains a zero byte`);
  }
  const bytes = [...argv, ...env].reduce((sum, text) => sum + Buffer.byteLength(text) + 1, 0);
  if (bytes > ARGUMENTS_BYTES_MAX)
    invalid(`arguments and environment have ${bytes} bytes together; the limit is ${ARGUMENTS_BYTES_MAX}`);
}

function runningProcess({ record, process }: Container): void {
  if (process !== undefined && record.state === 'running') return;
  throw new EngineError(
    'ERR_ARCBOX_CONTAINER_STATE',
    record.state === 'paused'
      ? `the container ${record.name} is paused; unpause it first`
      : `the container ${record.name} is ${record.state}; commands can be run in a running one only`,
  );
}

async function execOp(
  { record }: Container,
  { record: { id, options } }: Exec,
  up: UpMachine,
  size: TerminalSize | undefined,
): Promise<OpInput> {
  const { config } = record;
  const { passwd, group } = await readAccounts(up.agent, record);
  // A user of one's own choice has that user's groups; those that the container was given belong to its own user.
  const user = resolveUser(
    options.user || config.user,
    passwd,
    group,
    options.user ? [] : config.host.groupAdd,
  );
  const tty = options.tty ?? false;
  const env = [...config.env, ...(options.env ?? [])];
  const { host } = config;
  const privileged = options.privileged === true || host.privileged;
  return {
    case: 'execIn',
    value: {
      target: processObjectId(record.id, record.run),
      cgroup: CGROUP_ROOT + containerPaths(record.id).cgroup,
      spawn: {
        id: execObjectId(id),
        argv: [...options.argv],
        env: containerEnvironment({ ...config, env, tty }, user),
        cwd: options.workingDir || config.workingDir,
        uid: user.uid,
        gid: user.gid,
        groups: [...user.additionalGids],
        stdin: options.openStdin ?? false,
        tty,
        ...(tty && size !== undefined ? { size } : {}),
      },
      ...(privileged
        ? { keepAllCapabilities: true }
        : { capabilities: capabilityBits(capabilitiesOf(host)) }),
      ...(privileged || isSeccompUnconfined(host) ? {} : { seccompBpf: SECCOMP_FILTER }),
      noNewPrivs: hasNoNewPrivileges(host),
      rlimits: agentRlimits(host),
    },
  };
}

/** Docker's distinction: no such command, one that cannot be run, anything else. */
function explain({ record }: Container, { argv }: ExecOptions, cause: unknown): EngineError {
  if (cause instanceof EngineError) return cause;
  const command = JSON.stringify(argv[0] ?? '');
  const reason = cause instanceof AgentOpError ? cause.detail : messageOf(cause);
  if (cause instanceof AgentOpError && cause.detail.startsWith('exec ')) {
    if (cause.errnoName === 'ENOENT' || cause.errnoName === 'ENOTDIR') {
      const where = argv[0]?.includes('/') ? '' : ' in $PATH';
      return new EngineError(
        'ERR_ARCBOX_COMMAND_NOT_FOUND',
        `exec: ${command}: executable file not found${where}`,
        { cause },
      );
    }
    return new EngineError(
      'ERR_ARCBOX_COMMAND_NOT_EXECUTABLE',
      `exec: ${command}: ${reason.replace(/^exec [^:]*: /, '')}`,
      { cause },
    );
  }
  if (cause instanceof AgentOpError && cause.detail.startsWith('chdir '))
    return new EngineError('ERR_ARCBOX_COMMAND_NOT_EXECUTABLE', `exec: ${command}: ${reason}`, { cause });
  return new EngineError(
    'ERR_ARCBOX_EXEC_START',
    `${command} could not be started in the container ${record.name}: ${reason}`,
    { cause },
  );
}
