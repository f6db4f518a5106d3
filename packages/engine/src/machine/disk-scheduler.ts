/**
 * Weights of block I/O. Only the kernel's BFQ scheduler knows them, and it costs time for every request: a machine's
 * disks get it when the first container with a weight starts, and keep it.
 */
import { AgentOpError, type OpInput } from '@arcbox/protocol';
import type { AgentSession } from './agent-session.ts';

const DISKS = '/sys/block';
const DISK_NAME = /^(vd|sd)[a-z]+$/;

/** From here on the machine's disks are shared out by weight. */
export async function shareDisksByWeight(agent: AgentSession): Promise<void> {
  const [listed] = await agent.batch([{ case: 'list', value: { path: DISKS } }]);
  const entries = listed?.result.case === 'list' ? listed.result.value.entries : [];
  const disks = entries.map(({ name }) => name).filter((name) => DISK_NAME.test(name));
  await Promise.all(
    disks.map((disk) =>
      agent.batch(weighOps(`${DISKS}/${disk}/queue`)).catch((error: unknown) => {
        // It was unplugged meanwhile.
        if (!(error instanceof AgentOpError && error.errnoName === 'ENOENT')) throw error;
      }),
    ),
  );
}

function weighOps(queue: string): OpInput[] {
  return [
    { case: 'write', value: { path: `${queue}/scheduler`, data: Buffer.from('bfq') } },
    // What has just begun would get thirty times its weight, in the belief that somebody waits for it.
    { case: 'write', value: { path: `${queue}/iosched/low_latency`, data: Buffer.from('0') } },
    // A virtual disk takes many requests at once; without a queue in the guest there is nothing to be shared out.
    { case: 'write', value: { path: `${queue}/iosched/strict_guarantees`, data: Buffer.from('1') } },
  ];
}
