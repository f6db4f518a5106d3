import assert from 'node:assert/strict';
import { existsSync, statSync } from 'node:fs';
import { test } from 'node:test';
import type { ContainerManager, MountRequest, Runtime } from '../src/index.ts';
import { Store } from '../src/state/store.ts';
import { FakeRuntime } from './support/fake-runtime.ts';

const volume = (source: string, target: string, more: Partial<MountRequest> = {}): MountRequest => ({
  type: 'volume',
  source,
  target,
  readOnly: false,
  noCopy: false,
  tmpfsBytes: 0,
  tmpfsMode: 0,
  ...more,
});

async function sleeper(containers: ContainerManager, mounts: MountRequest[], more = {}): Promise<string> {
  const { id } = await containers.create({ image: 'busybox', command: ['sleep'], mounts, ...more });
  await containers.start(id);
  return id;
}

const attached = (fake: FakeRuntime): string[] =>
  [...fake.host.machines.values()].flatMap(({ guest }) =>
    guest.disks.map(({ id }) => id).filter((id) => id.startsWith('v-')),
  );

test('a named volume is made once, shared by containers, and stays when they go', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const [containers, volumes] = [await runtime.containers(), await runtime.volumes()];
  const one = await sleeper(containers, [volume('data', '/data')]);
  const two = await sleeper(containers, [volume('data', '/other', { readOnly: true })]);
  assert.deepEqual(
    volumes.list().map(({ name, state }) => [name, state]),
    [['data', 'made']],
  );
  const disk = statSync(fake.layout.volumeDisk('data'));
  assert.ok(disk.size > 2 ** 30 && disk.blocks * 512 < 16 * 2 ** 20, 'sparse');
  assert.deepEqual(attached(fake), ['v-1']);
  await assert.rejects(volumes.remove('data'), /in use by the container/);
  await containers.remove(one, { force: true, volumes: true });
  await containers.stop(two, { timeoutMs: 0 });
  await assert.rejects(volumes.remove('data'), /in use/);
  await containers.remove(two);
  assert.equal((await volumes.usage(volumes.find('data'))).containers, 0);
  await volumes.remove('data');
  assert.deepEqual(attached(fake), []);
  assert.equal(existsSync(fake.layout.volume('data')), false);
  assert.throws(() => volumes.find('data'), /no such volume/);
});

test('anonymous volumes go with --rm and rm -v, and stay otherwise until they are pruned', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const [containers, volumes] = [await runtime.containers(), await runtime.volumes()];
  const auto = await sleeper(containers, [volume('', '/a')], { autoRemove: true });
  await containers.kill(auto);
  while (volumes.list().length > 0) await new Promise(setImmediate);
  const one = await sleeper(containers, [volume('', '/a')]);
  const two = await sleeper(containers, [volume('', '/a')]);
  await containers.remove(one, { force: true, volumes: true });
  assert.equal(volumes.list().length, 1);
  await containers.remove(two, { force: true });
  assert.equal(volumes.list().length, 1);
  await volumes.create({ name: 'named' });
  assert.equal((await volumes.prune({})).removed.length, 1);
  assert.deepEqual(
    volumes.list().map(({ name }) => name),
    ['named'],
  );
  assert.deepEqual((await volumes.prune({ all: true })).removed, ['named']);
});

test('what cannot be mounted is refused before anything is made', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const wrong: [MountRequest[], RegExp][] = [
    [[volume('/etc', '/host', { type: 'bind' })], /sharing files of the host .* use a volume/],
    [[volume('data', 'relative')], /not an absolute path/],
    [[volume('data', '/')], /over the container's root/],
    [[volume('a/b', '/data')], /invalid volume name/],
    [[volume('one', '/data'), volume('two', '/data/')], /duplicate mount point: \/data/],
    [[volume('data', '/data', { tmpfsBytes: 1 })], /belong to a tmpfs/],
  ];
  for (const [mounts, message] of wrong)
    await assert.rejects(containers.create({ image: 'busybox', mounts }), message);
  assert.deepEqual(containers.list(), []);
  assert.deepEqual((await runtime.volumes()).list(), []);
});

test('the next daemon knows who has which volume, and ends what an earlier one began', async () => {
  await using fake = await FakeRuntime.create();
  let id = '';
  {
    const runtime = await fake.open();
    id = await sleeper(await runtime.containers(), [volume('data', '/data')]);
    await (await runtime.volumes()).create({ name: 'leaving' });
    await runtime.close({ disown: true });
  }
  {
    using store = new Store(fake.layout.stateDatabase);
    const leaving = store.volumes().find(({ name }) => name === 'leaving');
    store.setVolumeState(leaving?.number ?? 0, 'removing');
    // A daemon that died before the disk was there.
    store.insertVolume({
      name: 'half',
      state: 'new',
      anonymous: false,
      labels: {},
      sizeBytes: 2 ** 30,
      createdMs: 1,
    });
  }
  await using runtime: Runtime = await fake.open();
  const [containers, volumes] = [await runtime.containers(), await runtime.volumes()];
  assert.deepEqual(
    volumes.list().map(({ name }) => name),
    ['data', 'half'],
  );
  assert.equal(existsSync(fake.layout.volume('leaving')), false);
  await containers.remove(id, { force: true });
  await volumes.remove('data');
  assert.deepEqual(attached(fake), []);
  const half = await sleeper(containers, [volume('half', '/data')]);
  assert.equal(volumes.find('half').state, 'made');
  await containers.remove(half, { force: true });
});

test('volumes that nobody uses leave the machine before it idles down, and when there are many', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  for (let n = 0; n < 20; n += 1) {
    const id = await sleeper(containers, [volume(`data-${n}`, '/data')]);
    await containers.remove(id, { force: true });
  }
  assert.ok(attached(fake).length <= 17, `${attached(fake).length} are attached`);
  await runtime.idleMachine('default');
  const id = await sleeper(containers, [volume('data-3', '/data')]);
  assert.deepEqual(attached(fake), ['v-4']);
  await containers.remove(id, { force: true });
});

test('a container that is being made has its volumes already', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const [containers, volumes] = [await runtime.containers(), await runtime.volumes()];
  const mounts = [volume('', '/a'), volume('second', '/b')];
  const creating = containers.create({ image: 'busybox', command: ['sleep'], mounts, idempotencyKey: 'k' });
  while (volumes.list().length < 2) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual((await volumes.prune({ all: true })).removed, []);
  await assert.rejects(volumes.remove('second'), /in use/);
  // A client that lost patience and asks again gets the same one, whole.
  const again = await containers.create({ image: 'busybox', command: ['sleep'], idempotencyKey: 'k' });
  assert.equal(again.id, (await creating).id);
  assert.equal(volumes.find('second').state, 'made');
  await containers.remove(again.id, { volumes: true });
  await volumes.remove('second');
  assert.deepEqual(volumes.list(), []);
});

test('two creations of one key are one container', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const made = await Promise.all(
    [1, 2, 3].map(() => containers.create({ image: 'busybox', command: ['sleep'], idempotencyKey: 'same' })),
  );
  assert.equal(new Set(made.map(({ id }) => id)).size, 1);
  assert.equal(containers.list().length, 1);
});

test('a volume that has to make room is not taken from a container that begins to use it', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  for (let n = 0; n < 17; n += 1) {
    const id = await sleeper(containers, [volume(`data-${n}`, '/data')]);
    await containers.remove(id, { force: true });
    await containers.drain();
  }
  for (let round = 0; round < 10; round += 1) {
    const [oldest = ''] = attached(fake);
    const number = Number(oldest.slice(2));
    const name = (await runtime.volumes()).list().find((record) => record.number === number)?.name ?? '';
    const starting = sleeper(containers, [volume(`new-${round}`, '/data')]);
    for (let turn = 0; turn < round * 3; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    const ids = [await sleeper(containers, [volume(name, '/data')]), await starting];
    assert.ok(attached(fake).includes(oldest), `round ${round}: ${oldest} is attached`);
    assert.ok(fake.guest.mounts.has(`/v/${number}`), `round ${round}: ${oldest} is mounted`);
    for (const id of ids) await containers.remove(id, { force: true });
    await containers.drain();
  }
});

test('what was made for one container alone is given up with its record', async (t) => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const id = await sleeper(containers, [volume('', '/a'), volume('kept', '/b')]);
  const states: string[][] = [];
  const { emit } = runtime.events;
  t.mock.method(runtime.events, 'emit', (...event: Parameters<typeof emit>) => {
    if (event[0] === 'container' && event[1] === 'destroy') {
      // What a daemon finds that comes after one that died here.
      using store = new Store(fake.layout.stateDatabase);
      states.push(store.volumes().map(({ anonymous, state }) => `${anonymous} ${state}`));
      assert.deepEqual(store.containers(), []);
    }
    emit.apply(runtime.events, event);
  });
  await containers.remove(id, { force: true, volumes: true });
  assert.deepEqual(states[0]?.toSorted(), ['false made', 'true removing']);
  assert.deepEqual(
    (await runtime.volumes()).list().map(({ name }) => name),
    ['kept'],
  );
});

test('the volumes of other containers, at the same places; what was asked for comes first, the image last', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const config = (mounts: MountRequest[], volumesFrom: string[]) =>
    containers
      .create({ image: 'busybox', mounts, volumesFrom })
      .then(({ config: { mounts: made } }) =>
        made.map((mount) => [mount.type === 'volume' ? mount.name : '', mount.target, mount.readOnly]),
      );
  await containers.create({
    name: 'one',
    image: 'busybox',
    mounts: [volume('vol-a', '/a'), volume('vol-b', '/b')],
  });
  const other = volume('', '/b', { type: 'tmpfs' });
  await containers.create({ name: 'two', image: 'busybox', mounts: [volume('vol-c', '/c'), other] });
  await containers.create({
    name: 'three',
    image: 'busybox',
    mounts: [volume('vol-d', '/a', { readOnly: true })],
  });
  assert.deepEqual(await config([], ['one:ro', 'two']), [
    ['vol-a', '/a', true],
    ['vol-b', '/b', true],
    ['vol-c', '/c', false],
  ]);
  assert.deepEqual(await config([volume('mine', '/b')], ['one', 'three']), [
    ['mine', '/b', false],
    ['vol-d', '/a', true],
  ]);
  await assert.rejects(config([], ['nosuch']), /no such container: nosuch/);
  await assert.rejects(config([], ['one:z']), /CONTAINER\[:ro\]/);
});
