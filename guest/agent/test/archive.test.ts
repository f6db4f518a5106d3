import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { type AgentClient, Archive_Mode, type ObjectEnd, type OpInput } from '@arcbox/protocol';
import fc from 'fast-check';
import { HostAgent } from './support/host-agent.ts';
import { freshId, Gathered, resultOf } from './support/run.ts';
import { tar, tarEntry } from './support/tar.ts';
import { test } from './support/test.ts';

type ArchiveInput = (OpInput & { case: 'archive' })['value'];

interface Archived extends ObjectEnd {
  readonly bytes: Buffer;
  readonly messages: string;
}

async function archive(client: AgentClient, value: ArchiveInput, input?: Uint8Array): Promise<Archived> {
  const id = freshId();
  await client.batch([{ case: 'archive', value: { ...value, id } }]);
  const gathered = await Gathered.attach(client, id);
  if (input !== undefined) await gathered.attachment.write(input, { eof: true });
  const end = await client.wait(id);
  await gathered.attachment.closed;
  await client.batch([{ case: 'release', value: { id } }]);
  return { ...end, bytes: gathered.bytes(1), messages: gathered.error };
}

const pack = (client: AgentClient, value: ArchiveInput): Promise<Archived> =>
  archive(client, { mode: Archive_Mode.PACK, ...value });

const unpack = (client: AgentClient, input: Uint8Array, value: ArchiveInput): Promise<Archived> =>
  archive(client, { mode: Archive_Mode.UNPACK, ...value }, input);

/** What is below a directory: names, and what a copy has to keep of each. */
function survey(root: string, options = { directoryTimes: true }): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  const inodes = new Map<bigint, string>();
  const visit = (name: string): void => {
    const path = join(root, name);
    const { mode, uid, gid, size, mtimeNs, nlink, rdev, ino } = fs.lstatSync(path, { bigint: true });
    const type = Number(mode & 0o170000n);
    const first = inodes.get(ino) ?? name;
    inodes.set(ino, first);
    found[name] = {
      mode,
      uid,
      gid,
      mtimeNs: type === 0o120000 || (type === 0o040000 && !options.directoryTimes) ? undefined : mtimeNs,
      rdev,
      ...(type === 0o040000 ? {} : { size, nlink, first }),
      ...(type === 0o100000
        ? { content: createHash('sha256').update(fs.readFileSync(path)).digest('hex') }
        : {}),
      ...(type === 0o120000 ? { target: fs.readlinkSync(path) } : {}),
    };
    if (type !== 0o040000) return;
    for (const child of fs.readdirSync(path).sort()) visit(join(name, child));
  };
  for (const child of fs.readdirSync(root).sort()) visit(child);
  return found;
}

/** One of everything. */
async function plant(client: AgentClient, root: string): Promise<void> {
  const at = (name: string): string => join(root, name);
  fs.mkdirSync(at('etc/empty'), { recursive: true });
  fs.writeFileSync(at('etc/file'), 'content');
  fs.writeFileSync(at('etc/nothing'), '');
  fs.writeFileSync(at('large'), randomBytes(3_000_001));
  fs.writeFileSync(at(`long-${'n'.repeat(240)}`), 'x');
  fs.mkdirSync(at(`${'deep/'.repeat(25)}${'long'.repeat(30)}/end`), { recursive: true });
  fs.writeFileSync(at('näme with "ünïcode" 名前\n'), 'x');
  fs.linkSync(at('etc/file'), at('hard'));
  fs.linkSync(at('etc/file'), at('etc/harder'));
  fs.symlinkSync('/nowhere/at/all', at('dangling'));
  fs.symlinkSync('etc', at('link'));
  fs.symlinkSync(`/${'t'.repeat(300)}`, at('long-link'));
  fs.writeFileSync(at('setuid'), 'x');
  const path = (name: string): { path: string } => ({ path: at(name) });
  await client.batch([
    { case: 'mknod', value: { ...path('fifo'), mode: 0o010640 } },
    { case: 'mknod', value: { ...path('device'), mode: 0o020660, major: 1, minor: 3 } },
    { case: 'chown', value: { ...path('etc/file'), uid: 3_000_000, gid: 4_000_000 } },
    { case: 'chown', value: { ...path('link'), uid: 5, gid: 6, noFollow: true } },
    { case: 'chmod', value: { ...path('setuid'), mode: 0o6755 } },
    { case: 'chmod', value: { ...path('etc/empty'), mode: 0o1777 } },
    {
      case: 'setXattr',
      value: { ...path('large'), name: 'trusted.test', value: Buffer.from([0, 255, 10, 61]) },
    },
    { case: 'setXattr', value: { ...path('etc'), name: 'trusted.overlay.opaque', value: Buffer.from('y') } },
  ]);
  fs.utimesSync(at('etc/nothing'), 1.5, 1_234_567_890.25);
  fs.utimesSync(at('etc/empty'), 1.5, 1_234_567_891);
}

test('what is packed and unpacked is the same', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const from = agent.path('from');
  const to = agent.path('to');
  fs.mkdirSync(from);
  fs.mkdirSync(to);
  await plant(client, from);
  const packed = await pack(client, { root: from, path: '/' });
  assert.deepEqual([packed.code, packed.error, packed.messages], [0, '', '']);
  const unpacked = await unpack(client, packed.bytes, { root: to, path: '/' });
  assert.deepEqual([unpacked.code, unpacked.error, unpacked.messages], [0, '', '']);
  assert.deepEqual(survey(to), survey(from));
  const xattrs = await client.batch([
    { case: 'getXattr', value: { path: join(to, 'large'), name: 'trusted.test' } },
    { case: 'getXattr', value: { path: join(to, 'etc'), name: 'trusted.overlay.opaque' } },
  ]);
  assert.deepEqual(Buffer.from(resultOf(xattrs, 0, 'data').data), Buffer.from([0, 255, 10, 61]));
  assert.equal(Buffer.from(resultOf(xattrs, 1, 'data').data).toString(), 'y');

  // Again over what is there, and as root's.
  const again = await unpack(client, packed.bytes, { root: to, path: '/', numericOwnerRoot: true });
  assert.equal(again.code, 0);
  const { uid, gid } = fs.statSync(join(to, 'etc/file'));
  assert.deepEqual([uid, gid], [0, 0]);
});

test('other programs read what is packed, and what they pack is read', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const from = agent.path('from');
  fs.mkdirSync(from);
  await plant(client, from);
  const packed = await pack(client, { root: agent.directory, path: '/from', baseName: 'renamed' });
  const gnu = agent.path('gnu');
  fs.mkdirSync(gnu);
  execFileSync('tar', ['-x', '-p', '--numeric-owner', '-C', gnu], { input: packed.bytes });
  assert.deepEqual(fs.readdirSync(gnu), ['renamed']);
  // Our order is not depth first, and it sets a directory's time before all is in it.
  const options = { directoryTimes: false };
  assert.deepEqual(survey(join(gnu, 'renamed'), options), survey(from, options));
  for (const format of ['gnu', 'pax']) {
    const theirs = execFileSync('tar', ['-c', `--format=${format}`, '--numeric-owner', '-C', from, '.'], {
      maxBuffer: 1 << 30,
    });
    const to = agent.path(`to-${format}`);
    fs.mkdirSync(to);
    const { code, error } = await unpack(client, theirs, { root: to, path: '/' });
    assert.deepEqual([code, error], [0, '']);
    // GNU's own format has no parts of a second.
    if (format === 'pax') assert.deepEqual(survey(to), survey(from));
    else assert.deepEqual(Object.keys(survey(to)), Object.keys(survey(from)));
  }
});

test('one file, one directory, a link, and what is not there', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const root = agent.path('root');
  fs.mkdirSync(join(root, 'a/b'), { recursive: true });
  fs.writeFileSync(join(root, 'a/b/file'), 'x');
  fs.symlinkSync('/a/b', join(root, 'link'));
  const names = async (path: string, baseName = ''): Promise<string[]> => {
    const { bytes, code } = await pack(client, { root, path, baseName });
    assert.equal(code, 0);
    return execFileSync('tar', ['-t'], { input: bytes }).toString().trim().split('\n');
  };
  assert.deepEqual(await names('/a/b/file'), ['file']);
  assert.deepEqual(await names('/a/b/file', 'other'), ['other']);
  assert.deepEqual((await names('/a')).sort(), ['a/', 'a/b/', 'a/b/file']);
  assert.deepEqual(await names('/link'), ['link']);
  assert.deepEqual(await names('/link/file'), ['file'], 'a link leads on within the root');
  const missing = await pack(client, { root, path: '/nowhere' });
  assert.equal(missing.code, 2);
  assert.notEqual(missing.error, '');
  const noRoot = await pack(client, { root: '/no/such', path: '/' });
  assert.equal(noRoot.code, 2);
});

test('a directory is replaced by a file, and the reverse, only when that is allowed', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const root = agent.path('root');
  fs.mkdirSync(join(root, 'directory/inner'), { recursive: true });
  fs.writeFileSync(join(root, 'file'), 'x');
  const asFile = tar({ name: 'directory', data: Buffer.from('now a file') });
  const asDirectory = tar({ name: 'file/', type: '5', mode: 0o755 });
  for (const bytes of [asFile, asDirectory]) {
    const refused = await unpack(client, bytes, { root, path: '/', noOverwriteDirNonDir: true });
    assert.notEqual(refused.code, 0);
    assert.match(refused.error, /cannot overwrite/);
  }
  assert.ok(fs.statSync(join(root, 'directory/inner')).isDirectory());
  for (const bytes of [asFile, asDirectory])
    assert.equal((await unpack(client, bytes, { root, path: '/' })).code, 0);
  assert.ok(fs.statSync(join(root, 'directory')).isFile());
  assert.ok(fs.statSync(join(root, 'file')).isDirectory());
});

test('a hostile archive writes nothing outside its root', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const outside = agent.path('outside');
  fs.mkdirSync(outside);
  fs.writeFileSync(join(outside, 'secret'), 'secret');
  const evil = Buffer.from('evil');
  const up = '../'.repeat(20);
  const cases: Record<string, Buffer> = {
    dotdot: tar({ name: `${up}${outside.slice(1)}/evil`, data: evil }),
    inner: tar({ name: 'a/', type: '5' }, { name: `a/${up}${outside.slice(1)}/evil`, data: evil }),
    absolute: tar({ name: `${outside}/evil`, data: evil }),
    symlink: tar({ name: 'l', type: '2', link: outside }, { name: 'l/evil', data: evil }),
    relative: tar({ name: 'l', type: '2', link: `${up}${outside.slice(1)}` }, { name: 'l/evil', data: evil }),
    chain: tar(
      { name: 'a', type: '2', link: '..' },
      { name: 'a/b', type: '2', link: '../..' },
      { name: `b/${outside.slice(1)}/evil`, data: evil },
    ),
    self: tar({ name: '.', type: '2', link: outside }, { name: 'evil', data: evil }),
    over: tar({ name: 'l', type: '2', link: `${outside}/secret` }, { name: 'l', data: evil }),
    hardlink: tar({ name: 'h', type: '1', link: `${outside}/secret` }, { name: 'h', data: evil }),
    hardlinkUp: tar(
      { name: 'h', type: '1', link: `${up}${outside.slice(1)}/secret` },
      { name: 'h', data: evil },
    ),
    hardlinkOfLink: tar(
      { name: 'l', type: '2', link: `${outside}/secret` },
      { name: 'h', type: '1', link: 'l' },
      { name: 'h', data: evil },
    ),
    directory: tar({ name: 'l', type: '2', link: outside }, { name: 'l/', type: '5', mode: 0o777 }),
  };
  const before = survey(outside);
  for (const [name, bytes] of Object.entries(cases)) {
    const root = agent.path(`root-${name}`);
    fs.mkdirSync(root);
    await unpack(client, bytes, { root, path: '/' });
    assert.deepEqual(survey(outside), before, name);
    agent.assertAlive();
  }
  // Below `path`, `..` is refused as well.
  const root = agent.path('root');
  fs.mkdirSync(join(root, 'sub'), { recursive: true });
  const { code } = await unpack(client, tar({ name: '../evil', data: evil }), { root, path: '/sub' });
  assert.notEqual(code, 0);
  assert.deepEqual(fs.readdirSync(root), ['sub']);
});

test('a broken archive ends with an error, never with more than that', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const root = agent.path('root');
  fs.mkdirSync(root);
  const good = tar({ name: 'file', data: randomBytes(2000) });
  const broken: Record<string, Buffer> = {
    truncated: good.subarray(0, 1500),
    checksum: tar({ name: 'file', checksum: 1 }),
    noise: Buffer.alloc(4096, 0x41),
    huge: tarEntry({ name: 'file', size: 0o77777777777 }),
    cut: good.subarray(0, 100),
  };
  for (const [name, bytes] of Object.entries(broken)) {
    const { code, error } = await unpack(client, bytes, { root, path: '/' });
    assert.notEqual(code, 0, name);
    assert.notEqual(error, '', name);
  }
  assert.equal((await unpack(client, Buffer.alloc(0), { root, path: '/' })).code, 0, 'nothing is nothing');
  const mutated = fc.tuple(fc.nat(good.length - 1), fc.nat(255), fc.nat(511)).map(([at, byte, header]) => {
    const bytes = Buffer.from(good);
    bytes[at] = byte;
    bytes[header] = byte;
    return bytes;
  });
  await fc.assert(
    fc.asyncProperty(mutated, async (bytes) => {
      const { signaled } = await unpack(client, bytes, { root, path: '/' });
      assert.equal(signaled, false);
      agent.assertAlive();
    }),
    { seed: 20261122, numRuns: 100 },
  );
});

test('an archive job that is released, or whose host goes away, leaves nothing', async () => {
  await using agent = await HostAgent.start();
  const root = agent.path('root');
  fs.mkdirSync(root);
  fs.writeFileSync(join(root, 'large'), Buffer.alloc(20_000_000));
  const id = freshId();
  const first = await agent.connect();
  await first.batch([{ case: 'archive', value: { id, mode: Archive_Mode.PACK, root, path: '/' } }]);
  const pieces: Buffer[] = [];
  let received = 0;
  const some = Promise.withResolvers<void>();
  await first.attach(id, {
    onChunk({ channel, data }) {
      if (channel !== 1) return;
      pieces.push(Buffer.from(data));
      received += data.length;
      if (received >= 500_000) some.resolve();
    },
  });
  await some.promise;
  await first.close();
  // The next host goes on from there.
  await using second = await agent.connect();
  const kept = Buffer.concat(pieces);
  const rest: Buffer[] = [];
  const enough = Promise.withResolvers<void>();
  await second.attach(id, {
    output: { offset: kept.length },
    onChunk({ channel, data, offset }) {
      if (channel !== 1) return;
      rest.push(Buffer.from(data));
      if (offset + data.length > kept.length + 500_000) enough.resolve();
    },
  });
  await enough.promise;
  const start = Buffer.concat([kept, ...rest]);
  // The data of the only file, which is zeros but for the headers: nothing is missing between the two.
  assert.ok(start.length >= 1_000_000);
  await second.batch([{ case: 'release', value: { id } }]);
});
