/** Archives in xz and bzip2, whole and broken, and the programs that unpack them. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { sha256 } from '../src/digest.ts';
import { ImageError } from '../src/index.ts';
import { dockerArchive, testImage } from './support/archives.ts';
import { content } from './support/squashfs.ts';
import { withStore } from './support/store.ts';
import { tar } from './support/tars.ts';

const SETTLE_MS = 10_000;

const pack = (program: 'xz' | 'bzip2', bytes: Buffer, ...args: string[]): Buffer =>
  execFileSync(program, ['--stdout', ...args], { input: bytes, maxBuffer: 2 ** 26 });

async function* chunks(bytes: Buffer, size = 10_000): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield Buffer.from(bytes.subarray(at, at + size));
}
const refused = (why: RegExp) => (error: unknown) =>
  error instanceof ImageError && error.code === 'ERR_ARCBOX_ARCHIVE_INVALID' && why.test(error.message);

/** Our children that unpack something. */
function unpackers(): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      return /^Name:\s+(xz|bzip2)$/m.test(status) && status.includes(`\nPPid:\t${process.pid}\n`);
    } catch {
      return false;
    }
  });
}

/**
 * Nothing to compress, and the same bytes each time: bzip2 checks a block's sum after it has written the block, so it
 * depends on the data whether what is damaged ends as its error or as a tar that is none.
 */
const data = createHash('shake256', { outputLength: 300_000 }).update('a layer').digest();
const image = testImage([[{ name: 'a', data }]]);

for (const program of ['xz', 'bzip2'] as const) {
  test(`${program}: images are loaded, root file systems imported`, async () => {
    await withStore(async ({ store }) => {
      // Two streams one after the other are one, as for the programs themselves.
      const archive = dockerArchive(image, ['a:1']);
      const packed = Buffer.concat([
        pack(program, archive.subarray(0, 5000)),
        pack(program, archive.subarray(5000)),
      ]);
      const [loaded] = await store.load(chunks(packed));
      assert.equal(loaded?.id, sha256(image.config));
      const root = tar({ name: 'etc/motd', data: 'packed' });
      const imported = await store.createFromLayer({ layer: chunks(pack(program, root)), names: ['b:1'] });
      assert.equal(content(imported.layers[0]?.path ?? '', 'etc/motd'), 'packed');
      // Stored as what registries know.
      assert.deepEqual(imported.config.diffIds, [sha256(root)]);
      assert.equal(imported.layers[0]?.digest, sha256(root));
    });
  });

  test(`${program}: what is cut off, damaged or given up leaves nothing`, async () => {
    await withStore(async ({ store }) => {
      const packed = pack(program, dockerArchive(image, ['a:1']));
      await assert.rejects(
        store.load(chunks(packed.subarray(0, 100_000))),
        refused(/cannot be unpacked: .*nexpected|ends/),
      );
      const damaged = Buffer.from(packed);
      damaged.fill(0, 90_000, 91_000);
      await assert.rejects(store.load(chunks(damaged)), refused(/cannot be unpacked/));
      async function* broken(): AsyncGenerator<Buffer> {
        yield packed.subarray(0, 50_000);
        throw new Error('the client has left');
      }
      await assert.rejects(store.load(broken()), refused(/the input broke off: the client has left/));
      const stopping = new AbortController();
      async function* endless(): AsyncGenerator<Buffer> {
        yield packed.subarray(0, 50_000);
        stopping.abort();
        await new Promise(() => {});
      }
      await assert.rejects(store.load(endless(), { signal: stopping.signal }), /was cancelled/);
      // What was killed is no process any more when its exit status has been taken.
      const endMs = performance.now() + SETTLE_MS;
      for (let waitMs = 1; unpackers().length > 0 && performance.now() < endMs; waitMs *= 2)
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      assert.deepEqual(unpackers(), []);
      assert.equal((await store.list()).length, 1, 'the embedded one');
    });
  });
}

test('xz does not get more memory than its own presets need', async () => {
  await withStore(async ({ store }) => {
    const greedy = pack('xz', Buffer.alloc(100), '--lzma2=dict=512MiB');
    await assert.rejects(store.load(chunks(greedy)), refused(/[Mm]emory/));
    const best = pack('xz', dockerArchive(image, ['a:1']), '-9');
    assert.equal((await store.load(chunks(best))).length, 1);
  });
});

test('a program that is not installed is named, with the way round', async () => {
  await withStore(async ({ store }) => {
    const packed = pack('bzip2', dockerArchive(image, ['a:1']));
    const before = process.env.PATH;
    process.env.PATH = '/nonexistent';
    try {
      await assert.rejects(store.load(chunks(packed)), refused(/install Debian's bzip2, or unpack it first/));
    } finally {
      process.env.PATH = before;
    }
  });
});
