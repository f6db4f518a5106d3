/** Layers that are small until they are unpacked, and a disk that is all but full: a clear error, and nothing is left. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { sha256 } from '../src/digest.ts';
import { LAYER_LIMITS } from '../src/limits.ts';
import { MEDIA_TYPES } from '../src/manifest.ts';
import { dockerArchive, type TestImage, testImage } from './support/archives.ts';
import { FakeServer } from './support/registry.ts';
import { type TestStore, withStore } from './support/store.ts';
import { entry, tar } from './support/tars.ts';

process.env.DOCKER_CONFIG = '/nonexistent';
const LIMIT_BYTES = 4 * 1024 ** 2;
const limits = { ...LAYER_LIMITS, layerBytesMax: LIMIT_BYTES };
const PACKERS = { gzip: gzipSync, zstd: zstdCompressSync } as const;

/** An image whose one layer is `layer`, shipped as `blob`. */
function imageOf(layer: Buffer, blob: Buffer): TestImage {
  return { ...testImage([[{ name: 'a' }]]), layers: [layer], blobs: [blob] };
}

/** Every way into the store refuses it, and leaves the store as it was. */
async function refusedEverywhere(
  { store, home }: TestStore,
  image: TestImage,
  code: string,
  why: RegExp,
): Promise<void> {
  const [blob = Buffer.alloc(0)] = image.blobs;
  const stored = (): string[][] =>
    ['tmp', 'sha256', 'layers'].map((part) => readdirSync(join(home, 'content', part)).sort());
  const before = stored();
  const manifest = image.manifest();
  await using registry = await FakeServer.start((request, response) => {
    const { url = '' } = request;
    if (url === '/v2/') response.end();
    else if (url.includes('/manifests/'))
      response.writeHead(200, { 'content-type': MEDIA_TYPES.ociManifest }).end(manifest);
    else response.end(url.endsWith(sha256(blob)) ? blob : image.config);
  });
  // What goes in is the store's then: its memory moves to a worker.
  const ways = {
    import: () => store.createFromLayer({ layer: Readable.from([Buffer.from(blob)]), names: ['bomb:1'] }),
    load: () => store.load(Readable.from([dockerArchive(image, ['bomb:1'])])),
    pull: () => store.pull(`${registry.host}/bomb:1`),
  };
  for (const [way, go] of Object.entries(ways)) {
    await assert.rejects(go(), (error: Error & { code?: string }) => {
      // Whoever reads an archive says that it is the archive that cannot be taken.
      const codes = way === 'load' ? [code, 'ERR_ARCBOX_ARCHIVE_INVALID'] : [code];
      assert.ok(codes.includes(error.code ?? ''), `${way}: ${error.code} ${error.message}`);
      assert.match(error.message, why, way);
      return true;
    });
    assert.deepEqual(stored(), before, way);
  }
}

for (const [name, pack] of Object.entries(PACKERS)) {
  test(`a ${name} bomb ends at the limit of a layer`, async () => {
    const layer = tar({ name: 'zeros', data: Buffer.alloc(8 * LIMIT_BYTES) });
    const blob = pack(layer);
    assert.ok(blob.length < LIMIT_BYTES / 64);
    await withStore(
      (test) =>
        refusedEverywhere(
          test,
          imageOf(layer, blob),
          'ERR_ARCBOX_LAYER_INVALID',
          /its files have more than 4194304 bytes/,
        ),
      { limits },
    );
  });

  test(`a ${name} bomb of many small files ends there, too`, async () => {
    // No file is large, and all of them together are not: their headers and padding are.
    const layer = tar(...Array.from({ length: 6000 }, (_, index) => ({ name: `f${index}`, data: 'x' })));
    assert.ok(layer.length > LIMIT_BYTES);
    await withStore(
      (test) =>
        refusedEverywhere(
          test,
          imageOf(layer, pack(layer)),
          'ERR_ARCBOX_IMAGE_LIMIT',
          /is larger than 4 MiB/,
        ),
      { limits },
    );
  });
}

test('an entry that says it is huge is refused by what it says', async () => {
  const layer = Buffer.concat([entry({ name: 'huge', sizeBytes: 64 * 1024 ** 3 }), Buffer.alloc(1024)]);
  await withStore((test) =>
    refusedEverywhere(
      test,
      imageOf(layer, layer),
      'ERR_ARCBOX_LAYER_INVALID',
      /its files have more than 34359738368 bytes/,
    ),
  );
});

test('what has to stay free on the disk stays free', async () => {
  const layer = tar({ name: 'data', data: Buffer.alloc(LIMIT_BYTES, 1) });
  await withStore(
    (test) =>
      refusedEverywhere(
        test,
        imageOf(layer, layer),
        'ERR_ARCBOX_IMAGE_LIMIT',
        /less than \d+ MiB are free at .*; remove images \(arcbox image prune\), or make room there/,
      ),
    // More than any disk has.
    { limits: { ...LAYER_LIMITS, diskReserveBytes: 2 ** 60, diskCheckBytes: 1024 ** 2 } },
  );
});
