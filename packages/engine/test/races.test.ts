/** Two things that happen to one container at once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Container } from '../src/container/container.ts';
import type { ContainerManager } from '../src/container/container-manager.ts';
import { parseRestartPolicy } from '../src/container/life-options.ts';
import { FakeRuntime } from './support/fake-runtime.ts';

const turn = async (): Promise<void> => {
  await new Promise(setImmediate);
};

/** A container that has ended, and whose policy waits to start it again. */
async function waitingForRestart(containers: ContainerManager): Promise<Container> {
  const life = { restart: parseRestartPolicy('always') };
  const { id } = await containers.create({ image: 'busybox', command: ['both'], life });
  await containers.start(id);
  const container = containers.find(id);
  while (container.record.state !== 'restarting') await turn();
  return container;
}

test('a stop that comes while its policy waits to start it again is the last word', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const container = await waitingForRestart(containers);
  const { id } = container.record;
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

test('a container that is removed when it exits can be restarted, and is removed afterwards', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['sleep'], autoRemove: true });
  await containers.start(id);
  await containers.restart(id, { timeoutMs: 0 });
  assert.equal(containers.inspect(id).state, 'running');
  assert.equal(containers.inspect(id).run, 2);
  const removed = containers.wait(id, 'removed');
  fake.guest.failNext = { op: 'spawn', errno: 5 };
  await assert.rejects(containers.restart(id, { timeoutMs: 0 }));
  await removed;
  assert.deepEqual(containers.list(), []);
});

test('a paused container that is killed while it is stopped has been stopped', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['sleep'] });
  await containers.start(id);
  await containers.pause(id);
  const container = containers.find(id);
  const held = Promise.withResolvers<void>();
  const holding = container.transitions.run(() => held.promise);
  const killed = containers.kill(id);
  await killed;
  // Its end waits for its turn in the first place, the stop behind it.
  await container.process?.ended;
  await turn();
  const stopped = containers.stop(id);
  held.resolve();
  await Promise.all([holding, stopped]);
  assert.equal(container.record.state, 'exited');
});

test('a machine that is stopped is not brought back by a container that waits for its next start', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const container = await waitingForRestart(containers);
  const machine = runtime.machine('default');
  await runtime.stopMachine('default');
  assert.equal(machine.state, 'stopped');
  assert.equal(container.record.state, 'exited');
  assert.equal(container.record.stoppedByUser, false, 'the next daemon starts it');
});
