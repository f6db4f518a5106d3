/** Bytes from strangers: seeded and bounded. Whatever comes, it is an image or one of our errors; nothing leaves the store. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { applyChanges, ImageError, parseImageConfig } from '../src/index.ts';
import { LayerFilter, SecondPass } from '../src/layer/filter.ts';
import { parseManifest, selectPlatform } from '../src/manifest.ts';
import { parseChallenges } from '../src/registry/auth.ts';
import type { TarEntry } from '../src/tar/header.ts';
import { paxRecord } from '../src/tar/pax.ts';
import { TarReader } from '../src/tar/reader.ts';
import { dockerArchive, ociArchive, testImage } from './support/archives.ts';
import { withStore } from './support/store.ts';
import { type entry, paxHeader, tar } from './support/tars.ts';

const SEED = 20_260_102;

const name = fc.oneof(
  fc.constantFrom(
    'a',
    'b',
    'a/b',
    'a/b/c',
    'd',
    '.',
    './',
    '/',
    '..',
    '../a',
    '/etc/passwd',
    'a/../..',
    'a//b',
    '.wh.a',
  ),
  fc.constantFrom(
    '.wh..wh..opq',
    'a/.wh.b',
    '.wh.',
    '.wh..',
    'x'.repeat(300),
    'l/../x',
    'l/a',
    'a\xff',
    'n\n',
  ),
  fc.string({ maxLength: 12 }).map((text) => Buffer.from(text).toString('latin1').replaceAll('\0', '')),
);
const entryInput = fc.record({
  name,
  type: fc.constantFrom('file', 'link', 'symlink', 'char', 'block', 'directory', 'fifo'),
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: fc.oneof(fc.constantFrom(0, 1000, 5_000_000_000), fc.nat()),
  gid: fc.nat(),
  mtime: fc.integer({ min: -10, max: 2 ** 34 }),
  linkName: name,
  devMajor: fc.constantFrom(0, 1, 5000),
  devMinor: fc.nat(2 ** 21),
  data: fc.string({ maxLength: 700 }),
}) as fc.Arbitrary<Parameters<typeof entry>[0]>;
const mutation = fc.record({
  at: fc.nat(),
  byte: fc.nat(255),
  kind: fc.constantFrom('set', 'cut', 'insert'),
});

function mutated(bytes: Buffer, mutations: readonly { at: number; byte: number; kind: string }[]): Buffer {
  let result = Buffer.from(bytes);
  for (const { at, byte, kind } of mutations) {
    const index = result.length === 0 ? 0 : at % result.length;
    if (kind === 'set') result[index] = byte;
    else if (kind === 'cut') result = result.subarray(0, index);
    else result = Buffer.concat([result.subarray(0, index), Buffer.from([byte]), result.subarray(index)]);
  }
  return result;
}

/** Reads in odd pieces; answers with what the filter gave out, or undefined when the tar was refused. */
function filter(bytes: Buffer, chunkBytes: number): Buffer | undefined {
  const feed = (reader: TarReader): void => {
    for (let at = 0; at < bytes.length; at += chunkBytes)
      reader.write(Buffer.from(bytes.subarray(at, at + chunkBytes)));
    reader.end();
  };
  const parts: Buffer[] = [];
  const sink = { start: () => {}, write: (part: Buffer) => void parts.push(Buffer.from(part)) };
  try {
    try {
      const streaming = LayerFilter.streaming(sink);
      feed(new TarReader(streaming));
      streaming.finish();
    } catch (error) {
      if (!(error instanceof SecondPass)) throw error;
      parts.length = 0;
      const index = LayerFilter.indexing();
      feed(new TarReader(index));
      const planned = LayerFilter.planned(sink, index);
      feed(new TarReader(planned));
      planned.finish();
    }
  } catch (error) {
    if (error instanceof ImageError) return undefined;
    throw error;
  }
  return Buffer.concat(parts);
}

/** What sqfstar relies on. */
function checkFiltered(bytes: Buffer): void {
  const kinds = new Map<string, TarEntry['type']>();
  const reader = new TarReader({
    onEntry(found) {
      const path = found.name.replace(/\/$/, '');
      assert.ok(!kinds.has(path), `${path} comes twice`);
      assert.ok(
        !path.startsWith('/') && !path.split('/').some((part) => ['', '.', '..'].includes(part)),
        path,
      );
      if (found.type === 'link') assert.ok(kinds.has(found.linkName), `${path} links to nothing`);
      for (const key of found.xattrs.keys()) assert.match(key, /^(user|security|trusted)\./);
      kinds.set(path, found.type);
    },
    onData() {},
    onEntryEnd() {},
  });
  reader.write(bytes);
  reader.end();
  for (const path of kinds.keys()) {
    const slash = path.lastIndexOf('/');
    if (slash > 0) assert.equal(kinds.get(path.slice(0, slash)), 'directory', `the parent of ${path}`);
  }
}

test('any sequence of entries is a layer that sqfstar can take, or an error of ours', () => {
  let accepted = 0;
  fc.assert(
    fc.property(
      fc.array(entryInput, { maxLength: 12 }),
      fc.integer({ min: 1, max: 3000 }),
      (entries, chunkBytes) => {
        const filtered = filter(tar(...entries), chunkBytes);
        if (filtered === undefined) return;
        accepted += 1;
        checkFiltered(filtered);
      },
    ),
    { numRuns: 3000, seed: SEED },
  );
  assert.ok(accepted > 100, `${accepted} were accepted`);
});

test('damaged tars, and extended headers of any content', () => {
  const records = fc.array(
    fc.tuple(
      fc.constantFrom(
        'path',
        'linkpath',
        'size',
        'uid',
        'mtime',
        'SCHILY.xattr.user.a',
        'SCHILY.xattr.trusted.overlay.redirect',
        'GNU.sparse.map',
        'GNU.sparse.size',
        'GNU.sparse.major',
        'GNU.sparse.realsize',
        'LIBARCHIVE.xattr.%zz',
      ),
      fc.oneof(
        fc.string({ maxLength: 20 }),
        fc.nat().map(String),
        fc.constantFrom('0,1,2,3', '../../x', '1e9', '-1', '1'),
      ),
    ),
    { maxLength: 4 },
  );
  fc.assert(
    fc.property(
      fc.array(entryInput, { maxLength: 4 }),
      records,
      fc.array(mutation, { maxLength: 4 }),
      fc.integer({ min: 1, max: 2000 }),
      (entries, pax, mutations, chunkBytes) => {
        const extension = paxHeader(
          Buffer.concat(pax.map(([key, value]) => paxRecord(key, Buffer.from(value)))),
        );
        const filtered = filter(mutated(Buffer.concat([extension, tar(...entries)]), mutations), chunkBytes);
        if (filtered !== undefined) checkFiltered(filtered);
      },
    ),
    { numRuns: 3000, seed: SEED },
  );
});

test('manifests, configurations, changes and challenges of any shape', () => {
  const json = fc.oneof(
    fc.json(),
    fc.string(),
    fc
      .record(
        {
          schemaVersion: fc.anything(),
          mediaType: fc.oneof(
            fc.anything(),
            fc.constantFrom(
              'application/vnd.oci.image.index.v1+json',
              'application/vnd.oci.image.manifest.v1+json',
            ),
          ),
          manifests: fc.anything(),
          layers: fc.anything(),
          config: fc.anything(),
          rootfs: fc.record({ diff_ids: fc.anything() }),
        },
        { requiredKeys: [] },
      )
      .map((value) =>
        JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'bigint' ? String(inner) : inner)),
      ),
  );
  const ours = (work: () => unknown): void => {
    try {
      work();
    } catch (error) {
      assert.ok(error instanceof ImageError, String(error));
    }
  };
  fc.assert(
    fc.property(json, fc.string({ maxLength: 60 }), (text, word) => {
      ours(() => {
        const manifest = parseManifest(Buffer.from(text), undefined, 'a test');
        if (manifest.kind === 'index')
          selectPlatform(manifest, { os: 'linux', architecture: 'amd64', variant: '' }, 'a test');
      });
      ours(() => parseImageConfig(text, 'a test'));
      for (const instruction of ['CMD', 'ENV', 'LABEL', 'EXPOSE', 'VOLUME', 'WORKDIR', 'HEALTHCHECK', '']) {
        ours(() => applyChanges({}, [`${instruction} ${word}`]));
      }
      parseChallenges(word);
      parseChallenges(`Bearer realm=${word}`);
    }),
    { numRuns: 2000, seed: SEED },
  );
});

test('damaged archives leave the store as it was, and nothing beside it', async () => {
  await withStore(async ({ store, home }) => {
    const image = testImage([
      [{ name: 'a', data: 'x'.repeat(3000) }, { name: '../../../escaped' }],
      [{ name: 'b' }],
    ]);
    const good = testImage([[{ name: 'a', data: 'y'.repeat(2000) }]]);
    const archives = [
      dockerArchive(image, ['app:1']),
      dockerArchive(good, ['app:2']),
      ociArchive({ ...good, blobs: good.layers.map((layer) => gzipSync(layer)) }, ['app:3']),
      tar({ name: '../../../escaped', data: 'x' }, { name: 'manifest.json', data: '[]' }),
    ];
    const outside = readdirSync(home).sort();
    const runs = fc.sample(
      fc.tuple(fc.constantFrom(...archives), fc.array(mutation, { minLength: 1, maxLength: 3 })),
      {
        numRuns: 60,
        seed: SEED,
      },
    );
    for (const [archive, mutations] of runs) {
      try {
        await store.load(Readable.from([mutated(archive, mutations)]));
      } catch (error) {
        assert.ok(error instanceof ImageError, String(error));
        assert.notEqual(error.code, 'ERR_ARCBOX_IMAGE_WORKER', error.message);
      }
    }
    assert.deepEqual(readdirSync(home).sort(), outside);
    assert.ok(!existsSync(join(home, '..', 'escaped')) && !existsSync('/escaped'));
  });
});

test('a layer of a million entries is taken, and of one more is not', async () => {
  // In a process of its own: counting what is covered makes a loop over half a billion bytes ten times as long.
  const env = { ...process.env, NODE_V8_COVERAGE: undefined };
  const program = fileURLToPath(new URL('./support/million-entries.ts', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [program], { env });
  const { taken, refusal } = JSON.parse(stdout) as { taken: number; refusal: string };
  assert.equal(taken, 1_000_000);
  assert.match(refusal, /more than 1000000 entries/);
});
