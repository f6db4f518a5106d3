import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ImageError, ImageStore, parseImageConfig } from '../src/index.ts';

const config = {
  architecture: 'amd64',
  os: 'linux',
  config: { Cmd: ['sh'], Env: ['PATH=/bin'], Labels: { a: 'b' } },
  rootfs: { type: 'layers', diff_ids: [`sha256:${'1'.repeat(64)}`] },
};

async function withBootDirectory(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'arcbox-image-'));
  try {
    await writeFile(join(directory, 'busybox.json'), JSON.stringify(config));
    await writeFile(join(directory, 'busybox.squashfs'), 'hsqs');
    await run(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

test('the embedded image is found by every form of its name and by its ID', async () => {
  await withBootDirectory(async (directory) => {
    const store = new ImageStore(directory);
    const image = await store.resolve('busybox');
    assert.deepEqual(image.names, ['docker.io/library/busybox:latest']);
    assert.deepEqual(image.config.cmd, ['sh']);
    assert.equal(image.config.workingDir, '/');
    assert.equal(image.layers[0]?.sizeBytes, 4);
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
  await withBootDirectory(async (directory) => {
    const store = new ImageStore(directory);
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
  await withBootDirectory(async (directory) => {
    await rm(join(directory, 'busybox.squashfs'));
    const store = new ImageStore(directory);
    await assert.rejects(store.resolve('busybox'), /run scripts\/setup/);
    await writeFile(join(directory, 'busybox.squashfs'), 'hsqs');
    assert.equal((await store.resolve('busybox')).layers.length, 1);
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
