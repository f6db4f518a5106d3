/** Logging in and out: what a registry says to it, and where credentials are kept. */
import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ImageError } from '../src/index.ts';
import { credentialsFor, eraseCredentials, storeCredentials } from '../src/registry/credentials.ts';
import { DockerRegistry, FakeServer, PASSWORD, USER } from './support/registry.ts';
import { withStore } from './support/store.ts';

const credentials = { username: USER, password: PASSWORD };
const refused = (code: string, why: RegExp) => (error: unknown) =>
  error instanceof ImageError && error.code === code && why.test(error.message);

test('what is stored is found again, other entries stay, and what is erased is gone', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'arcbox-login-'));
  try {
    const file = join(directory, 'docker', 'config.json');
    const environment = {
      DOCKER_CONFIG: join(directory, 'docker'),
      PATH: `${directory}:${process.env.PATH}`,
    };
    const ada = { username: 'ada', password: 'love:lace' };
    assert.equal(await eraseCredentials('example.com', environment), false);
    assert.equal(await storeCredentials('example.com', ada, environment), file);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), {
      auths: { 'example.com': { auth: Buffer.from('ada:love:lace').toString('base64') } },
    });
    // Others' settings, an entry under another spelling, and a link are left as they are.
    const elsewhere = join(directory, 'real.json');
    const other = { auth: Buffer.from('bob:builder').toString('base64') };
    writeFileSync(
      elsewhere,
      JSON.stringify({ psFormat: 'x', auths: { 'https://example.com/v1/': other, 'other.com': other } }),
    );
    rmSync(file);
    symlinkSync(elsewhere, file);
    await storeCredentials('docker.io', { ...ada, identityToken: 'tok' }, environment);
    await storeCredentials('example.com', ada, environment);
    const stored = JSON.parse(readFileSync(elsewhere, 'utf8')) as { psFormat: string; auths: object };
    assert.equal(stored.psFormat, 'x');
    assert.deepEqual(Object.keys(stored.auths).sort(), [
      'example.com',
      'https://index.docker.io/v1/',
      'other.com',
    ]);
    assert.deepEqual(await credentialsFor('docker.io', environment), { ...ada, identityToken: 'tok' });
    assert.deepEqual(await credentialsFor('example.com', environment), ada);
    assert.equal(await eraseCredentials('example.com', environment), true);
    assert.equal(await credentialsFor('example.com', environment), undefined);
    // With a helper the file knows the host and no secret.
    const kept = join(directory, 'kept');
    writeFileSync(
      join(directory, 'docker-credential-file'),
      `#!/bin/sh
case "$1" in
  store) cat > ${kept} ;;
  get) cat ${kept} 2>/dev/null || { echo credentials not found; exit 1; } ;;
  erase) rm ${kept} ;;
esac
`,
    );
    chmodSync(join(directory, 'docker-credential-file'), 0o755);
    writeFileSync(elsewhere, JSON.stringify({ credHelpers: { 'example.com': 'file' } }));
    assert.equal(await storeCredentials('example.com', ada, environment), undefined);
    assert.deepEqual(JSON.parse(readFileSync(kept, 'utf8')), {
      ServerURL: 'example.com',
      Username: 'ada',
      Secret: 'love:lace',
    });
    assert.doesNotMatch(readFileSync(elsewhere, 'utf8'), /YWRh|love/);
    assert.deepEqual(await credentialsFor('example.com', environment), ada);
    assert.equal(await eraseCredentials('example.com', environment), true);
    assert.equal(existsSync(kept), false);
    assert.equal(await eraseCredentials('example.com', environment), false);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a login is taken or refused as the registry says', async () => {
  await using secured = await DockerRegistry.start({ login: true });
  await using open = await FakeServer.start((_, response) => response.writeHead(200).end('{}'));
  await withStore(async ({ store }) => {
    await store.checkLogin(secured.host, credentials);
    await store.checkLogin(open.host, credentials);
    const wrong = { ...credentials, password: 'wrong' };
    await assert.rejects(
      store.checkLogin(secured.host, wrong),
      refused('ERR_ARCBOX_REGISTRY_DENIED', /does not accept this user name and password/),
    );
    await assert.rejects(
      store.checkLogin('127.0.0.1:1', credentials),
      refused('ERR_ARCBOX_REGISTRY_UNREACHABLE', /127\.0\.0\.1:1 cannot be reached/),
    );
    await using nothing = await FakeServer.start((_, response) => response.writeHead(404).end());
    await assert.rejects(
      store.checkLogin(nothing.host, credentials),
      refused('ERR_ARCBOX_REGISTRY', /is it a registry/),
    );
    await using tokens: FakeServer = await FakeServer.start((incoming, response) => {
      const { authorization } = incoming.headers;
      if (incoming.url?.startsWith('/token') === true) {
        const known = authorization === `Basic ${Buffer.from(`${USER}:${PASSWORD}`).toString('base64')}`;
        response.writeHead(known ? 200 : 401).end(JSON.stringify(known ? { token: 'good' } : {}));
      } else if (authorization === 'Bearer good') response.writeHead(200).end('{}');
      else {
        const realm = `http://${tokens.host}/token`;
        response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm}",service="s"` }).end();
      }
    });
    await store.checkLogin(tokens.host, credentials);
    await assert.rejects(
      store.checkLogin(tokens.host, wrong),
      refused('ERR_ARCBOX_REGISTRY_DENIED', /does not accept/),
    );
  });
});
