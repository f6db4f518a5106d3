import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { dockerArchive, testImage } from '../../image/test/support/archives.ts';
import { tar } from '../../image/test/support/tars.ts';
import { RemoteError, type TransferProgressJson } from '../src/client/index.ts';
import { fakeDaemon } from './support.ts';

async function all(messages: AsyncIterable<TransferProgressJson>): Promise<TransferProgressJson[]> {
  const list: TransferProgressJson[] = [];
  for await (const message of messages) list.push(message);
  return list;
}
const remote = (code: string, why: RegExp) => (error: unknown) =>
  error instanceof RemoteError && error.code === code && why.test(error.message);

test('images go in and out as tars, with progress and what came of it', async () => {
  await using host = await fakeDaemon();
  await host.start();
  const { control } = host;
  const image = testImage([[{ name: 'a', data: 'x'.repeat(500_000) }]]);
  const messages = await all(
    control.uploadImages('load', [], Readable.from([dockerArchive(image, ['app:1'])])),
  );
  assert.ok(messages.some(({ status }) => status === 'Extracting'));
  assert.deepEqual(messages.at(-1)?.outcome?.images?.[0]?.names, ['docker.io/library/app:1']);
  const archive = await buffer(await control.downloadImages(['app:1']));
  const again = await all(control.uploadImages('load', [], Readable.from([archive])));
  assert.equal(again.at(-1)?.outcome?.images?.length, 1);
  const imported = await all(
    control.uploadImages(
      'import',
      [
        ['name', 'imported:1'],
        ['change', 'CMD ["x"]'],
        ['comment', 'said'],
      ],
      Readable.from([tar({ name: 'x' })]),
    ),
  );
  assert.deepEqual(imported.at(-1)?.outcome?.images?.[0]?.names, ['docker.io/library/imported:1']);
  const { entries } = await control.call('ImageService/History', { name: 'imported:1' });
  assert.equal(entries?.[0]?.comment, 'said');
});

test('names, inspection, removal and prune', async () => {
  await using host = await fakeDaemon();
  await host.start();
  const { control } = host;
  await all(
    control.uploadImages('load', [], Readable.from([dockerArchive(testImage([[{ name: 'a' }]]), ['app:1'])])),
  );
  await control.call('ImageService/Tag', { source: 'app:1', target: 'app:2' });
  const { image, config = '', diffIds = [] } = await control.call('ImageService/Inspect', { name: 'app:2' });
  assert.deepEqual(image?.names, ['docker.io/library/app:1', 'docker.io/library/app:2']);
  assert.deepEqual((JSON.parse(config) as { rootfs: { diff_ids: string[] } }).rootfs.diff_ids, diffIds);
  const { removals } = await control.call('ImageService/Remove', { name: 'app:1' });
  assert.deepEqual(removals, [{ untagged: 'app:1' }]);
  const pruned = await control.call('ImageService/Prune', { all: true });
  assert.equal(pruned.removals?.length, 2);
  assert.ok(Number(pruned.reclaimedBytes) > 0);
  await assert.rejects(
    control.call('ImageService/Inspect', { name: 'app:2' }),
    remote('ERR_ARCBOX_IMAGE_NOT_FOUND', /no such image: app:2/),
  );
  await assert.rejects(
    control.call('ImageService/Remove', { name: 'busybox' }),
    remote('ERR_ARCBOX_IMAGE_EMBEDDED', /cannot be removed/),
  );
});

test('a refusal comes as one, also in the middle of a body', async () => {
  await using host = await fakeDaemon();
  await host.start();
  const { control } = host;
  async function* endless(): AsyncGenerator<Buffer> {
    for (;;) yield Buffer.alloc(64 * 1024, 'x');
  }
  await assert.rejects(
    all(control.uploadImages('load', [], Readable.from(endless()))),
    remote('ERR_ARCBOX_ARCHIVE_INVALID', /not valid/),
  );
  await assert.rejects(control.downloadImages(['nosuch']), remote('ERR_ARCBOX_IMAGE_NOT_FOUND', /nosuch/));
  await assert.rejects(
    all(control.uploadImages('import', [['change', 'RUN x']], Readable.from([tar({ name: 'a' })]))),
    remote('ERR_ARCBOX_IMAGE_CHANGE', /RUN/),
  );
  await assert.rejects(
    all(control.stream('ImageService/Pull', { name: '127.0.0.1:1/x' })),
    remote('ERR_ARCBOX_REGISTRY_UNREACHABLE', /127\.0\.0\.1:1/),
  );
  await assert.rejects(
    all(control.stream('ImageService/Pull', { name: 'x', platform: 'a/b/c/d' })),
    remote('ERR_ARCBOX_IMAGE_PLATFORM', /linux\/amd64/),
  );
});

test('a client that leaves in the middle of a load leaves nothing behind', async () => {
  await using host = await fakeDaemon();
  const daemon = await host.start();
  const { control } = host;
  const archive = dockerArchive(testImage([[{ name: 'a', data: 'x'.repeat(2_000_000) }]]), ['app:1']);
  async function* half(): AsyncGenerator<Buffer> {
    yield archive.subarray(0, 1_000_000);
    await new Promise((resolve) => setTimeout(resolve, 60_000).unref());
  }
  for await (const message of control.uploadImages('load', [], Readable.from(half()))) {
    if (message.status === 'Loading layer') break;
  }
  const { images } = await control.call('ImageService/List', {});
  assert.equal(images?.length, 1);
  // The end of the daemon waits for the end of the work.
  await daemon.stop();
});
