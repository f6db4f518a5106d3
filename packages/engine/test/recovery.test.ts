import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { Store } from '../src/state/store.ts';
import { collect, FakeRuntime } from './support/fake-runtime.ts';

test('the next daemon takes the machine over: containers go on, their output whole', async () => {
  let more: (() => Promise<void>) | undefined;
  await using fake = await FakeRuntime.create({
    async talk({ out, exit }) {
      await out('before ');
      const { promise, resolve } = Promise.withResolvers<void>();
      more = async () => resolve();
      await promise;
      await out('after');
      exit(5);
    },
  });
  let id = '';
  let cursor = 0;
  {
    const runtime = await fake.open();
    const containers = await runtime.containers();
    ({ id } = await containers.create({ image: 'busybox', command: ['talk'] }));
    const attachment = await containers.attach(id);
    await containers.start(id);
    const batch = await attachment.read();
    assert.equal(batch?.records[0]?.data.toString(), 'before ');
    cursor = batch.position;
    await runtime.close({ disown: true });
  }
  const pid = [...fake.host.machines.keys()];
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  assert.deepEqual([...fake.host.machines.keys()], pid, 'the same machine');
  assert.equal(containers.inspect(id).state, 'running');
  await using attachment = await containers.attach(id, { cursor, run: 1 });
  await more?.();
  assert.equal((await collect(attachment)).out, 'after');
  assert.equal((await attachment.exited).exitCode, 5);
  await using whole = await containers.attach(id, { cursor: 'start', run: 1 });
  assert.equal((await collect(whole)).out, 'before after');
});

test('a container whose log is broken is lost alone: the others of its machine go on', async () => {
  await using fake = await FakeRuntime.create();
  {
    const runtime = await fake.open();
    const containers = await runtime.containers();
    for (const name of ['broken', 'whole']) {
      await containers.create({ image: 'busybox', command: ['sleep'], name });
      await containers.start(name);
    }
    const { id } = containers.inspect('broken');
    await runtime.close({ disown: true });
    await rm(fake.layout.container(id), { recursive: true });
    await writeFile(fake.layout.container(id), 'in the way');
  }
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  assert.equal(containers.inspect('whole').state, 'running');
  assert.equal(containers.inspect('broken').state, 'exited');
  assert.match(containers.inspect('broken').error, /log could not be opened/);
  assert.equal(fake.guest.objects.size, 1, 'its process was released');
});

test('what the store says runs and the machine does not have is marked as lost', async () => {
  await using fake = await FakeRuntime.create();
  let id = '';
  {
    const runtime = await fake.open();
    const containers = await runtime.containers();
    ({ id } = await containers.create({ image: 'busybox', command: ['sleep'] }));
    await containers.start(id);
    await runtime.close({ disown: true });
  }
  for (const machine of fake.host.machines.values()) machine.kill('nobody came back');
  await using runtime = await fake.open();
  const record = (await runtime.containers()).inspect(id);
  assert.equal(record.state, 'exited');
  assert.equal(record.exitCode, 255);
  assert.match(record.error, /machine/);
});

test('what the machine has and nobody names is released', async () => {
  await using fake = await FakeRuntime.create();
  {
    const runtime = await fake.open();
    const containers = await runtime.containers();
    const { id } = await containers.create({ image: 'busybox', command: ['sleep'] });
    await containers.start(id);
    await runtime.close({ disown: true });
  }
  assert.ok(fake.guest.leftovers().length > 0);
  // The record is lost; what is in the machine is not.
  const database = new DatabaseSync(fake.layout.stateDatabase);
  database.exec('DELETE FROM containers');
  database.close();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  assert.deepEqual(containers.list(), []);
  await containers.drain();
  assert.deepEqual(fake.guest.leftovers(), []);
});

test('a container that was being started when the crash came is as if it had not been', async () => {
  await using fake = await FakeRuntime.create();
  {
    const runtime = await fake.open();
    const containers = await runtime.containers();
    const { id } = await containers.create({ image: 'busybox', command: ['echo', 'now'], name: 'half' });
    await containers.start(id);
    await runtime.close({ disown: true });
  }
  fake.guest.objects.clear();
  const database = new DatabaseSync(fake.layout.stateDatabase);
  database.exec("UPDATE containers SET state = 'starting', run = 1");
  database.close();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  assert.equal(containers.inspect('half').state, 'created');
  await using attachment = await containers.attach('half');
  await containers.start('half');
  assert.equal((await collect(attachment)).out, 'now\n');
});

test('a newer schema is refused, and so is what is no database', async () => {
  await using fake = await FakeRuntime.create();
  new Store(fake.layout.stateDatabase)[Symbol.dispose]();
  const database = new DatabaseSync(fake.layout.stateDatabase);
  database.exec('PRAGMA user_version = 99');
  database.close();
  await assert.rejects(fake.open(), /newer ArcBox/);
  assert.throws(() => new Store(fake.home), /cannot open/);
});
