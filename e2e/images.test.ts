/** Images from elsewhere: a registry on loopback, archives, many layers. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { dockerArchive, ociArchive, testImage } from '../packages/image/test/support/archives.ts';
import { DockerRegistry, PASSWORD, USER } from '../packages/image/test/support/registry.ts';
import { type EntryInput, tar } from '../packages/image/test/support/tars.ts';
import { Arcbox } from './support.ts';

/** As many as Docker allows. */
const LAYERS = 127;

let arcbox: Arcbox;
let registry: DockerRegistry;
before(async () => {
  registry = await DockerRegistry.start();
  arcbox = new Arcbox({ DOCKER_CONFIG: '/nonexistent' });
});
after(async () => {
  await arcbox[Symbol.asyncDispose]();
  await registry[Symbol.asyncDispose]();
});

async function ok(...args: string[]): Promise<string> {
  const { stdout, stderr, code } = await arcbox.run(args);
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** Layers that make a root file system with busybox's shell, and then what they add. */
function withBusybox(layers: readonly (readonly EntryInput[])[]): ReturnType<typeof testImage> {
  const busybox = readFileSync('/bin/busybox');
  const applets = ['sh', 'cat', 'ls', 'echo', 'stat', 'wc', 'test', 'id', 'readlink'];
  return testImage([
    [
      { name: 'bin/busybox', data: busybox, mode: 0o755 },
      ...applets.map(
        (applet): EntryInput => ({ name: `bin/${applet}`, type: 'symlink', linkName: 'busybox' }),
      ),
    ],
    ...layers,
  ]);
}

test('an image goes to a registry, comes back and runs; run gets what is missing', async () => {
  const image = withBusybox([[{ name: 'motd', data: 'from the registry\n' }]]);
  const packed = { ...image, blobs: image.layers.map((layer) => gzipSync(layer, { level: 1 })) };
  const name = `${registry.host}/team/app:1`;
  const file = join(arcbox.home, 'image.tar');
  writeFileSync(file, ociArchive(packed, [name]));
  assert.equal(await ok('load', '-i', file), `Loaded image: ${name}\n`);
  assert.match(await ok('push', name), new RegExp(`digest: ${packed.manifestDigest()}\n$`));
  assert.match(await ok('rmi', name), /^Untagged: [^\n]*\nUntagged: [^\n]*@sha256:[^\n]*\nDeleted: sha256:/);
  const run = await arcbox.run(['run', '--rm', name, 'cat', '/motd']);
  assert.equal(run.code, 0, run.stderr);
  assert.equal(run.stdout, 'from the registry\n');
  assert.match(run.stderr, /is not here yet/);
  const nobody = await arcbox.run(['run', '--rm', '127.0.0.1:1/nosuch']);
  assert.deepEqual(nobody, {
    stdout: '',
    stderr:
      'arcbox: the image 127.0.0.1:1/nosuch is not here, and the registry 127.0.0.1:1 cannot be reached: 127.0.0.1:1 refuses connections (ECONNREFUSED)\n',
    code: 125,
  });
  assert.match(run.stderr, /Pull complete/);
  assert.match(await ok('pull', name), /Status: Image is up to date for/);
  assert.equal((await arcbox.run(['run', '--rm', '--pull=never', `${name}0`, 'true'])).code, 125);
  // In use: not without force; and a container goes on with an image that was removed.
  const id = (await ok('create', '--name', 'user', name, 'cat', '/motd')).trim();
  const refused = await arcbox.run(['rmi', name]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, new RegExp(`conflict: .* container ${id.slice(0, 12)} is using`));
  await ok('rmi', '-f', name);
  assert.equal(await ok('start', '-a', 'user'), 'from the registry\n');
  await ok('rm', 'user');
  assert.doesNotMatch(await ok('images'), /team\/app/);
});

test('what layers remove, hide and link is what a container sees', async () => {
  const image = withBusybox([
    [
      { name: 'dir/below', data: 'below' },
      { name: 'gone', data: 'gone' },
      { name: 'gone-dir/file', data: 'x' },
      { name: 'file-then-dir', data: 'x' },
      { name: 'dir-then-file/x', data: 'x' },
      { name: 'owned', data: 'x', uid: 12, gid: 34, mode: 0o4750 },
      { name: 'dev/zero-of-ours', type: 'char', devMajor: 1, devMinor: 5, mode: 0o666 },
    ],
    [
      { name: '.wh.gone' },
      { name: '.wh.gone-dir' },
      { name: 'dir/.wh..wh..opq' },
      { name: 'dir/above', data: 'above' },
      { name: 'file-then-dir/now', data: 'x' },
      { name: 'dir-then-file', data: 'now a file' },
      { name: 'link', type: 'link', linkName: 'dir/above' },
    ],
  ]);
  const file = join(arcbox.home, 'layers.tar');
  writeFileSync(file, dockerArchive(image, ['layers:1']));
  await ok('load', '-i', file);
  const script =
    'ls /dir /file-then-dir; cat /dir-then-file; echo; test -e /gone || echo no file; test -e /gone-dir || echo no dir; stat -c "%u %g %a" /owned; stat -c %h /link';
  const out = await ok('run', '--rm', 'layers:1', 'sh', '-c', script);
  assert.equal(out, '/dir:\nabove\n\n/file-then-dir:\nnow\nnow a file\nno file\nno dir\n12 34 4750\n2\n');
});

test(`an image of ${LAYERS} layers runs, also when layers have large numbers`, async () => {
  const image = withBusybox(
    Array.from({ length: LAYERS - 1 }, (_, index) => [
      { name: `layer/${index}`, data: String(index) },
      { name: 'last', data: String(index) },
    ]),
  );
  const file = join(arcbox.home, 'many.tar');
  writeFileSync(file, dockerArchive(image, ['many:1']));
  await ok('run', '--rm', 'busybox', 'true');
  await ok('daemon', 'stop');
  const state = new DatabaseSync(join(arcbox.home, 'state.db'));
  state.exec(`UPDATE sqlite_sequence SET seq = 10000000 WHERE name = 'layers'`);
  state.close();
  await ok('load', '-i', file);
  assert.equal(
    await ok('run', '--rm', 'many:1', 'sh', '-c', 'ls /layer | wc -l; cat /last; readlink /bin/cat'),
    `${LAYERS - 1}\n${LAYERS - 2}busybox\n`,
  );
  // A machine has 255 places for disks: layers that nobody uses make room, and go with their image.
  const other = withBusybox(
    Array.from({ length: LAYERS - 1 }, (_, index) => [{ name: `other/${index}`, data: 'other' }]),
  );
  writeFileSync(file, dockerArchive(other, ['other:1']));
  await ok('load', '-i', file);
  assert.equal(await ok('run', '--rm', 'other:1', 'cat', '/other/7'), 'other');
  const third = withBusybox(
    Array.from({ length: 20 }, (_, index) => [{ name: `third/${index}`, data: 'third' }]),
  );
  writeFileSync(file, dockerArchive(third, ['third:1']));
  await ok('load', '-i', file);
  assert.equal(await ok('run', '--rm', 'third:1', 'cat', '/third/7'), 'third');
  await ok('rmi', 'many:1', 'other:1', 'third:1');
  assert.doesNotMatch(arcbox.daemonLog(), /layer.release_failed/);
  const tooMany = testImage(Array.from({ length: LAYERS + 1 }, (_, index) => [{ name: `${index}` }]));
  writeFileSync(file, dockerArchive(tooMany, ['toomany:1']));
  const refused = await arcbox.run(['load', '-i', file]);
  assert.match(refused.stderr, /128 layers; the limit is 127/);
});

test('import: a root file system becomes an image that runs', async () => {
  const root = tar(
    { name: './', type: 'directory' },
    { name: './bin/sh', data: readFileSync('/bin/busybox'), mode: 0o755 },
    { name: './etc/motd', data: 'imported\n' },
  );
  const file = join(arcbox.home, 'root.tar');
  writeFileSync(file, gzipSync(root));
  await ok(
    'import',
    '-c',
    'CMD ["sh", "-c", "read x < /etc/motd; echo $x $A"]',
    '-c',
    'ENV A=b',
    file,
    'imported:1',
  );
  assert.equal(await ok('run', '--rm', 'imported:1'), 'imported b\n');
  assert.match(await ok('history', 'imported:1'), /Imported from/);
  const saved = join(arcbox.home, 'saved.tar');
  await ok('save', '-o', saved, 'imported:1', 'busybox');
  await ok('rmi', 'imported:1');
  assert.match(await ok('load', '-i', saved), /Loaded image: imported:1/);
  assert.equal(await ok('run', '--rm', 'imported:1'), 'imported b\n');
});

test('a login is kept where docker looks for it, used by pull and push, and forgotten again', async () => {
  await using secured = await DockerRegistry.start({ login: true });
  const config = mkdtempSync(join(tmpdir(), 'arcbox-login-'));
  // Another configuration than the daemon was started with.
  const mine = { environment: { DOCKER_CONFIG: config } };
  const name = `${secured.host}/team/app:1`;
  await ok('tag', 'busybox', name);
  try {
    const anonymous = await arcbox.run(['push', name], mine);
    assert.match(anonymous.stderr, new RegExp(`arcbox login ${secured.host}`));
    const login = ['login', '-u', USER, '--password-stdin', `http://${secured.host}/`];
    const wrong = await arcbox.run(login, { ...mine, input: 'wrong\n' });
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /does not accept this user name and password/);
    assert.deepEqual(readdirSync(config), []);
    const done = await arcbox.run(login, { ...mine, input: `${PASSWORD}\n` });
    assert.equal(done.stdout, 'Login Succeeded\n', done.stderr);
    assert.match(done.stderr, /not encrypted/);
    assert.deepEqual(JSON.parse(readFileSync(join(config, 'config.json'), 'utf8')), {
      auths: { [secured.host]: { auth: Buffer.from(`${USER}:${PASSWORD}`).toString('base64') } },
    });
    const again = await arcbox.run(['login', secured.host], mine);
    assert.match(again.stdout, /existing credentials...\nLogin Succeeded/);
    assert.match((await arcbox.run(['push', name], mine)).stdout, /digest: sha256:/);
    assert.match((await arcbox.run(['pull', name], mine)).stdout, /Image is up to date/);
    const shown = await arcbox.run(['login', '-u', USER, '-p', PASSWORD, secured.host], mine);
    assert.match(shown.stderr, /shows the password to everybody/);
    assert.match((await arcbox.run(['logout', secured.host], mine)).stdout, /Removed/);
    assert.match((await arcbox.run(['logout', secured.host], mine)).stdout, /Not logged in/);
    assert.match((await arcbox.run(['pull', name], mine)).stderr, /needs a login/);
    const nobody = await arcbox.run(['login', secured.host], mine);
    assert.match(nobody.stderr, /no terminal to ask at/);
  } finally {
    rmSync(config, { recursive: true });
    await ok('rmi', name);
  }
});
