/** What cannot be written down: intentions are refused and leave everything as it was, facts stay facts. */
import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { EventLog } from '../src/events/event-log.ts';
import { FakeRuntime } from './support/fake-runtime.ts';

/** Every change of the containers' table fails while it is there. */
function blockContainers(fake: FakeRuntime): Disposable {
  const database = new DatabaseSync(fake.layout.stateDatabase);
  database.exec(
    "CREATE TRIGGER full BEFORE UPDATE ON containers BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END",
  );
  return {
    [Symbol.dispose]() {
      database.exec('DROP TRIGGER full');
      database.close();
    },
  };
}

test('a start or a removal that cannot be written down has not begun', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['echo', 'now'] });
  {
    using _full = blockContainers(fake);
    await assert.rejects(containers.start(id), /full/);
    assert.equal(containers.inspect(id).state, 'created');
    assert.equal(containers.inspect(id).run, 0);
    await assert.rejects(containers.remove(id), /full/);
    assert.equal(containers.inspect(id).state, 'created');
  }
  await containers.start(id);
  assert.equal((await containers.wait(id)).exitCode, 0);
  await containers.remove(id);
  assert.deepEqual(containers.list(), []);
});

test('an end that cannot be written down is an end', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['sleep'] });
  await containers.start(id);
  {
    const exited = containers.wait(id);
    const { process } = containers.find(id);
    using _full = blockContainers(fake);
    await process?.signal(9);
    await exited;
    assert.equal(containers.inspect(id).state, 'exited');
  }
  await containers.start(id);
  assert.equal(containers.inspect(id).state, 'running');
});

test('an event that cannot be written down takes nothing back', () => {
  const errors: unknown[] = [];
  using events = new EventLog(':memory:', { onWriteError: (error) => errors.push(error) });
  events.emit('container', 'start', 'a');
  // Refused by the database, as a write to a full disk is.
  events.emit('container', 'start', undefined as unknown as string);
  events.emit('container', 'die', 'a');
  assert.equal(errors.length, 1);
  assert.equal(events.lastSeq, 2);
});

test('a container whose volumes cannot all be written down leaves none', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const [containers, volumes] = [await runtime.containers(), await runtime.volumes()];
  const database = new DatabaseSync(fake.layout.stateDatabase);
  database.exec(
    "CREATE TRIGGER full BEFORE INSERT ON volumes WHEN NEW.name = 'second' BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END",
  );
  const mount = { type: 'volume', readOnly: false, noCopy: false, tmpfsBytes: 0, tmpfsMode: 0 } as const;
  const mounts = ['first', 'second'].map((source) => ({ ...mount, source, target: `/${source}` }));
  const options = { image: 'busybox', command: ['echo'], mounts };
  await assert.rejects(containers.create(options), /full/);
  assert.deepEqual(volumes.list(), []);
  assert.deepEqual(containers.list(), []);
  database.exec('DROP TRIGGER full');
  database.close();
  await containers.create(options);
  assert.deepEqual(
    volumes.list().map(({ name, state }) => `${name} ${state}`),
    ['first made', 'second made'],
  );
});
