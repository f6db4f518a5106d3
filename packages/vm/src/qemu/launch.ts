/** From a launch plan to a machine whose agent answered, or to nothing at all. */
import path from 'node:path';
import { AgentClient } from '@arcbox/protocol';
import type { VmHandle } from '../contract.ts';
import { reasonOf, VmError } from '../errors.ts';
import type { FaultHook } from '../faults.ts';
import { GUARDIAN_TIMEOUT_MS } from '../limits.ts';
import { QmpClient } from '../qmp.ts';
import type { Launch } from './command-line.ts';
import { connectUnix } from './connect-unix.ts';
import { Lease, type LeaseEnd, type VmmProcess } from './lease.ts';
import { describeEnd } from './machine-exit.ts';
import { releaseLost } from './release.ts';
import { AGENT_SOCKET, QMP_SOCKET } from './run-dir.ts';

export interface LaunchContext {
  readonly guardian: string;
  readonly runDir: string;
  readonly cgroups: readonly string[];
  readonly secret: Uint8Array;
  readonly name: string;
  /** How long until the agent must have answered, in ms. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  readonly fault: FaultHook;
}

export interface Launched {
  readonly lease: Lease;
  readonly process: VmmProcess;
  readonly qmp: QmpClient;
  readonly agent: AgentClient;
}

/**
 * Starts the machine. When it rejects, the process, the run directory and the cgroup are gone.
 *
 * @throws {VmError} `ERR_ARCBOX_VM_BOOT`, `ERR_ARCBOX_VM_TIMEOUT`, `ERR_ARCBOX_VM_HOST`, or the signal's reason.
 */
export async function launchMachine(launch: Launch, context: LaunchContext): Promise<Launched> {
  const { signal, fault } = context;
  const started = performance.now();
  let lease: Lease | undefined;
  let process: VmmProcess | undefined;
  const opened: { qmp?: QmpClient; agent?: AgentClient } = {};
  // Whatever ends first ends the others' waiting.
  const giveUp = new AbortController();
  const abort = (): void => giveUp.abort(signal?.reason);
  signal?.addEventListener('abort', abort, { once: true });
  try {
    signal?.throwIfAborted();
    await fault('boot:spawn');
    lease = Lease.spawn(context.guardian, launch.guardianArgs, launch.fds);
    void lease.ended.then((end) => giveUp.abort(end));
    process = await lease.waitUntilUp();
    await fault('boot:started');
    const timeoutMs = Math.max(1, context.timeoutMs - (performance.now() - started));
    const monitor = openMonitor(context).then(async (qmp) => {
      opened.qmp = qmp;
      await fault('boot:monitor');
      // The machine runs as soon as it has loaded.
      if (launch.incoming !== undefined) await qmp.execute('migrate-incoming', { uri: launch.incoming });
      return qmp;
    });
    const greeting = greetAgent(context, timeoutMs, giveUp.signal).then(async (agent) => {
      opened.agent = agent;
      await fault('boot:agent');
      return agent;
    });
    const [qmp, agent] = await settleBoth(monitor, greeting, giveUp);
    await fault('boot:ready');
    signal?.throwIfAborted();
    return { lease, process, qmp, agent };
  } catch (error) {
    if (lease !== undefined && isHangUp(error)) await orTimeout(lease.ended, OWN_END_MS);
    lease?.kill();
    opened.qmp?.close();
    await opened.agent?.close();
    const end = await lease?.ended;
    if (end === undefined || end.kind !== 'exit') await releaseLost(context.runDir, context.cgroups, process);
    signal?.throwIfAborted();
    throw failure(context, error, end);
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

/** Ends a machine that was found and cannot be used; by force when its guardian does not do it. */
export async function endUnowned(lease: Lease, handle: VmHandle): Promise<void> {
  lease.kill();
  await orTimeout(lease.ended, GUARDIAN_TIMEOUT_MS);
  lease.close();
  await releaseLost(handle.runDir, handle.cgroups, handle);
}

/** A VMM that hung up is ending by itself, and how it ended is the reason to report: it gets a moment to do so. */
const OWN_END_MS = 1000;

function isHangUp(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'ERR_ARCBOX_AGENT_CLOSED' || code === 'ERR_ARCBOX_VM_MONITOR';
}

async function orTimeout(promise: Promise<unknown>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, timeoutMs);
  });
  await Promise.race([promise, timeout]);
  clearTimeout(timer);
}

/** A new connection to the machine's agent: a new epoch. */
export async function greetAgent(
  context: Pick<LaunchContext, 'runDir' | 'secret'>,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<AgentClient> {
  const channel = await connectUnix(path.join(context.runDir, AGENT_SOCKET));
  return AgentClient.connect(channel, {
    secret: context.secret,
    timeoutMs,
    ...(signal === undefined ? {} : { signal }),
  });
}

export async function openMonitor(context: Pick<LaunchContext, 'runDir'>): Promise<QmpClient> {
  return QmpClient.connect(await connectUnix(path.join(context.runDir, QMP_SOCKET)));
}

/** Both results; after one failed, the other's end is awaited too, so that nothing opens later. */
async function settleBoth<A, B>(a: Promise<A>, b: Promise<B>, giveUp: AbortController): Promise<[A, B]> {
  const stop = (error: unknown): never => {
    giveUp.abort(error);
    throw error;
  };
  const both = [a.catch(stop), b.catch(stop)] as const;
  try {
    return await Promise.all(both);
  } catch (error) {
    await Promise.allSettled(both);
    throw error;
  }
}

function failure(context: LaunchContext, error: unknown, end: LeaseEnd | undefined): unknown {
  // An end that we did not cause is the reason, whatever failed first because of it.
  if (end?.kind === 'exit' && end.by !== 'owner') {
    const detail = describeEnd(end);
    return new VmError(
      'ERR_ARCBOX_VM_BOOT',
      `The machine ${context.name} ended before its agent answered: ${detail}`,
      {
        cause: error,
      },
    );
  }
  if (error instanceof VmError) return error;
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  const console = end?.kind === 'exit' ? describeEnd(end) : '';
  return new VmError(
    code === 'ERR_ARCBOX_AGENT_TIMEOUT' ? 'ERR_ARCBOX_VM_TIMEOUT' : 'ERR_ARCBOX_VM_BOOT',
    `The machine ${context.name} did not get ready within ${context.timeoutMs} ms: ${reasonOf(error)}; ${console}`,
    { cause: error },
  );
}
