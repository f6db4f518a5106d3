/** What a machine gets once per boot, and its layers: operations for its agent. */
import { randomBytes } from 'node:crypto';
import type { OpInput, OpResult } from '@arcbox/protocol';
import { EngineError } from '../errors.ts';
import { IDLE_CACHE_BYTES } from '../limits.ts';
import type { AgentSession } from './agent-session.ts';
import { BUNDLES, CGROUP_PARENT, CGROUP_ROOT, CRUN, DISK_MOUNT, layerMount, UPPERS } from './guest-layout.ts';
import { MS_BIND, MS_NOATIME, MS_NODEV, MS_RDONLY, MS_REMOUNT } from './mount-flags.ts';

const ENTROPY_BYTES = 64;
const CONTROLLERS = ['cpu', 'cpuset', 'memory', 'pids', 'io'];

/** The driver of the balloon sets it when it starts, so the kernel's command line has no say. */
const REPORTING_ORDER = '/sys/module/page_reporting/parameters/page_reporting_order';
/**
 * The guest tells the host of free memory in blocks of 2^9 pages, 2 MiB. By itself it would be 4 MiB, and a process that
 * used much and ended leaves too few of them; with smaller ones a machine that idled has to get all memory anew.
 */
const REPORTED_ORDER = 9;

export const READ_MOUNTS: OpInput = { case: 'read', value: { path: '/proc/self/mounts' } };

/** What a guest cannot know that did not run, or was cloned: the time, and numbers that nobody else has. */
export function wakeOps(): OpInput[] {
  return [
    { case: 'setTime', value: { unixNs: BigInt(Date.now()) * 1_000_000n } },
    { case: 'reseed', value: { entropy: randomBytes(ENTROPY_BYTES) } },
  ];
}

/**
 * Drops pages that only cache what is on disks, unless there are few: the program of the next first container is among
 * them. The list of mounted layers' names and the like stays: it is small.
 */
export async function trimPageCache(agent: AgentSession): Promise<void> {
  const [, memory] = await agent.batch([
    { case: 'sync', value: {} },
    { case: 'read', value: { path: '/proc/meminfo' } },
  ]);
  if (cachedBytes(memory) <= IDLE_CACHE_BYTES) return;
  await agent.batch([{ case: 'write', value: { path: '/proc/sys/vm/drop_caches', data: Buffer.from('1') } }]);
}

/** What a machine gets once per boot. */
export function setUpOps(diskDevice: string): OpInput[] {
  return [
    {
      case: 'mount',
      value: {
        source: diskDevice,
        target: DISK_MOUNT,
        type: 'ext4',
        flags: MS_NOATIME,
        data: 'discard,noinit_itable',
        mkdirTarget: true,
      },
    },
    { case: 'write', value: { path: REPORTING_ORDER, data: Buffer.from(String(REPORTED_ORDER)) } },
    { case: 'mkdir', value: { path: UPPERS, mode: 0o700, parents: true } },
    { case: 'mkdir', value: { path: BUNDLES, mode: 0o700, parents: true } },
    // No container can write to what it gets hold of as /proc/PID/exe. Where crun does not see that it is read-only, it
    // makes a copy of itself for every call and executes that.
    { case: 'mount', value: { source: CRUN, target: CRUN, flags: MS_BIND } },
    { case: 'mount', value: { source: CRUN, target: CRUN, flags: MS_BIND | MS_REMOUNT | MS_RDONLY } },
    // Controllers are switched on one by one: a kernel without one of them still runs containers without that limit.
    { case: 'mkdir', value: { path: CGROUP_ROOT + CGROUP_PARENT, mode: 0o755, parents: true } },
    ...CONTROLLERS.flatMap((controller): OpInput[] => [
      {
        case: 'write',
        value: { path: `${CGROUP_ROOT}/cgroup.subtree_control`, data: Buffer.from(`+${controller}`) },
      },
      {
        case: 'write',
        value: {
          path: `${CGROUP_ROOT}${CGROUP_PARENT}/cgroup.subtree_control`,
          data: Buffer.from(`+${controller}`),
        },
      },
    ]),
  ];
}

/** Mounts the layer whose disk is at `lun`, and says where. */
export async function mountHotLayer(agent: AgentSession, number: number, lun: number): Promise<string> {
  const [device] = await agent.batch([
    { case: 'waitDevice', value: { match: { case: 'scsiLun', value: lun } } },
  ]);
  if (device?.result.case !== 'device') {
    throw new EngineError('ERR_ARCBOX_MACHINE_BOOT', `the agent did not name the disk at LUN ${lun}`);
  }
  const target = layerMount(number);
  await agent.batch([
    {
      case: 'mount',
      value: {
        source: device.result.value.path,
        target,
        type: 'squashfs',
        flags: MS_RDONLY | MS_NODEV | MS_NOATIME,
        mkdirTarget: true,
      },
    },
  ]);
  return target;
}

/** The second column of /proc/self/mounts. */
export function mountPoints(mounts: OpResult | undefined): Set<string> {
  return new Set(
    textOf(mounts)
      .split('\n')
      .map((line) => line.split(' ')[1] ?? ''),
  );
}

/** What the page cache has of files on disks, from /proc/meminfo. */
function cachedBytes(memory: OpResult | undefined): number {
  const kib = [...textOf(memory).matchAll(/^(?:Active|Inactive)\(file\): +(\d+) kB$/gm)];
  return kib.reduce((sum, [, count]) => sum + Number(count) * 1024, 0);
}

function textOf(answer: OpResult | undefined): string {
  return answer?.result.case === 'data' ? Buffer.from(answer.result.value.data).toString('utf8') : '';
}
