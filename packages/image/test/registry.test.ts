import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { sha256 } from '../src/digest.ts';
import { ImageError, type ProgressEvent } from '../src/index.ts';
import { MEDIA_TYPES } from '../src/manifest.ts';
import { credentialsFor } from '../src/registry/credentials.ts';
import { ociArchive, testImage } from './support/archives.ts';
import { DockerRegistry, FakeServer, PASSWORD, USER } from './support/registry.ts';
import { content } from './support/squashfs.ts';
import { type TestStore, withStore } from './support/store.ts';
import { tar } from './support/tars.ts';

let registry: DockerRegistry;
let secured: DockerRegistry;
before(async () => {
  // Nobody's own credentials.
  process.env.DOCKER_CONFIG = '/nonexistent';
  [registry, secured] = await Promise.all([DockerRegistry.start(), DockerRegistry.start({ login: true })]);
});
after(async () => {
  await registry[Symbol.asyncDispose]();
  await secured[Symbol.asyncDispose]();
});

const plain = testImage([[{ name: 'a', data: 'x'.repeat(50_000) }], [{ name: 'b', data: 'y' }]]);
const packed = { ...plain, blobs: plain.layers.map((layer) => gzipSync(layer, { level: 9 })) };
const credentials = { username: USER, password: PASSWORD };
const refused = (code: string, why: RegExp) => (error: unknown) =>
  error instanceof ImageError && error.code === code && why.test(error.message);

async function load({ store }: TestStore, name: string): Promise<void> {
  await store.load(Readable.from([ociArchive(packed, [name])]));
}

test('what is pushed and pulled again is the same, byte for byte', async () => {
  const name = `${registry.host}/team/app:1`;
  await withStore(async (from) => {
    await load(from, name);
    const events: ProgressEvent[] = [];
    const { digest } = await from.store.push(name, { onProgress: (event) => events.push(event) });
    assert.equal(digest, packed.manifestDigest());
    assert.equal(events.filter(({ status }) => status === 'Pushed').length, 2);
    assert.deepEqual((await from.store.resolve(name)).digests, [`${registry.host}/team/app@${digest}`]);
    const again: string[] = [];
    await from.store.push(name, { onProgress: ({ status }) => again.push(status) });
    assert.equal(again.filter((status) => status === 'Layer already exists').length, 2);
  });
  await withStore(async ({ store }) => {
    const events: ProgressEvent[] = [];
    const first = await store.pull(name, { onProgress: (event) => events.push(event) });
    assert.equal(first.changed, true);
    assert.equal(first.digest, packed.manifestDigest());
    assert.equal(first.image.id, sha256(packed.config));
    assert.deepEqual(first.image.names, [name]);
    assert.equal(content(first.image.layers[0]?.path ?? '', 'a'), 'x'.repeat(50_000));
    assert.equal(events.filter(({ status }) => status === 'Pull complete').length, 2);
    const statuses: string[] = [];
    const second = await store.pull(name, { onProgress: ({ status }) => statuses.push(status) });
    assert.equal(second.changed, false);
    assert.deepEqual(statuses, ['Already exists', 'Already exists']);
    const byDigest = await store.pull(`${registry.host}/team/app@${first.digest}`);
    assert.equal(byDigest.image.id, first.image.id);
    assert.equal((await store.resolve(`${registry.host}/team/app@${first.digest}`)).id, first.image.id);
    assert.equal((await store.list()).length, 2);
    await store.push(name);
  });
});

test('what was made here is packed once, and goes to a second repository without being sent', async () => {
  await withStore(async ({ store, database }) => {
    const one = `${registry.host}/made/one:1`;
    const two = `${registry.host}/made/two:1`;
    await store.createFromLayer({
      base: 'busybox',
      layer: Readable.from([tar({ name: 'new', data: 'z' })]),
      names: [one],
    });
    const { digest } = await store.push(one);
    const packs = database
      .prepare(`SELECT count(*) AS n FROM image_blobs WHERE compression = 'gzip'`)
      .get()?.n;
    assert.equal(packs, 2);
    await store.tag(one, two);
    const statuses: string[] = [];
    assert.equal(
      (await store.push(two, { onProgress: ({ status }) => statuses.push(status) })).digest,
      digest,
    );
    assert.equal(statuses.filter((status) => status === 'Mounted from made/one').length, 2);
    await withStore(async (other) => {
      assert.equal((await other.store.pull(two)).image.id, (await store.resolve(one)).id);
    });
    // The embedded image can be pushed as it is.
    await store.tag('busybox', `${registry.host}/embedded:1`);
    await store.push(`${registry.host}/embedded:1`);
  });
});

test('a registry that wants a name and a password', async () => {
  const name = `${secured.host}/app:1`;
  await withStore(async (test) => {
    await load(test, name);
    await assert.rejects(test.store.push(name), refused('ERR_ARCBOX_REGISTRY_DENIED', /arcbox login/));
    await assert.rejects(
      test.store.push(name, { credentials: { username: USER, password: 'wrong' } }),
      refused('ERR_ARCBOX_REGISTRY_DENIED', /denied/),
    );
    await test.store.push(name, { credentials });
    await test.store.remove(name);
    await assert.rejects(test.store.pull(name), refused('ERR_ARCBOX_REGISTRY_DENIED', /pull access denied/));
    await test.store.pull(name, { credentials });
  });
});

test('credentials from Docker’s configuration and its helpers', async () => {
  await withStore(async ({ home }) => {
    const directory = join(home, 'docker');
    mkdirSync(directory);
    const write = (config: object): void =>
      writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
    const environment = { DOCKER_CONFIG: directory, PATH: `${directory}:${process.env.PATH}` };
    const get = (host: string): Promise<unknown> => credentialsFor(host, environment);
    assert.equal(await get('example.com'), undefined);
    const auth = Buffer.from('ada:love:lace').toString('base64');
    write({
      auths: { 'https://example.com/v2/': { auth }, 'https://index.docker.io/v1/': { identitytoken: 'tok' } },
    });
    assert.deepEqual(await get('example.com'), { username: 'ada', password: 'love:lace' });
    assert.deepEqual(await get('docker.io'), { username: '', password: '', identityToken: 'tok' });
    assert.equal(await get('other.com'), undefined);
    const helper = join(directory, 'docker-credential-test');
    writeFileSync(
      helper,
      `#!/bin/sh
read -r host
case "$1 $host" in
  "get example.com") echo '{"ServerURL":"example.com","Username":"bob","Secret":"builder"}' ;;
  "get token.com") echo '{"Username":"<token>","Secret":"abc"}' ;;
  "get broken.com") echo "no keyring here" >&2; exit 1 ;;
  *) echo "credentials not found in native keychain"; exit 1 ;;
esac
`,
    );
    chmodSync(helper, 0o755);
    write({ credHelpers: { 'example.com': 'test', 'broken.com': 'test' }, auths: { 'plain.com': { auth } } });
    assert.deepEqual(await get('example.com'), { username: 'bob', password: 'builder' });
    await assert.rejects(get('broken.com'), refused('ERR_ARCBOX_CREDENTIALS', /no keyring here/));
    write({ credsStore: 'test', auths: { 'plain.com': { auth } } });
    assert.deepEqual(await get('token.com'), { username: '', password: '', identityToken: 'abc' });
    assert.deepEqual(await get('plain.com'), { username: 'ada', password: 'love:lace' });
    write({ credsStore: '../../bin/sh' });
    await assert.rejects(get('x.com'), refused('ERR_ARCBOX_CREDENTIALS', /no name of a credential helper/));
    write({ credsStore: 'missing' });
    await assert.rejects(get('x.com'), refused('ERR_ARCBOX_CREDENTIALS', /docker-credential-missing/));
    writeFileSync(join(directory, 'config.json'), '{');
    await assert.rejects(get('x.com'), refused('ERR_ARCBOX_CREDENTIALS', /not JSON/));
  });
});

/** Passes a request on to the real registry. */
function forward(incoming: IncomingMessage, response: ServerResponse): void {
  const outgoing = request(
    `http://${registry.host}${incoming.url}`,
    { method: incoming.method ?? 'GET', headers: { ...incoming.headers, host: incoming.headers.host } },
    (answer) => {
      response.writeHead(answer.statusCode ?? 500, answer.headers);
      answer.pipe(response);
    },
  );
  incoming.pipe(outgoing);
}

test('a registry that wants a token: with the right scope, anonymously and with credentials', async () => {
  const tokens: string[] = [];
  await using tokenServer = await FakeServer.start((incoming, response) => {
    const url = new URL(incoming.url ?? '', 'http://localhost');
    const scopes = url.searchParams.getAll('scope').join(' ');
    const push = scopes.includes('push');
    const known =
      incoming.headers.authorization === `Basic ${Buffer.from(`${USER}:${PASSWORD}`).toString('base64')}`;
    if (push && !known) {
      response.writeHead(401).end('{}');
      return;
    }
    const token = `${push ? 'push' : 'pull'}-${tokens.length}`;
    tokens.push(`${url.searchParams.get('service')} ${scopes} ${known}`);
    response.end(JSON.stringify(tokens.length % 2 === 0 ? { token } : { access_token: token }));
  });
  await using front = await FakeServer.start((incoming, response) => {
    const bearer = /^Bearer (push|pull)-/.exec(incoming.headers.authorization ?? '')?.[1];
    const writes = incoming.method === 'POST' || incoming.method === 'PUT';
    if (bearer === undefined || (writes && bearer !== 'push')) {
      incoming.resume();
      response
        .writeHead(401, {
          'www-authenticate':
            `Bearer realm="http://${tokenServer.host}/token",service="a, "b"",scope="x"`.replaceAll('\\', ''),
        })
        .end();
      return;
    }
    forward(incoming, response);
  });
  const name = `${front.host}/tokens/app:1`;
  await withStore(async (test) => {
    await load(test, name);
    await assert.rejects(test.store.push(name), refused('ERR_ARCBOX_REGISTRY_DENIED', /without credentials/));
    await test.store.push(name, { credentials });
    assert.match(tokens.at(-1) ?? '', /repository:tokens\/app:pull,push true$/);
    await test.store.remove(name);
    await test.store.pull(name);
    assert.match(tokens.at(-1) ?? '', /repository:tokens\/app:pull false$/);
  });
});

test('an index: this host’s image, or the one that is asked for', async () => {
  const images = ['amd64', 'arm64'].map((architecture) => ({
    ...testImage([[{ name: architecture }]], { architecture }),
    architecture,
  }));
  const index = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociIndex,
      manifests: [
        {
          mediaType: MEDIA_TYPES.ociManifest,
          digest: sha256('attestation'),
          size: 2,
          platform: { os: 'unknown', architecture: 'unknown' },
        },
        ...images.map((image) => ({
          mediaType: MEDIA_TYPES.ociManifest,
          digest: image.manifestDigest(),
          size: image.manifest().length,
          platform: { os: 'linux', architecture: image.architecture },
        })),
      ],
    }),
  );
  const documents = new Map(
    images
      .flatMap((image) => [image.manifest(), image.config, ...image.blobs])
      .map((bytes) => [sha256(bytes), bytes]),
  );
  await using server = await FakeServer.start((incoming, response) => {
    const last = (incoming.url ?? '').split('/').at(-1) ?? '';
    const bytes = last === 'latest' ? index : documents.get(last);
    if (incoming.url === '/v2/') response.end();
    else if (bytes === undefined) response.writeHead(404).end();
    else response.end(bytes);
  });
  await withStore(async ({ store }) => {
    const own = process.arch === 'arm64' ? 'arm64' : 'amd64';
    const name = `${server.host}/many`;
    assert.equal((await store.pull(name)).image.config.architecture, own);
    const arm = await store.pull(name, { platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } });
    assert.equal(arm.image.config.architecture, 'arm64');
    assert.equal(arm.digest, sha256(index));
    await assert.rejects(
      store.pull(name, { platform: { os: 'linux', architecture: 's390x', variant: '' } }),
      refused('ERR_ARCBOX_IMAGE_PLATFORM', /it has linux\/amd64, linux\/arm64$/),
    );
  });
});

test('mirrors are asked first, and passed over when they cannot help', async () => {
  await withStore(async (test) => {
    await load(test, `${registry.host}/library/mirrored:1`);
    await test.store.push(`${registry.host}/library/mirrored:1`);
  });
  await using broken = await FakeServer.start((_, response) => response.writeHead(404).end());
  await withStore(
    async ({ store }) => {
      const { image } = await store.pull('mirrored:1');
      assert.deepEqual(image.names, ['docker.io/library/mirrored:1']);
      assert.ok(broken.requests.length > 0);
    },
    { registries: { mirrors: [`http://${broken.host}`, `http://${registry.host}`], insecure: [] } },
  );
});
