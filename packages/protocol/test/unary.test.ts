import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  AgentCallError,
  AgentOpError,
  BATCH_OPS_MAX,
  type Op,
  OpFailure,
  ServedObject,
  Status,
} from '../src/index.ts';
import { connectedPair, objectsOnly } from './support.ts';

test('a batch carries every field and answers one result for each operation', async () => {
  const seen: Op['op'][] = [];
  await using pair = await connectedPair({
    object: () => undefined,
    op(op) {
      seen.push(op);
      return op.case === 'spawn' ? { case: 'process', value: { pid: 42 } } : undefined;
    },
  });
  const results = await pair.client.batch([
    { case: 'mount', value: { source: 'tmpfs', target: '/t', type: 'tmpfs', flags: 6, mkdirTarget: true } },
    { case: 'write', value: { path: '/t/x', data: new Uint8Array([1, 2]), offset: 2 ** 40 } },
    { case: 'spawn', value: { id: 'p', argv: ['true'] } },
  ]);
  assert.equal(results.length, 3);
  assert.deepEqual(results[2]?.result.case === 'process' && results[2].result.value.pid, 42);
  const [mount, write] = seen;
  assert.ok(mount?.case === 'mount' && mount.value.flags === 6n && mount.value.mkdirTarget);
  assert.ok(write?.case === 'write' && write.value.offset === 2n ** 40n);
});

test('a batch ends at its first failure', async () => {
  await using pair = await connectedPair({
    object: () => undefined,
    op(op) {
      if (op.case === 'remove') throw new OpFailure(2, '/nowhere does not exist');
      return undefined;
    },
  });
  const batch = pair.client.batch([
    { case: 'mkdir', value: { path: '/a' } },
    { case: 'remove', value: { path: '/nowhere' } },
    { case: 'mkdir', value: { path: '/b' } },
  ]);
  await assert.rejects(batch, (error) => {
    assert.ok(error instanceof AgentOpError);
    assert.equal(error.code, 'ERR_ARCBOX_AGENT_OP');
    assert.deepEqual([error.index, error.op, error.errno, error.errnoName], [1, 'remove', 2, 'ENOENT']);
    assert.equal(error.detail, '/nowhere does not exist');
    assert.equal(error.results.length, 2);
    return true;
  });
});

test('calls are answered out of order', async () => {
  const first = new ServedObject({ id: 'first' });
  const second = new ServedObject({ id: 'second' });
  await using pair = await connectedPair(objectsOnly(first, second));
  const waits = [pair.client.wait('first'), pair.client.wait('second')];
  second.finish({ code: 3 });
  assert.deepEqual(await waits[1], { signaled: false, code: 3, error: '' });
  first.finish({ signaled: true, code: 9 });
  assert.deepEqual(await waits[0], { signaled: true, code: 9, error: '' });
  await assert.rejects(
    pair.client.wait('third'),
    (error) =>
      error instanceof AgentCallError && error.status === Status.notFound && /third/.test(error.message),
  );
});

test('a call can be given up, and its late answer is ignored', async () => {
  const object = new ServedObject({ id: 'o' });
  await using pair = await connectedPair(objectsOnly(object));
  const controller = new AbortController();
  const reason = new Error('changed my mind');
  const aborted = pair.client.wait('o', { signal: controller.signal });
  const timedOut = pair.client.wait('o', { timeoutMs: 1 });
  controller.abort(reason);
  await assert.rejects(aborted, reason);
  await assert.rejects(timedOut, { code: 'ERR_ARCBOX_AGENT_TIMEOUT' });
  object.finish({ code: 0 });
  assert.deepEqual(await pair.client.wait('o'), { signaled: false, code: 0, error: '' });
  await assert.rejects(pair.client.wait('o', { signal: AbortSignal.abort(reason) }), reason);
});

test('limits are refused before anything is sent', async () => {
  await using pair = await connectedPair({ object: () => undefined, op: () => undefined });
  const sync = { case: 'sync', value: {} } as const;
  assert.equal((await pair.client.batch(Array(BATCH_OPS_MAX).fill(sync))).length, BATCH_OPS_MAX);
  const tooMany = pair.client.batch(Array(BATCH_OPS_MAX + 1).fill(sync));
  await assert.rejects(tooMany, { code: 'ERR_ARCBOX_AGENT_LIMIT' });
  const tooLarge = pair.client.batch([
    { case: 'write', value: { path: '/x', data: new Uint8Array(4 << 20) } },
  ]);
  await assert.rejects(tooLarge, { code: 'ERR_ARCBOX_AGENT_LIMIT' });
  await assert.rejects(pair.client.attach('x'.repeat(65), { onChunk() {} }), {
    code: 'ERR_ARCBOX_AGENT_LIMIT',
  });
  assert.equal((await pair.client.batch([sync])).length, 1);
});

test('the end of the connection ends every call and every later one', async () => {
  const object = new ServedObject({ id: 'o' });
  await using pair = await connectedPair(objectsOnly(object));
  const wait = pair.client.wait('o');
  const attachment = await pair.client.attach('o', { onChunk() {} });
  await pair.session.close();
  await assert.rejects(wait, { code: 'ERR_ARCBOX_AGENT_CLOSED' });
  await assert.rejects(attachment.closed, { code: 'ERR_ARCBOX_AGENT_CLOSED' });
  assert.equal((await pair.client.closed).code, 'ERR_ARCBOX_AGENT_CLOSED');
  await assert.rejects(pair.client.wait('o'), { code: 'ERR_ARCBOX_AGENT_CLOSED' });
});
