import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeRuntime } from './support/fake-runtime.ts';

test('without room on the disk nothing is begun, and what runs goes on', async () => {
  await using fake = await FakeRuntime.create();
  const id = await (async () => {
    const runtime = await fake.open();
    const containers = await runtime.containers();
    const { id } = await containers.create({ image: 'busybox', command: ['sleep'] });
    await containers.start(id);
    await runtime.close({ disown: true });
    return id;
  })();
  await using runtime = await fake.open({ ARCBOX_DISK_RESERVE: '900t' });
  const [containers, volumes] = [await runtime.containers(), await runtime.volumes()];
  const refusal = {
    code: 'ERR_ARCBOX_NO_SPACE',
    message: /no room for .* \(disk\.reserve\); arcbox system prune/,
  };
  await assert.rejects(containers.create({ image: 'busybox' }), refusal);
  await assert.rejects(volumes.create({ name: 'data' }), refusal);
  assert.deepEqual(volumes.list(), []);
  assert.equal(containers.list().length, 1);
  assert.equal(containers.inspect(id).state, 'running');
  await containers.remove(id, { force: true });
});

test('without memory on the host no machine starts, and the container says why', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open({ ARCBOX_MEMORY_RESERVE: '900t' });
  const containers = await runtime.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['echo', 'x'] });
  await assert.rejects(containers.start(id), {
    code: 'ERR_ARCBOX_NO_MEMORY',
    message: /the host has .* available, .* \(memory\.reserve\)/,
  });
  assert.equal(containers.inspect(id).state, 'created');
  assert.match(containers.inspect(id).error, /memory/);
  assert.equal(fake.host.machines.size, 0);
  await containers.remove(id);
});
