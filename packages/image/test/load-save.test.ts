import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { sha256 } from '../src/digest.ts';
import { ImageError, type ImageStore, type ProgressEvent } from '../src/index.ts';
import { dockerArchive, ociArchive, testImage } from './support/archives.ts';
import { content } from './support/squashfs.ts';
import { withStore } from './support/store.ts';
import { tar } from './support/tars.ts';

async function* chunks(bytes: Buffer, size = 64 * 1024): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield Buffer.from(bytes.subarray(at, at + size));
}
const refused = (code: string, why: RegExp) => (error: unknown) =>
  error instanceof ImageError && error.code === code && why.test(error.message);

test('a docker-archive: its images, names, layers and configuration', async () => {
  await withStore(async ({ store }) => {
    const image = testImage([[{ name: 'etc/motd', data: 'one' }], [{ name: 'etc/motd', data: 'two' }]]);
    const events: ProgressEvent[] = [];
    const loaded = await store.load(chunks(dockerArchive(image, ['test/app:1', 'test/app:2'])), {
      onProgress: (event) => events.push(event),
    });
    assert.deepEqual(
      loaded.map(({ names }) => names),
      [['docker.io/test/app:1', 'docker.io/test/app:2']],
    );
    const resolved = await store.resolve('test/app:1');
    assert.equal(resolved.id, sha256(image.config));
    assert.deepEqual(resolved.config.cmd, ['sh']);
    assert.deepEqual(
      resolved.layers.map(({ path }) => content(path, 'etc/motd')),
      ['one', 'two'],
    );
    assert.ok(events.some(({ status }) => status === 'Extracting'));
    assert.equal((await store.list()).length, 2);
  });
});

test('packed archives, packed layers, and manifests that come first', async () => {
  await withStore(async ({ store }) => {
    const image = testImage([[{ name: 'a', data: 'x'.repeat(100_000) }]]);
    const packed = { ...image, blobs: image.layers.map((layer) => gzipSync(layer)) };
    for (const archive of [
      gzipSync(dockerArchive(image, ['a:1'])),
      zstdCompressSync(dockerArchive(packed, ['a:1'])),
      dockerArchive(packed, ['a:1'], { manifestFirst: true }),
      ociArchive(packed, ['a:1']),
    ]) {
      const [loaded] = await store.load(chunks(archive, 10_000));
      assert.equal(loaded?.id, sha256(image.config));
      assert.equal((await store.resolve('a:1')).id, loaded?.id);
      await store.remove('a:1');
    }
  });
});

test('what is saved loads again, blobs and manifest byte for byte, and Docker’s files are in it', async () => {
  await withStore(async (from) => {
    const image = testImage([[{ name: 'a', data: 'x' }], [{ name: 'b', data: 'y' }]]);
    const packed = { ...image, blobs: image.layers.map((layer) => gzipSync(layer, { level: 1 })) };
    await from.store.load(chunks(ociArchive(packed, ['app:1'])));
    await from.store.tag('app:1', 'localhost:5000/other:2');
    const archive = await buffer(await from.store.save(['app:1', 'localhost:5000/other:2', 'busybox']));
    const directory = join(from.home, 'out');
    mkdirSync(directory);
    writeFileSync(join(from.home, 'out.tar'), archive);
    execFileSync('tar', ['-xf', join(from.home, 'out.tar'), '-C', directory]);
    const entries = JSON.parse(readFileSync(join(directory, 'manifest.json'), 'utf8')) as {
      Config: string;
      RepoTags: string[];
      Layers: string[];
    }[];
    assert.deepEqual(
      entries.map(({ RepoTags }) => RepoTags),
      [['app:1', 'localhost:5000/other:2'], ['busybox:latest']],
    );
    const [own] = entries;
    assert.deepEqual(readFileSync(join(directory, own?.Config ?? '')), image.config);
    assert.deepEqual(
      own?.Layers.map((name) => readFileSync(join(directory, name))),
      packed.blobs,
    );
    assert.deepEqual(
      readFileSync(join(directory, 'blobs', packed.manifestDigest().replace(':', '/'))),
      packed.manifest(),
    );
    await withStore(async ({ store }) => {
      const loaded = await store.load(chunks(archive));
      assert.equal(loaded.length, 2);
      assert.equal((await store.resolve('other:2').catch(() => undefined))?.id, undefined);
      assert.equal((await store.resolve('localhost:5000/other:2')).id, sha256(image.config));
      const again = await buffer(await store.save(['app:1', 'localhost:5000/other:2', 'busybox']));
      assert.ok(again.equals(archive), 'the same bytes again');
    });
  });
});

test('a layer that is here is not stored again', async () => {
  await withStore(async ({ store, database }) => {
    const image = testImage([[{ name: 'a', data: 'x' }]]);
    const count = (): unknown => database.prepare('SELECT count(*) AS n FROM image_blobs').get()?.n;
    await store.load(chunks(ociArchive(image, ['a:1'])));
    const before = count();
    const events: string[] = [];
    await store.load(chunks(ociArchive(image, ['a:2'])), { onProgress: ({ status }) => events.push(status) });
    assert.deepEqual(events, ['Already exists']);
    assert.equal(count(), before);
    assert.equal((await store.resolve('a:1')).id, (await store.resolve('a:2')).id);
  });
});

test('archives that are wrong are refused with a sentence and leave nothing', async () => {
  await withStore(async ({ store }) => {
    const image = testImage([[{ name: 'a', data: 'x'.repeat(3000) }]]);
    const bad = testImage([[{ name: '../a' }]]);
    const good = dockerArchive(image, ['a:1']);
    const cases: readonly [string, Buffer, string, RegExp][] = [
      ['nothing', Buffer.alloc(0), 'ERR_ARCBOX_ARCHIVE_INVALID', /neither a manifest.json/],
      ['no tar', Buffer.from('x'.repeat(2000)), 'ERR_ARCBOX_ARCHIVE_INVALID', /not valid/],
      ['a root file system', tar({ name: 'etc/passwd' }), 'ERR_ARCBOX_ARCHIVE_INVALID', /arcbox import/],
      ['cut off', good.subarray(0, good.length - 3000), 'ERR_ARCBOX_ARCHIVE_INVALID', /middle|neither/],
      ['cut off, packed', gzipSync(good).subarray(0, 300), 'ERR_ARCBOX_ARCHIVE_INVALID', /cut off/],
      ['a bad layer', dockerArchive(bad, ['a:1']), 'ERR_ARCBOX_ARCHIVE_INVALID', /leads out/],
      [
        'another layer',
        dockerArchive({ ...image, blobs: [tar({ name: 'z' })] }, ['a:1']),
        'ERR_ARCBOX_DIGEST_MISMATCH',
        /not those/,
      ],
      [
        'a wrong blob',
        ociArchive(image, ['a:1'], (_, bytes) =>
          bytes.length > 3000 ? tar({ name: 'z', data: 'q'.repeat(3000) }) : bytes,
        ),
        'ERR_ARCBOX_DIGEST_MISMATCH',
        /has the digest/,
      ],
      ['a bad name', dockerArchive(image, ['BAD:1']), 'ERR_ARCBOX_REFERENCE_INVALID', /BAD/],
      [
        'a manifest of nonsense',
        tar({ name: 'manifest.json', data: '{' }),
        'ERR_ARCBOX_ARCHIVE_INVALID',
        /not JSON/,
      ],
      ['no list', tar({ name: 'manifest.json', data: '{}' }), 'ERR_ARCBOX_ARCHIVE_INVALID', /not a list/],
      [
        'nothing named',
        tar({ name: 'manifest.json', data: '[{}]' }),
        'ERR_ARCBOX_ARCHIVE_INVALID',
        /no configuration/,
      ],
      [
        'a loop of links',
        tar({ name: 'manifest.json', type: 'symlink', linkName: 'manifest.json' }),
        'ERR_ARCBOX_ARCHIVE_INVALID',
        /neither/,
      ],
    ];
    for (const [what, archive, code, why] of cases) {
      await assert.rejects(store.load(chunks(archive)), refused(code, why), what);
    }
    assert.equal((await store.list()).length, 1);
  });
});

test('a load that is cancelled, or whose input fails, leaves nothing', async () => {
  await withStore(async ({ store }) => {
    const image = testImage([[{ name: 'a', data: 'x'.repeat(3_000_000) }]]);
    const archive = dockerArchive(image, ['a:1']);
    const controller = new AbortController();
    async function* stalls(): AsyncGenerator<Buffer> {
      yield archive.subarray(0, 1_000_000);
      controller.abort();
      await new Promise((resolve) => setTimeout(resolve, 10_000).unref());
      yield archive.subarray(1_000_000);
    }
    await assert.rejects(
      store.load(stalls(), { signal: controller.signal }),
      refused('ERR_ARCBOX_CANCELLED', /cancelled/),
    );
    async function* fails(): AsyncGenerator<Buffer> {
      yield archive.subarray(0, 1_000_000);
      throw new Error('the cable was pulled');
    }
    await assert.rejects(store.load(fails()), refused('ERR_ARCBOX_ARCHIVE_INVALID', /cable/));
  });
});

test('import: a root file system and changes', async () => {
  await withStore(async ({ store }) => {
    const image = await store.createFromLayer({
      layer: chunks(gzipSync(tar({ name: 'bin/app', data: 'app' }))),
      changes: [
        'CMD ["/bin/app"]',
        'ENV A=1 B="two words"',
        'LABEL x=y',
        'EXPOSE 80',
        'WORKDIR /srv',
        'USER 7:8',
      ],
      comment: 'imported',
      names: ['app'],
    });
    assert.deepEqual(image.names, ['docker.io/library/app:latest']);
    assert.deepEqual(image.config.cmd, ['/bin/app']);
    assert.deepEqual(image.config.env, ['A=1', 'B=two words']);
    assert.equal(image.config.workingDir, '/srv');
    assert.equal(image.config.user, '7:8');
    assert.deepEqual(image.config.labels, { x: 'y' });
    assert.equal(content(image.layers[0]?.path ?? '', 'bin/app'), 'app');
    const [entry] = await store.history('app');
    assert.equal(entry?.comment, 'imported');
    assert.equal(entry?.id, image.id);
  });
});

test('an image from an image and a layer, also from the embedded one, and one of a configuration alone', async () => {
  await withStore(async ({ store }) => {
    const base = await store.resolve('busybox');
    const image = await store.createFromLayer({
      base: 'busybox',
      layer: chunks(tar({ name: 'new', data: 'layer' })),
      config: { Cmd: ['new'] },
      createdBy: 'a test',
      names: ['derived'],
    });
    assert.deepEqual(image.config.diffIds.slice(0, 1), base.config.diffIds);
    assert.equal(content(image.layers[1]?.path ?? '', 'new'), 'layer');
    assert.deepEqual(image.config.env, ['PATH=/bin']);
    assert.deepEqual(image.config.cmd, ['new']);
    const labelled = await store.createFromLayer({
      base: 'derived',
      changes: ['LABEL a=c'],
      names: ['labelled'],
    });
    assert.deepEqual(labelled.config.diffIds, image.config.diffIds);
    assert.deepEqual(labelled.config.labels, { a: 'c' });
    assert.deepEqual(
      (await store.history('labelled')).map(({ sizeBytes, createdBy }) => [sizeBytes > 0, createdBy]),
      [
        [false, ''],
        [true, 'a test'],
        [true, 'test'],
      ],
    );
    await assert.rejects(
      store.createFromLayer({ base: 'derived', changes: ['RUN true'] }),
      refused('ERR_ARCBOX_IMAGE_CHANGE', /RUN/),
    );
    await saveAndLoad(store, 'labelled');
  });
});

async function saveAndLoad(store: ImageStore, name: string): Promise<void> {
  const { id } = await store.resolve(name);
  const archive = await buffer(await store.save([name]));
  await withStore(async (other) => {
    assert.equal((await other.store.load(chunks(archive)))[0]?.id, id);
  });
  assert.ok(gunzipSync(gzipSync(archive)).equals(archive));
}
