import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { type AgentClient, AgentOpError, type OpInput } from '@arcbox/protocol';
import { HostAgent } from './support/host-agent.ts';
import { resultOf } from './support/run.ts';
import { test } from './support/test.ts';

async function fails(client: AgentClient, op: OpInput, errnoName: string, index = 0): Promise<AgentOpError> {
  const error = await client.batch([op]).then(
    () => assert.fail(`${op.case} did not fail`),
    (error: unknown) => error,
  );
  assert.ok(error instanceof AgentOpError, String(error));
  assert.deepEqual([error.errnoName, error.index, error.op], [errnoName, index, op.case], error.message);
  assert.notEqual(error.detail, '', 'a failure says what failed');
  return error;
}

test('directories, links and names', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const at = (...parts: string[]): string => agent.path(...parts);
  await client.batch([
    { case: 'mkdir', value: { path: at('a/b/c'), mode: 0o750, parents: true } },
    { case: 'mkdir', value: { path: at('a/b/c'), mode: 0o700, parents: true } },
    { case: 'mkdir', value: { path: at('tmp'), mode: 0o1777 } },
    { case: 'mkdir', value: { path: at('shared'), mode: 0o777 } },
    { case: 'symlink', value: { target: '../x', path: at('a/link') } },
    { case: 'write', value: { path: at('a/file'), data: Buffer.from('hello'), create: true, mode: 0o600 } },
    { case: 'rename', value: { from: at('a/file'), to: at('a/b/file') } },
    { case: 'chmod', value: { path: at('a/b/file'), mode: 0o4711 } },
    { case: 'chown', value: { path: at('a/b/file'), uid: 1234, gid: 4321 } },
    { case: 'chown', value: { path: at('a/link'), uid: 77, gid: 78, noFollow: true } },
  ]);
  const modes = ['a/b/c', 'tmp', 'shared'].map((name) => fs.statSync(at(name)).mode & 0o7777);
  assert.deepEqual(modes, [0o750, 0o1777, 0o777]);
  const results = await client.batch([
    { case: 'stat', value: { path: at('a/b/file') } },
    { case: 'stat', value: { path: at('a/link') } },
    { case: 'list', value: { path: at('a') } },
  ]);
  const file = resultOf(results, 0, 'stat');
  const expected = fs.lstatSync(at('a/b/file'), { bigint: true });
  assert.deepEqual(
    [BigInt(file.mode), file.uid, file.gid, file.size, file.mtimeNs, file.ino, file.nlink],
    [expected.mode, 1234, 4321, 5n, expected.mtimeNs, expected.ino, 1],
  );
  // A change of owner takes the set-user-ID bit away, as the kernel has it.
  assert.equal(file.mode & 0o7777, 0o711);
  const link = resultOf(results, 1, 'stat');
  assert.deepEqual([link.linkTarget, link.uid, link.gid, link.mode & 0o170000], ['../x', 77, 78, 0o120000]);
  const names = resultOf(results, 2, 'list').entries.map(({ name, type }) => `${name}:${type}`);
  assert.deepEqual(names.sort(), ['b:4', 'link:10']);

  await fails(client, { case: 'mkdir', value: { path: at('a'), mode: 0o755 } }, 'EEXIST');
  await fails(client, { case: 'mkdir', value: { path: at('no/where'), mode: 0o755 } }, 'ENOENT');
  await fails(
    client,
    { case: 'mkdir', value: { path: at('a/b/file'), mode: 0o755, parents: true } },
    'ENOTDIR',
  );
  await fails(client, { case: 'stat', value: { path: at('a/link'), follow: true } }, 'ENOENT');
  await fails(client, { case: 'list', value: { path: at('nowhere') } }, 'ENOENT');
  await fails(client, { case: 'rename', value: { from: at('nowhere'), to: at('b') } }, 'ENOENT');
  const error = await fails(client, { case: 'chmod', value: { path: at('nowhere'), mode: 0 } }, 'ENOENT');
  assert.match(error.detail, /nowhere/);
});

test('remove takes a tree, and only that', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const at = (...parts: string[]): string => agent.path(...parts);
  fs.mkdirSync(at('keep'));
  fs.writeFileSync(at('keep/file'), 'kept');
  for (let index = 0; index < 300; index++) fs.mkdirSync(at(`tree/${index}/x/y`), { recursive: true });
  fs.symlinkSync(at('keep'), at('tree/link'));
  fs.mkdirSync(at('tree/mounted'));
  await fails(client, { case: 'remove', value: { path: at('tree') } }, 'ENOTEMPTY');
  await fails(client, { case: 'remove', value: { path: at('nowhere') } }, 'ENOENT');
  await client.batch([
    { case: 'remove', value: { path: at('nowhere'), missingOk: true } },
    { case: 'remove', value: { path: at('nowhere'), missingOk: true, recursive: true } },
    { case: 'mount', value: { source: 'none', target: at('tree/mounted'), type: 'tmpfs' } },
    { case: 'write', value: { path: at('tree/mounted/file'), data: Buffer.from('other'), create: true } },
  ]);
  // What is mounted below is not ours to remove.
  const error = await client
    .batch([{ case: 'remove', value: { path: at('tree'), recursive: true } }])
    .catch((e) => e);
  assert.ok(error instanceof AgentOpError, String(error));
  await client.batch([
    { case: 'stat', value: { path: at('tree/mounted/file') } },
    { case: 'unmount', value: { target: at('tree/mounted') } },
    { case: 'remove', value: { path: at('tree'), recursive: true } },
    { case: 'remove', value: { path: at('keep/file') } },
  ]);
  assert.ok(!fs.existsSync(at('tree')));
  assert.deepEqual(fs.readdirSync(at('keep')), []);
});

test('files are written and read in pieces', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const path = agent.path('file');
  const bytes = randomBytes(2_500_000);
  const MIB = 1 << 20;
  await client.batch([
    { case: 'write', value: { path, data: bytes.subarray(0, MIB), create: true, mode: 0o640, sync: true } },
    { case: 'write', value: { path, data: bytes.subarray(MIB, 2 * MIB), append: true } },
    { case: 'write', value: { path, data: bytes.subarray(2 * MIB), offset: 2 * MIB } },
  ]);
  assert.equal(fs.statSync(path).mode & 0o777, 0o640);
  assert.ok(fs.readFileSync(path).equals(bytes));
  const pieces: Buffer[] = [];
  for (let eof = false; !eof; ) {
    const offset = pieces.reduce((sum, piece) => sum + piece.length, 0);
    const read = resultOf(await client.batch([{ case: 'read', value: { path, offset } }]), 0, 'data');
    assert.ok(read.data.length <= MIB);
    pieces.push(Buffer.from(read.data));
    eof = read.eof;
  }
  assert.equal(
    createHash('sha256').update(Buffer.concat(pieces)).digest('hex'),
    createHash('sha256').update(bytes).digest('hex'),
  );
  const part = resultOf(
    await client.batch([{ case: 'read', value: { path, offset: 10, limit: 5 } }]),
    0,
    'data',
  );
  assert.deepEqual(Buffer.from(part.data), bytes.subarray(10, 15));
  assert.equal(part.eof, false);
  await client.batch([{ case: 'write', value: { path, data: Buffer.from('short'), truncate: true } }]);
  assert.equal(fs.readFileSync(path, 'utf8'), 'short');

  await fails(client, { case: 'write', value: { path: agent.path('no'), data: Buffer.from('x') } }, 'ENOENT');
  await fails(client, { case: 'read', value: { path: agent.path() } }, 'EISDIR');
  await fails(client, { case: 'write', value: { path, data: new Uint8Array(MIB + 1) } }, 'EMSGSIZE');
  assert.equal(fs.readFileSync(path, 'utf8'), 'short');
});

test('a file of /proc, which has no size, is read whole', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const read = resultOf(
    await client.batch([{ case: 'read', value: { path: '/proc/self/status' } }]),
    0,
    'data',
  );
  assert.match(Buffer.from(read.data).toString(), new RegExp(`^Pid:\\t${agent.pid}$`, 'm'));
  assert.equal(read.eof, true);
});

test('devices, fifos and extended attributes', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const at = (...parts: string[]): string => agent.path(...parts);
  await client.batch([
    { case: 'mknod', value: { path: at('null'), mode: 0o020666, major: 1, minor: 3 } },
    { case: 'mknod', value: { path: at('fifo'), mode: 0o010600 } },
    { case: 'write', value: { path: at('file'), create: true } },
    { case: 'setXattr', value: { path: at('file'), name: 'trusted.one', value: Buffer.from([0, 1, 255]) } },
    { case: 'setXattr', value: { path: at('file'), name: 'trusted.two', value: Buffer.from('x') } },
    { case: 'setXattr', value: { path: at('file'), name: 'trusted.two', remove: true } },
  ]);
  const results = await client.batch([
    { case: 'stat', value: { path: at('null') } },
    { case: 'stat', value: { path: at('fifo') } },
    { case: 'getXattr', value: { path: at('file'), name: 'trusted.one' } },
  ]);
  const device = resultOf(results, 0, 'stat');
  assert.deepEqual([device.mode, device.rdevMajor, device.rdevMinor], [0o020666, 1, 3]);
  assert.equal(resultOf(results, 1, 'stat').mode, 0o010600);
  assert.deepEqual(Buffer.from(resultOf(results, 2, 'data').data), Buffer.from([0, 1, 255]));
  await fails(client, { case: 'getXattr', value: { path: at('file'), name: 'trusted.two' } }, 'ENODATA');
  // Opening a fifo that nobody reads must not stop the agent.
  const stuck = client
    .batch([{ case: 'read', value: { path: at('fifo') } }], { timeoutMs: 500 })
    .catch(() => {});
  assert.equal((await client.batch([{ case: 'sync', value: {} }])).length, 1);
  await stuck;
});

test('mounts are made, with options past a page, and unmounted', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const at = (...parts: string[]): string => agent.path(...parts);
  await client.batch([
    {
      case: 'mount',
      value: { source: 'none', target: at('m'), type: 'tmpfs', data: 'size=1m', mkdirTarget: true },
    },
    { case: 'write', value: { path: at('m/x'), data: Buffer.from('inside'), create: true } },
    // MS_BIND
    { case: 'mount', value: { source: at('m'), target: at('bind'), flags: 4096, mkdirTarget: true } },
    { case: 'stat', value: { path: at('bind/x') } },
  ]);
  assert.deepEqual(fs.readdirSync(at('m')), [], 'its mounts are its own');
  await fails(
    client,
    { case: 'write', value: { path: at('m/y'), data: new Uint8Array(1 << 20), create: true } },
    'ENOSPC',
  );
  await fails(client, { case: 'mount', value: { source: 'x', target: at('m'), type: 'nofs' } }, 'ENODEV');
  await fails(client, { case: 'unmount', value: { target: at('nowhere') } }, 'ENOENT');
  await client.batch([
    { case: 'unmount', value: { target: at('bind') } },
    { case: 'unmount', value: { target: at('m'), detach: true } },
  ]);
  await fails(client, { case: 'stat', value: { path: at('m/x') } }, 'ENOENT');

  // So many layers with names so long enough that the option string does not fit into a page.
  const layers: string[] = [];
  for (let index = 0; index < 100; index++) {
    const layer = at(`layer-${'x'.repeat(60)}-${index}`);
    fs.mkdirSync(layer);
    fs.writeFileSync(`${layer}/${index}`, '');
    layers.push(layer);
  }
  const data = `lowerdir=${layers.join(':')}`;
  assert.ok(data.length > 4096);
  await client.batch([
    {
      case: 'mount',
      value: { source: 'overlay', target: at('o'), type: 'overlay', data, mkdirTarget: true },
    },
  ]);
  const list = resultOf(await client.batch([{ case: 'list', value: { path: at('o') } }]), 0, 'list');
  assert.equal(list.entries.length, 100);
  await client.batch([{ case: 'unmount', value: { target: at('o') } }]);
});

test('a batch stops at its first failure', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const at = (...parts: string[]): string => agent.path(...parts);
  const batch = client.batch([
    { case: 'mkdir', value: { path: at('one'), mode: 0o755 } },
    { case: 'mkdir', value: { path: at('two'), mode: 0o755 } },
    { case: 'remove', value: { path: at('nowhere'), recursive: true } },
    { case: 'mkdir', value: { path: at('three'), mode: 0o755 } },
  ]);
  await assert.rejects(batch, (error) => {
    assert.ok(error instanceof AgentOpError);
    assert.deepEqual(
      [error.index, error.op, error.errnoName, error.results.length],
      [2, 'remove', 'ENOENT', 3],
    );
    return true;
  });
  assert.deepEqual(fs.readdirSync(agent.directory).sort(), ['one', 'socket', 'two']);
});

test('what an operation cannot do it says: no capability, no argument, no operation', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  await fails(client, { case: 'setTime', value: { unixNs: 1 } }, 'EPERM');
  await fails(client, { case: 'reseed', value: { entropy: new Uint8Array(513) } }, 'EINVAL');
  await fails(client, { case: 'mkdir', value: { path: '' } }, 'ENOENT');
  await fails(client, { case: 'mkdir', value: { path: `/${'x'.repeat(5000)}` } }, 'ENAMETOOLONG');
  await fails(
    client,
    { case: 'waitDevice', value: { match: { case: 'serial', value: 'none' }, timeoutMs: 20 } },
    'ETIMEDOUT',
  );
  await client.batch([{ case: 'reseed', value: { entropy: randomBytes(512) } }]);
  await assert.rejects(client.batch([{ case: 'nonesuch' as 'sync', value: {} }]));
});
