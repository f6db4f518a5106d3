import assert from 'node:assert/strict';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { ImageError, parseImageConfig } from '../src/index.ts';
import { withStore, writeBoot } from './support/store.ts';

test('the embedded image is found by every form of its name and by its ID', async () => {
  await withStore(async ({ store }) => {
    const image = await store.resolve('busybox');
    assert.deepEqual(image.names, ['docker.io/library/busybox:latest']);
    assert.deepEqual(image.config.cmd, ['sh']);
    assert.equal(image.config.workingDir, '/');
    for (const name of [
      'busybox:latest',
      'docker.io/library/busybox:latest',
      image.id,
      image.id.slice(7, 19),
    ]) {
      assert.equal((await store.resolve(name)).id, image.id, name);
    }
    assert.equal((await store.list()).length, 1);
  });
});

test('an unknown image is an error that names it', async () => {
  await withStore(async ({ store }) => {
    for (const name of ['nosuch', 'busybox:2', 'localhost/busybox', 'deadbeefdead']) {
      await assert.rejects(
        store.resolve(name),
        (error) => error instanceof ImageError && error.code === 'ERR_ARCBOX_IMAGE_NOT_FOUND',
        name,
      );
    }
    await assert.rejects(store.resolve('nosuch'), /no such image: nosuch:latest/);
  });
});

test('missing assets are an error that says what to do, and the next try may succeed', async () => {
  await withStore(
    async ({ store, boot }) => {
      await rename(join(boot, 'busybox.squashfs'), join(boot, 'away'));
      await assert.rejects(store.resolve('busybox'), /run scripts\/setup/);
      assert.deepEqual(await store.list(), []);
      await rename(join(boot, 'away'), join(boot, 'busybox.squashfs'));
      assert.equal((await store.resolve('busybox')).layers.length, 1);
    },
    { embeddedLater: true },
  );
});

test('the embedded image stays with those who use it when the boot assets change', async () => {
  await withStore(async ({ store, boot, database, reopen }) => {
    const image = await store.resolve('busybox');
    await store.close();
    database.exec(`INSERT INTO "references" VALUES ('container:1', 'image:${image.id}')`);
    await writeBoot(boot, 'another');
    const next = reopen();
    await next.collect();
    assert.notEqual((await next.resolve('busybox')).id, image.id);
    assert.equal((await next.resolve(image.id)).layers.length, 1);
    assert.equal((await next.list()).length, 1);
    database.exec(`DELETE FROM "references" WHERE holder = 'container:1'`);
    await next.collect();
    await assert.rejects(next.resolve(image.id), /no such image/);
  });
});

test('a configuration of the wrong shape is refused', () => {
  const table: readonly [unknown, RegExp][] = [
    [{ config: { Cmd: 'sh' } }, /Cmd/],
    [{ config: { Env: [1] } }, /Env/],
    [{ config: { Labels: { a: 1 } } }, /label/],
    [{ config: [] }, /config/],
    [{ rootfs: { diff_ids: {} } }, /diff_ids/],
    [{ config: { User: 3 } }, /User/],
  ];
  for (const [value, why] of table) {
    assert.throws(() => parseImageConfig(JSON.stringify(value), 'x.json'), why);
  }
  assert.throws(() => parseImageConfig('{', 'x.json'), /not JSON/);
});
