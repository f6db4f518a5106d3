/** Registries and archives that want to be sent secrets, to fill the memory, or to never end. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { sha256 } from '../src/digest.ts';
import { ImageError } from '../src/index.ts';
import { LayerFilter } from '../src/layer/filter.ts';
import { MEDIA_TYPES } from '../src/manifest.ts';
import { answerChallenge } from '../src/registry/auth.ts';
import { redirectTarget, Transport } from '../src/registry/transport.ts';
import type { TarEntry } from '../src/tar/header.ts';
import { paxRecord } from '../src/tar/pax.ts';
import { TarReader } from '../src/tar/reader.ts';
import { testImage } from './support/archives.ts';
import { FakeServer } from './support/registry.ts';
import { withStore } from './support/store.ts';
import { entry, paxHeader, tar } from './support/tars.ts';

process.env.DOCKER_CONFIG = '/nonexistent';
const refused = (code: string, why: RegExp) => (error: unknown) =>
  error instanceof ImageError && error.code === code && why.test(error.message);
const credentials = { username: 'ada', password: 'lovelace' };

test('a place for uploads on another host gets no authorization, and cannot ask for one', async () => {
  const seen: (string | undefined)[] = [];
  let tokens = 0;
  await using thief = await FakeServer.start((request, response) => {
    seen.push(request.headers.authorization);
    tokens += request.url?.startsWith('/token') === true ? 1 : 0;
    request.resume();
    response
      .writeHead(401, { 'www-authenticate': `Bearer realm="http://${request.headers.host}/token"` })
      .end();
  });
  await using registry = await FakeServer.start((request, response) => {
    request.resume();
    if (request.headers.authorization === undefined) {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
    } else if (request.method === 'HEAD') response.writeHead(404).end();
    else response.writeHead(202, { location: `http://${thief.host}/here?a=b` }).end();
  });
  await withStore(async ({ store }) => {
    await store.tag('busybox', `${registry.host}/app:1`);
    await assert.rejects(
      store.push(`${registry.host}/app:1`, { credentials }),
      refused('ERR_ARCBOX_REGISTRY_DENIED', /denied/),
    );
  });
  assert.ok(seen.length > 0);
  assert.deepEqual([...new Set(seen)], [undefined]);
  assert.equal(tokens, 0);
});

test('the challenge of a host that we were redirected to is not answered', async () => {
  const seen: string[] = [];
  await using thief = await FakeServer.start((request, response) => {
    seen.push(`${request.url} ${request.headers.authorization ?? '-'}`);
    response
      .writeHead(401, { 'www-authenticate': `Bearer realm="http://${request.headers.host}/token"` })
      .end();
  });
  await using registry = await FakeServer.start((request, response) => {
    if (request.url === '/v2/') response.end();
    else response.writeHead(307, { location: `http://${thief.host}/blob` }).end();
  });
  await withStore(async ({ store }) => {
    await assert.rejects(
      store.pull(`${registry.host}/app:1`, { credentials }),
      refused('ERR_ARCBOX_REGISTRY_DENIED', /denied/),
    );
  });
  assert.deepEqual(seen, ['/blob -']);
});

test('plain http stays where it was allowed; a token’s too', async () => {
  const from = (text: string): URL => new URL(text);
  for (const [location, base, insecure] of [
    ['http://elsewhere.example/x', 'https://registry.example', false],
    ['http://elsewhere.example/x', 'http://127.0.0.1:5000', true],
    ['file:///etc/passwd', 'https://registry.example', false],
    ['http://', 'https://registry.example', false],
  ] as const) {
    assert.throws(() => redirectTarget(location, from(base), insecure), refused('ERR_ARCBOX_REGISTRY', /\./));
  }
  assert.equal(redirectTarget('/a?b', from('https://r.example/x'), false).href, 'https://r.example/a?b');
  assert.equal(redirectTarget('http://b.example/', from('http://a.example'), true).host, 'b.example');
  using transport = new Transport();
  for (const realm of ['http://elsewhere.example/token', 'ftp://127.0.0.1/']) {
    await assert.rejects(
      answerChallenge([{ scheme: 'bearer', parameters: { realm } }], [], {
        transport,
        host: '127.0.0.1:5000',
        insecure: true,
        signal: AbortSignal.timeout(5000),
        credentials: async () => credentials,
      }),
      refused('ERR_ARCBOX_REGISTRY', /not encrypted/),
    );
  }
});

test('a body without an end that nobody wants is not listened to', async () => {
  await using server = await FakeServer.start((_, response) => {
    response.writeHead(404);
    const more = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(256 * 1024)));
      if (!response.destroyed) void once(response, 'drain').then(more, () => {});
    };
    more();
  });
  await withStore(async ({ store }) => {
    await assert.rejects(
      store.pull(`${server.host}/app:1`, { signal: AbortSignal.timeout(20_000) }),
      (error) => error instanceof ImageError && error.code !== 'ERR_ARCBOX_CANCELLED',
    );
  });
});

test('a manifest that is an index too is neither', async () => {
  const image = testImage([[{ name: 'a' }]]);
  const both = { ...JSON.parse(image.manifest().toString()), manifests: [] };
  await using server = await FakeServer.start((request, response) => {
    if (request.url === '/v2/') response.end();
    else response.writeHead(200, { 'content-type': MEDIA_TYPES.ociManifest }).end(JSON.stringify(both));
  });
  await withStore(async ({ store }) => {
    await assert.rejects(store.pull(`${server.host}/app:1`), refused('ERR_ARCBOX_IMAGE_CORRUPT', /at once/));
    await assert.rejects(
      store.pull(`${server.host}/app@sha512:${'0'.repeat(128)}`),
      refused('ERR_ARCBOX_REFERENCE_INVALID', /sha256/),
    );
  });
});

test('what an archive names in errors is harmless to a terminal', async () => {
  await withStore(async ({ store }) => {
    const manifest = JSON.stringify([{ Config: '\u001b[31m\u202egone', RepoTags: [], Layers: [] }]);
    await assert.rejects(
      store.load(pieces(tar({ name: 'manifest.json', data: manifest }))),
      refused('ERR_ARCBOX_ARCHIVE_INVALID', /^[^\p{Cc}\u202e]*gone[^\p{Cc}\u202e]*$/u),
    );
  });
});

test('files of an archive that are no layers: a large one is passed over, many are too much', async () => {
  await withStore(async ({ store }) => {
    const junk = { name: 'junk', data: Buffer.alloc(9 * 1024 * 1024, 'x') };
    await assert.rejects(
      store.load(pieces(tar(junk, { name: 'manifest.json', data: '[{"Config":"junk","Layers":[]}]' }))),
      refused('ERR_ARCBOX_ARCHIVE_INVALID', /junk, which is not in it/),
    );
    async function* many(): AsyncGenerator<Buffer> {
      const one = entry({ name: 'json', data: Buffer.alloc(4 * 1024 * 1024, ' ') });
      for (let count = 0; count < 20; count += 1) yield Buffer.from(one);
    }
    await assert.rejects(store.load(many()), refused('ERR_ARCBOX_IMAGE_LIMIT', /no layers/));
  });
});

async function* pieces(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 64 * 1024) yield Buffer.from(bytes.subarray(at, at + 64 * 1024));
}

/** What the filter says of entries that are made while it reads. */
function filtering(make: (index: number) => Buffer, count: number): void {
  const filter = LayerFilter.indexing();
  const reader = new TarReader(filter);
  for (let index = 0; index < count; index += 1) reader.write(make(index));
}

test('few entries cannot make many names, nor many bytes of attributes', () => {
  const deep = 'a/'.repeat(1900);
  assert.throws(
    () => filtering((index) => entry({ name: `${index}/${deep}x` }), 2000),
    /makes more than 1500000 names/,
  );
  const records = Buffer.concat(
    Array.from({ length: 15 }, (_, index) => paxRecord(`SCHILY.xattr.user.${index}`, Buffer.alloc(65_000))),
  );
  const header = paxHeader(records);
  assert.throws(
    () => filtering((index) => Buffer.concat([header, entry({ name: `d${index}`, type: 'directory' })]), 400),
    /names and attributes have more than/,
  );
  assert.throws(
    () => filtering(() => entry({ name: 'l', type: 'symlink', linkName: 'x/'.repeat(3000) }), 1),
    /target of the symbolic link "l" is too long/,
  );
});

test('a long map of a sparse file is read in one go', () => {
  const pieces = 90_000;
  const map = [pieces, ...Array.from({ length: pieces }, (_, at) => `${at * 1000}\n0`)].join('\n');
  const lines = Buffer.from(`${map}\n`);
  const data = Buffer.concat([lines, Buffer.alloc((512 - (lines.length % 512)) % 512)]);
  const records = Buffer.concat([
    paxRecord('GNU.sparse.major', '1'),
    paxRecord('GNU.sparse.realsize', String(pieces * 1000)),
  ]);
  const archive = Buffer.concat([paxHeader(records), tar({ name: 's', data })]);
  const found: TarEntry[] = [];
  const reader = new TarReader({ onEntry: (one) => found.push(one), onData() {}, onEntryEnd() {} });
  // Processor time: what else the machine does has no part in it.
  const started = process.cpuUsage();
  reader.write(archive);
  reader.end();
  const { user, system } = process.cpuUsage(started);
  assert.equal(found[0]?.sparse?.pieces.length, 2 * pieces);
  assert.equal(found[0]?.sparse?.pieces.at(-2), (pieces - 1) * 1000);
  assert.ok(user + system < 5_000_000, 'the time grows with its length, not its square');
});

test('an attribute’s name cannot become another one on its way', () => {
  const found: TarEntry[] = [];
  const read = (key: string): void => {
    const reader = new TarReader({ onEntry: (one) => found.push(one), onData() {}, onEntryEnd() {} });
    reader.write(Buffer.concat([paxHeader(paxRecord(key, 'eQ==')), tar({ name: 'a' })]));
  };
  read('LIBARCHIVE.xattr.trusted.%C5%AFverlay.opaque');
  assert.deepEqual([...(found[0]?.xattrs.keys() ?? [])], ['trusted.\u00c5\u00afverlay.opaque']);
  for (const key of ['user.a%3Db', 'user.a%00b']) {
    assert.throws(() => read(`LIBARCHIVE.xattr.${key}`), /no name of an extended attribute/);
  }
});

test('an image that gets a name while others are pruned stays', async () => {
  await withStore(async ({ store }) => {
    for (const name of ['a', 'b']) {
      await store.load(pieces(gzipSync(archiveOf(testImage([[{ name }]]), 'x:1'))));
      await store.load(pieces(archiveOf(testImage([[{ name: 'other' }]]), 'x:1')));
    }
    const nameless = (await store.list()).filter(({ names }) => names.length === 0);
    assert.equal(nameless.length, 2);
    const last = nameless.at(-1)?.id ?? '';
    // The first one's files are still going when the last one gets its name.
    const [{ removed }] = await Promise.all([store.prune(), store.tag(last, 'kept:1')]);
    assert.deepEqual(
      removed.flatMap((one) => ('deleted' in one ? [one.deleted] : [])),
      [nameless[0]?.id],
    );
    assert.equal((await store.resolve('kept:1')).id, last);
  });
});

function archiveOf(image: ReturnType<typeof testImage>, name: string): Buffer {
  const config = `${sha256(image.config).slice(7)}.json`;
  return tar(
    { name: config, data: image.config },
    { name: 'layer.tar', data: image.layers[0] ?? Buffer.alloc(0) },
    {
      name: 'manifest.json',
      data: JSON.stringify([{ Config: config, RepoTags: [name], Layers: ['layer.tar'] }]),
    },
  );
}
