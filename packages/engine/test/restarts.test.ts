import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRestartPolicy } from '../src/container/life-options.ts';
import { Restarts } from '../src/container/restarts.ts';
import type { ContainerManager, Runtime } from '../src/index.ts';
import { FakeRuntime } from './support/fake-runtime.ts';

/** Waits for the container's next event of that name, from event `after` on; answers with its number. */
async function event(runtime: Runtime, action: string, after: number): Promise<number> {
  for await (const { events } of runtime.events.read({ afterSeq: after, filters: { event: [action] } }))
    if (events[0] !== undefined) return events[0].seq;
  throw new Error(`no further ${action}`);
}

async function create(containers: ContainerManager, policy: string, command: string[]): Promise<string> {
  const life = { restart: parseRestartPolicy(policy) };
  return (await containers.create({ image: 'busybox', command, life })).id;
}

test('on-failure starts it again so many times and no more', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const id = await create(containers, 'on-failure:2', ['both']);
  await containers.start(id);
  let seq = 0;
  for (let run = 1; run <= 3; run += 1) seq = await event(runtime, 'die', seq);
  const record = containers.inspect(id);
  assert.equal(record.state, 'exited');
  assert.equal(record.run, 3);
  assert.equal(record.restarts, 2);
  await containers.start(id);
  assert.equal(containers.inspect(id).restarts, 0, 'somebody started it: counted anew');
  const good = await create(containers, 'on-failure', ['echo', 'fine']);
  await containers.start(good);
  assert.equal((await containers.wait(good)).exitCode, 0);
  assert.equal(containers.inspect(good).state, 'exited');
});

test('stop and kill end the matter, also while it waits for its next start', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const id = await create(containers, 'always', ['both']);
  await containers.start(id);
  await event(runtime, 'die', 0);
  // The transition is part of the exit's; the state follows at once.
  while (containers.inspect(id).state !== 'restarting') await new Promise(setImmediate);
  await assert.rejects(containers.remove(id), /is restarting; stop it first/);
  await containers.stop(id);
  assert.equal(containers.inspect(id).state, 'exited');
  await containers.start(id);
  while (containers.inspect(id).state !== 'restarting') await new Promise(setImmediate);
  await containers.kill(id);
  assert.equal(containers.inspect(id).state, 'exited');
  const sleeper = await create(containers, 'unless-stopped', ['sleep']);
  await containers.start(sleeper);
  await containers.kill(sleeper);
  await containers.wait(sleeper);
  assert.equal(containers.inspect(sleeper).state, 'exited');
  await containers.remove(id);
  await containers.remove(sleeper);
});

test('a machine that is lost takes nothing away for good', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const id = await create(containers, 'always', ['sleep']);
  await containers.start(id);
  const first = await event(runtime, 'start', 0);
  for (const machine of fake.host.machines.values()) machine.crash();
  await event(runtime, 'start', first + 1);
  while (containers.inspect(id).state !== 'running') await new Promise(setImmediate);
  assert.equal(containers.inspect(id).run, 2);
  assert.equal(fake.host.machines.size, 1);
});

test('the next daemon starts what has to run: after its own end, after a crash, in the middle of waiting', async () => {
  await using fake = await FakeRuntime.create();
  const ids: Record<string, string> = {};
  {
    await using runtime = await fake.open();
    const containers = await runtime.containers();
    for (const policy of ['always', 'unless-stopped', 'on-failure', 'no']) {
      ids[policy] = await create(containers, policy, ['sleep']);
      await containers.start(ids[policy]);
    }
    ids.stopped = await create(containers, 'unless-stopped', ['sleep']);
    await containers.start(ids.stopped);
    await containers.stop(ids.stopped, { timeoutMs: 0 });
    ids.never = await create(containers, 'always', ['sleep']);
    ids.failing = await create(containers, 'always', ['both']);
    await containers.start(ids.failing);
    while (containers.inspect(ids.failing).state !== 'restarting') await new Promise(setImmediate);
  }
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const state = (which: string): string => containers.inspect(ids[which] ?? '').state;
  let seq = 0;
  for (const which of ['always', 'unless-stopped', 'on-failure'])
    while (state(which) !== 'running') seq = await event(runtime, 'start', seq);
  while ((containers.inspect(ids.failing ?? '').restarts ?? 0) < 1) seq = await event(runtime, 'start', seq);
  assert.deepEqual(['no', 'stopped', 'never'].map(state), ['exited', 'exited', 'created']);
});

test('the waits grow from 100 ms to a minute, and begin anew for one that ran for ten seconds', (t) => {
  const waits: (number | undefined)[] = [];
  const timer = setTimeout(() => {}, 0);
  t.mock.method(globalThis, 'setTimeout', (_act: () => void, delayMs?: number) => {
    waits.push(delayMs);
    return timer;
  });
  const record = {
    run: 1,
    state: 'exited',
    exitCode: 1,
    startedMs: 0,
    finishedMs: 0,
    config: { life: { restart: { name: 'always', maxRetries: 0 } } },
  };
  const container = { record, apply() {} };
  const restarts = new Restarts(() => {});
  for (const ranMs of [...Array.from({ length: 12 }, () => 10), 10_000]) {
    record.finishedMs = ranMs;
    restarts.consider(container as never);
  }
  assert.deepEqual(
    waits,
    [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000, 100],
  );
});

test('policies are read as docker writes them', async () => {
  assert.deepEqual(parseRestartPolicy('on-failure:5'), { name: 'on-failure', maxRetries: 5 });
  assert.deepEqual(parseRestartPolicy('unless-stopped'), { name: 'unless-stopped', maxRetries: 0 });
  for (const wrong of ['', 'sometimes', 'always:3', 'on-failure:', 'on-failure:x'])
    assert.throws(() => parseRestartPolicy(wrong), /is no restart policy/);
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const life = { restart: parseRestartPolicy('always') };
  await assert.rejects(
    containers.create({ image: 'busybox', autoRemove: true, life }),
    /cannot be restarted/,
  );
});

test('a policy that is changed counts from the next end on, and for one that waits to be started', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const id = await create(containers, 'no', ['sleep']);
  await containers.start(id);
  await containers.update(id, {}, parseRestartPolicy('on-failure:1'));
  assert.deepEqual(containers.inspect(id).config.life.restart, { name: 'on-failure', maxRetries: 1 });
  const again = await create(containers, 'always', ['both']);
  await containers.start(again);
  while (containers.inspect(again).state !== 'restarting') await new Promise(setImmediate);
  await containers.update(again, { memoryBytes: 2 ** 26 }, parseRestartPolicy('no'));
  assert.equal(containers.inspect(again).state, 'exited');
  assert.equal(containers.inspect(again).config.host.limits.memoryBytes, 2 ** 26);
  const { id: brief } = await containers.create({ image: 'busybox', autoRemove: true });
  await assert.rejects(containers.update(brief, {}, parseRestartPolicy('always')), /cannot be restarted/);
  const bad = { name: 'always', maxRetries: 3 } as const;
  await assert.rejects(containers.update(id, {}, bad), /belongs to on-failure/);
});
