/** What is done to the cgroup of a container that runs: standing still, and other limits. */
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentOpError, type OpInput } from '@arcbox/protocol';
import { EngineError } from '../errors.ts';
import { FREEZE_TIMEOUT_MS } from '../limits.ts';
import type { AgentSession } from '../machine/agent-session.ts';
import { CGROUP_ROOT, containerPaths } from '../machine/guest-layout.ts';
import { checkLimits, type ResourceLimits } from './host-options.ts';

const NANO = 1e9;
const CPU_PERIOD_US_DEFAULT = 100_000;
const WAIT_MS_MAX = 50;
/** cgroup v1's shares (2 to 262144) on v2's scale (1 to 10000), as OCI runtimes convert them. */
const SHARES_MIN = 2;
const SHARES_RANGE = 262_142;
const WEIGHT_RANGE = 9999;

/** Answered when no process of the container runs any more, or all may run again. */
export async function freeze(agent: AgentSession, containerId: string, frozen: boolean): Promise<void> {
  const cgroup = CGROUP_ROOT + containerPaths(containerId).cgroup;
  const wanted = frozen ? '1' : '0';
  await agent.batch([freezeOp(containerId, frozen)]);
  const deadline = Date.now() + FREEZE_TIMEOUT_MS;
  for (let delayMs = 1; ; delayMs = Math.min(delayMs * 2, WAIT_MS_MAX)) {
    const events = await readText(agent, `${cgroup}/cgroup.events`);
    if (new RegExp(`^frozen ${wanted}$`, 'm').test(events)) return;
    if (Date.now() > deadline) {
      await agent.batch([write(`${cgroup}/cgroup.freeze`, '0')]);
      throw new EngineError(
        'ERR_ARCBOX_CONTAINER_STATE',
        `the container ${containerId.slice(0, 12)} did not come to a stand in ${FREEZE_TIMEOUT_MS} ms; it goes on`,
      );
    }
    await sleep(delayMs);
  }
}

/** Only the wish: it may take a while until it has come true. */
export function freezeOp(containerId: string, frozen: boolean): OpInput {
  return write(`${CGROUP_ROOT}${containerPaths(containerId).cgroup}/cgroup.freeze`, frozen ? '1' : '0');
}

/** What `change` says, and otherwise what held before. Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
export function mergeLimits(before: ResourceLimits, change: ResourceLimits): ResourceLimits {
  const { nanoCpus, cpuQuotaUs, cpuPeriodUs, ...rest } = before;
  // One way of saying how much CPU time there is replaces the other.
  const cpu =
    change.nanoCpus !== undefined
      ? {}
      : change.cpuQuotaUs !== undefined || change.cpuPeriodUs !== undefined
        ? {
            ...(cpuQuotaUs === undefined ? {} : { cpuQuotaUs }),
            ...(cpuPeriodUs === undefined ? {} : { cpuPeriodUs }),
          }
        : {
            ...(nanoCpus === undefined ? {} : { nanoCpus }),
            ...(cpuQuotaUs === undefined ? {} : { cpuQuotaUs }),
            ...(cpuPeriodUs === undefined ? {} : { cpuPeriodUs }),
          };
  const merged: ResourceLimits = { ...rest, ...cpu, ...change };
  checkLimits(merged);
  return merged;
}

/** Sets all of the limits. Throws `ERR_ARCBOX_INVALID_ARGUMENT` when the kernel refuses one. */
export async function applyLimits(
  agent: AgentSession,
  containerId: string,
  limits: ResourceLimits,
): Promise<void> {
  const cgroup = CGROUP_ROOT + containerPaths(containerId).cgroup;
  const files = limitFiles(limits);
  try {
    await agent.batch(files.map(([name, value]) => write(`${cgroup}/${name}`, value)));
  } catch (error) {
    if (!(error instanceof AgentOpError)) throw error;
    const [name, value] = files[error.index] ?? ['', ''];
    throw new EngineError(
      'ERR_ARCBOX_INVALID_ARGUMENT',
      `the machine refuses ${name} = ${value}: ${error.errnoName}`,
      {
        cause: error,
      },
    );
  }
}

/** Files of cgroup v2 and what to write to them. */
export function limitFiles(limits: ResourceLimits): [string, string][] {
  const { memoryBytes, memorySwapBytes, memoryReservationBytes, nanoCpus, cpuShares, pidsMax } = limits;
  const files: [string, string][] = [];
  if (memorySwapBytes !== undefined)
    files.push([
      'memory.swap.max',
      memorySwapBytes === -1 ? 'max' : String(memorySwapBytes - (memoryBytes ?? 0)),
    ]);
  if (memoryReservationBytes !== undefined) files.push(['memory.low', String(memoryReservationBytes)]);
  if (memoryBytes !== undefined) files.push(['memory.max', String(memoryBytes)]);
  const quotaUs =
    nanoCpus === undefined ? limits.cpuQuotaUs : Math.round((nanoCpus / NANO) * CPU_PERIOD_US_DEFAULT);
  if (quotaUs !== undefined || limits.cpuPeriodUs !== undefined)
    files.push(['cpu.max', `${quotaUs ?? 'max'} ${limits.cpuPeriodUs ?? CPU_PERIOD_US_DEFAULT}`]);
  if (cpuShares !== undefined)
    files.push([
      'cpu.weight',
      String(1 + Math.floor(((cpuShares - SHARES_MIN) * WEIGHT_RANGE) / SHARES_RANGE)),
    ]);
  if (limits.cpusetCpus !== undefined) files.push(['cpuset.cpus', limits.cpusetCpus]);
  if (limits.cpusetMems !== undefined) files.push(['cpuset.mems', limits.cpusetMems]);
  if (pidsMax !== undefined) files.push(['pids.max', pidsMax === -1 ? 'max' : String(pidsMax)]);
  if (limits.blkioWeight !== undefined) files.push(['io.bfq.weight', String(limits.blkioWeight)]);
  return files;
}

function write(path: string, text: string): OpInput {
  return { case: 'write', value: { path, data: Buffer.from(text) } };
}

async function readText(agent: AgentSession, path: string): Promise<string> {
  const [result] = await agent.batch([{ case: 'read', value: { path } }]);
  return result?.result.case === 'data' ? Buffer.from(result.result.value.data).toString('utf8') : '';
}
