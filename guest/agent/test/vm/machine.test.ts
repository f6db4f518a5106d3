/** What the agent can do only where it is PID 1 of a machine of its own: the clock, vsock, the machine's end. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { AcceptedSchema, type AgentClient } from '@arcbox/protocol';
import type { RunningVm } from '@arcbox/vm';
import { fromBinary } from '@bufbuild/protobuf';
import { QemuHarness } from '../../../../packages/vm/test/vm/harness.ts';
import { Gathered, resultOf } from '../support/run.ts';

/** Within a machine, the machine itself. */
const LOCAL_CID = 1;
const PORT = 1024;
const MIB = 1024 * 1024;

let harness: QemuHarness;
let vm: RunningVm;
let agent: AgentClient;
before(async () => {
  harness = new QemuHarness();
  vm = await (await harness.driver().create(harness.config())).boot();
  agent = await vm.openAgent();
});
after(async () => {
  await vm.kill();
  assert.deepEqual(harness.processes(), []);
  await harness[Symbol.asyncDispose]();
});

test('the clock is set, into the past and into the future', async () => {
  for (const unixMs of [Date.UTC(2001, 8, 9, 1, 46, 40), Date.UTC(2037, 0, 1)]) {
    const results = await agent.batch([
      { case: 'setTime', value: { unixNs: BigInt(unixMs) * 1_000_000n } },
      { case: 'write', value: { path: '/run/now', data: Buffer.from('x'), create: true, truncate: true } },
      { case: 'stat', value: { path: '/run/now' } },
    ]);
    const { mtimeNs } = resultOf(results, 2, 'stat');
    // A file that is written now has the time that it is: a little later than what was set.
    const passedMs = Number(mtimeNs / 1_000_000n) - unixMs;
    assert.ok(passedMs >= -10 && passedMs < 10_000, `${passedMs} ms`);
  }
});

test('vsock: a connection out, which the same machine takes in; bytes both ways, and each side ends', async () => {
  const vsock = (cid: number) => ({ case: 'vsock', value: { cid, port: PORT } }) as const;
  const listened = await agent.batch([{ case: 'listen', value: { id: 'in', address: vsock(0) } }]);
  assert.equal(resultOf(listened, 0, 'listen').port, PORT);
  const listener = await Gathered.attach(agent, 'in');
  await agent.batch([{ case: 'connect', value: { id: 'out', address: vsock(LOCAL_CID) } }]);
  await listener.until(() => listener.bytes(1).length > 0);
  // One byte of length: the message is short.
  const accepted = fromBinary(AcceptedSchema, listener.bytes(1).subarray(1));
  assert.equal(accepted.id, 'in/1');
  assert.match(accepted.peer, /^vsock 1:\d+$/);

  const outside = await Gathered.attach(agent, 'out');
  const inside = await Gathered.attach(agent, accepted.id);
  const there = Buffer.alloc(MIB, 'there ');
  const back = Buffer.alloc(MIB, 'and back ');
  await outside.attachment.write(there, { eof: true });
  await inside.until(({ ended }) => ended[0]);
  assert.ok(inside.bytes(1).equals(there));
  await inside.attachment.write(back, { eof: true });
  await outside.until(({ ended }) => ended[0]);
  assert.ok(outside.bytes(1).equals(back));
  for (const id of ['out', accepted.id]) assert.equal((await agent.wait(id)).code, 0);
  await agent.batch(['out', accepted.id, 'in'].map((id) => ({ case: 'release', value: { id } }) as const));
});

test('a vsock port where nobody listens says why', async () => {
  const address = { case: 'vsock', value: { cid: LOCAL_CID, port: PORT + 1 } } as const;
  await assert.rejects(agent.batch([{ case: 'connect', value: { id: 'none', address } }]), {
    errnoName: 'ECONNRESET',
  });
});

test('a shutdown is answered, and ends the machine', async () => {
  // What is asked with it is done before.
  await agent.batch([
    { case: 'sync', value: {} },
    { case: 'shutdown', value: { reboot: false } },
  ]);
  const exit = await vm.exited;
  assert.equal(exit.reason, 'guest-shutdown', exit.detail);
});
