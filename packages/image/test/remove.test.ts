import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { sha256 } from '../src/digest.ts';
import { ImageError } from '../src/index.ts';
import { ociArchive, testImage } from './support/archives.ts';
import { type TestStore, withStore } from './support/store.ts';

const image = testImage([[{ name: 'a', data: 'x' }]]);
const ID = sha256(image.config);

async function loaded(names: readonly string[], run: (test: TestStore) => Promise<void>): Promise<void> {
  await withStore(async (test) => {
    await test.store.load(Readable.from([ociArchive(image, names)]));
    await run(test);
  });
}
const use = ({ database }: TestStore, container: string): void => {
  database.exec(`INSERT INTO "references" VALUES ('container:${container}', 'image:${ID}')`);
};
const conflict = (why: RegExp) => (error: unknown) =>
  error instanceof ImageError && error.code === 'ERR_ARCBOX_IMAGE_IN_USE' && why.test(error.message);
const exists = async ({ store }: TestStore): Promise<boolean> =>
  store.resolve(ID).then(
    () => true,
    () => false,
  );

test('a name goes, and the image with its last one', async () => {
  await loaded(['a:1', 'a:2'], async (test) => {
    assert.deepEqual(await test.store.remove('a:1'), [{ untagged: 'a:1' }]);
    assert.deepEqual(await test.store.remove('a:2'), [{ untagged: 'a:2' }, { deleted: ID }]);
    assert.equal(await exists(test), false);
  });
});

test('by its ID: all names of one repository, but not of several', async () => {
  await loaded(['a:1', 'a:2'], async (test) => {
    assert.deepEqual(await test.store.remove(ID.slice(7, 19)), [
      { untagged: 'a:1' },
      { untagged: 'a:2' },
      { deleted: ID },
    ]);
  });
  await loaded(['a:1', 'b:1'], async (test) => {
    await assert.rejects(test.store.remove(ID), conflict(/multiple repositories/));
    assert.equal((await test.store.remove(ID, { force: true })).length, 3);
  });
});

test('an image that a container uses', async () => {
  await loaded(['a:1', 'a:2'], async (test) => {
    use(test, 'stopped');
    // Another name is left: nothing is lost.
    await test.store.remove('a:2');
    await assert.rejects(test.store.remove('a:1'), conflict(/must force.*container stopped is using/));
    await assert.rejects(test.store.remove(ID), conflict(/must be forced.*stopped container/));
    assert.deepEqual(await test.store.remove('a:1', { force: true }), [{ untagged: 'a:1' }, { deleted: ID }]);
    // Not listed, but there as long as the container is.
    assert.equal((await test.store.list()).length, 1);
    assert.equal(await exists(test), true);
    test.database.exec(`DELETE FROM "references" WHERE holder = 'container:stopped'`);
    await test.store.collect();
    assert.equal(await exists(test), false);
  });
  await loaded(['a:1'], async (test) => {
    use(test, 'busy');
    test.running.add('busy');
    await assert.rejects(test.store.remove(ID, { force: true }), conflict(/cannot be forced.*running/));
    assert.deepEqual(await test.store.remove('a:1', { force: true }), [{ untagged: 'a:1' }]);
    const list = await test.store.list();
    assert.deepEqual(list.find(({ id }) => id === ID)?.names, []);
  });
});

test('an image that lost its name stays until prune; one in use stays anyway', async () => {
  await loaded(['a:1'], async (test) => {
    await test.store.tag('busybox', 'a:1');
    assert.deepEqual((await test.store.list()).find(({ id }) => id === ID)?.names, []);
    use(test, 'c');
    assert.deepEqual((await test.store.prune()).removed, []);
    test.database.exec(`DELETE FROM "references" WHERE holder = 'container:c'`);
    assert.deepEqual((await test.store.prune({ createdBeforeMs: Date.parse('2020-01-01') })).removed, []);
    const { removed, reclaimedBytes } = await test.store.prune();
    assert.deepEqual(removed, [{ deleted: ID }]);
    assert.ok(reclaimedBytes > 4096);
  });
  await loaded(['a:1'], async (test) => {
    assert.deepEqual((await test.store.prune()).removed, []);
    assert.deepEqual((await test.store.prune({ all: true })).removed, [{ untagged: 'a:1' }, { deleted: ID }]);
    assert.equal((await test.store.list()).length, 1);
  });
});

test('layers that images share go with the last of them', async () => {
  await loaded(['a:1'], async ({ store, database }) => {
    const derived = await store.createFromLayer({ base: 'a:1', changes: ['ENV A=1'], names: ['b:1'] });
    await store.remove('a:1');
    assert.equal((await store.resolve('b:1')).layers.length, 1);
    await store.remove(derived.id);
    assert.equal(database.prepare('SELECT count(*) AS n FROM image_layers').get()?.n, 1);
  });
});

test('the embedded image cannot be removed, only its other names', async () => {
  await withStore(async ({ store }) => {
    const refused = (error: unknown): boolean =>
      error instanceof ImageError && error.code === 'ERR_ARCBOX_IMAGE_EMBEDDED';
    await assert.rejects(store.remove('busybox'), refused);
    await assert.rejects(store.remove((await store.resolve('busybox')).id, { force: true }), refused);
    await store.tag('busybox', 'other:1');
    assert.deepEqual(await store.remove('other:1'), [{ untagged: 'other:1' }]);
    assert.deepEqual((await store.prune({ all: true })).removed, []);
    assert.equal((await store.list()).length, 1);
  });
});

test('what lies about when the store opens is removed', async () => {
  await loaded(['a:1'], async ({ store, reopen, home }) => {
    await store.close();
    const { writeFileSync, mkdirSync, readdirSync } = await import('node:fs');
    writeFileSync(`${home}/content/sha256/${'0'.repeat(64)}`, '');
    writeFileSync(`${home}/content/layers/junk`, '');
    mkdirSync(`${home}/content/tmp/old`);
    const next = reopen();
    await next.collect();
    assert.deepEqual(readdirSync(`${home}/content/tmp`), []);
    assert.equal((await next.resolve('a:1')).id, ID);
  });
});

test('what happens to images is told, in Docker’s words', async () => {
  const told: string[] = [];
  await withStore(
    async ({ store }) => {
      await store.load(Readable.from([ociArchive(image, ['a:1'])]));
      await store.tag('a:1', 'a:2');
      await store.remove('a:2');
      await store.createFromLayer({ layer: Readable.from([image.layers[0]]), names: ['b:1'] });
      await store.remove('a:1');
    },
    {
      onEvent: (action, id, name) => told.push(`${action} ${id === ID ? 'ID' : 'other'} ${name.slice(0, 6)}`),
    },
  );
  assert.deepEqual(told, [
    'load ID sha256',
    'tag ID a:2',
    'untag ID a:2',
    'import other b:1',
    'tag other b:1',
    'untag ID a:1',
    'delete ID sha256',
  ]);
});
