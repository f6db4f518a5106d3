import assert from 'node:assert/strict';
import { type Duplex, duplexPair } from 'node:stream';
import { test } from 'node:test';
import { AgentClient, serveAgent } from '@arcbox/protocol';
import type { RunningVm, VmExit } from '@arcbox/vm';
import { SILENT } from '../src/index.ts';
import { AgentSession } from '../src/machine/agent-session.ts';

/** A machine whose agent answers every `Hello`; `greeted` gets the agent's end of each connection. */
function machine(greeted: (agent: Duplex) => void): { vm: RunningVm; end(exit: VmExit): void } {
  const { promise: exited, resolve: end } = Promise.withResolvers<VmExit>();
  const openAgent = async (): Promise<AgentClient> => {
    const [ours, theirs] = duplexPair();
    serveAgent(theirs, { op: () => undefined, object: () => undefined });
    const client = await AgentClient.connect(ours, { secret: Buffer.alloc(16), timeoutMs: 5000 });
    greeted(theirs);
    return client;
  };
  const vm: Pick<RunningVm, 'name' | 'exited' | 'openAgent'> = { name: 'm', exited, openAgent };
  return { vm: vm as RunningVm, end };
}

test('the next epoch begins at once; an agent that ends each right away is asked ever more slowly', async () => {
  const CONNECTIONS = 11;
  let count = 0;
  const enough = Promise.withResolvers<void>();
  const { vm, end } = machine((agent) => {
    count += 1;
    if (count === CONNECTIONS) enough.resolve();
    // What a broken or hostile agent does: it greets, then sends what is no frame.
    else agent.write(Buffer.alloc(64, 0xff));
  });
  const session = await AgentSession.open(vm, SILENT);
  const startedMs = performance.now();
  await enough.promise;
  // 0, 1, 2, 4, … 256 ms.
  assert.ok(performance.now() - startedMs >= 400, 'it was asked without a pause');
  await session.batch([]);
  end({ reason: 'killed', detail: 'the test is over' });
  await new Promise((resolve) => session.ended.addEventListener('abort', resolve, { once: true }));
});
