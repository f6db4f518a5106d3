/** Two things that happen to one container at once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRestartPolicy } from '../src/container/life-options.ts';
import { FakeRuntime } from './support/fake-runtime.ts';

const turn = async (): Promise<void> => {
  await new Promise(setImmediate);
};

test('a stop that comes while its policy waits to start it again is the last word', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const life = { restart: parseRestartPolicy('always') };
  const { id } = await containers.create({ image: 'busybox', command: ['both'], life });
  await containers.start(id);
  const container = containers.find(id);
  while (container.record.state !== 'restarting') await turn();
  // The last run's left-overs take their time, so that the next start waits for them.
  const cleaned = Promise.withResolvers<void>();
  container.cleanUp = cleaned.promise;
  while (!container.transitions.busy) await turn();
  await containers.stop(id);
  cleaned.resolve();
  await container.transitions.run(async () => {});
  assert.equal(container.record.state, 'exited');
  assert.equal(container.record.run, 1);
});

test('a start that fails leaves its networks as they were', async (t) => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const leave = t.mock.method(runtime.plane, 'leave');
  const { id } = await containers.create({ image: 'busybox', command: ['echo'] });
  fake.guest.failNext = { op: 'spawn', errno: 5 };
  await assert.rejects(containers.start(id));
  assert.deepEqual(
    leave.mock.calls.map((call) => call.arguments),
    [[id]],
  );
  assert.equal(containers.inspect(id).state, 'created');
});
