/** A policy that is a function: it decides while it is there, and the rules that are stored when it is not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NetworkPolicy } from '../src/index.ts';
import { FakeRuntime } from './support/fake-runtime.ts';

const MACHINE = { kind: 'machine', id: 'default' } as const;
const RULES: NetworkPolicy = { default: 'public-only' };

test('a function decides until rules replace it; it is not stored, and rules of before are', async () => {
  await using fake = await FakeRuntime.create();
  {
    await using runtime = await fake.open();
    const { policies, plane } = runtime;
    const one: NetworkPolicy = () => 'deny';
    await policies.set(plane, MACHINE, one);
    assert.equal(policies.effective(MACHINE), one);
    assert.deepEqual(policies.subjects(), [MACHINE], 'a network thread that is started again is told of it');
    await policies.set(plane, MACHINE, RULES);
    assert.deepEqual(policies.effective(MACHINE), RULES);
    await policies.set(plane, MACHINE, one);
    assert.ok(policies.hasFunction(MACHINE));
    assert.deepEqual(policies.get(MACHINE), RULES);
    assert.deepEqual(policies.subjects(), [MACHINE]);
  }
  await using runtime = await fake.open();
  assert.deepEqual(runtime.policies.effective(MACHINE), RULES);
  await runtime.policies.set(runtime.plane, MACHINE, () => 'allow');
  await runtime.policies.set(runtime.plane, MACHINE, undefined);
  assert.equal(runtime.policies.effective(MACHINE), undefined);
  assert.deepEqual(runtime.policies.subjects(), []);
});

test('a function goes with its container', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['sleep'] });
  const subject = { kind: 'container', id } as const;
  await runtime.policies.set(runtime.plane, subject, () => 'deny');
  await containers.remove(id, { force: true });
  assert.equal(runtime.policies.effective(subject), undefined);
});

test('where packets are routed nobody is asked, so a function is refused', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open({ ARCBOX_NETWORK_MODE: 'tap' });
  await assert.rejects(
    runtime.policies.set(runtime.plane, MACHINE, () => 'allow'),
    { code: 'ERR_ARCBOX_INVALID_ARGUMENT', message: /network\.mode = "tap"/ },
  );
  assert.equal(runtime.policies.effective(MACHINE), undefined);
});
