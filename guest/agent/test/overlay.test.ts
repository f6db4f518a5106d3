/** What is done with the files of an overlay, below a root that is not to be left, and beside a container's process. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { type AgentClient, AgentOpError, Archive_Mode, type OpInput } from '@arcbox/protocol';
import { eventually } from './support/eventually.ts';
import { HostAgent } from './support/host-agent.ts';
import { freshId, Gathered, resultOf, run, shell } from './support/run.ts';
import { tar } from './support/tar.ts';
import { test } from './support/test.ts';

async function archive(
  client: AgentClient,
  value: (OpInput & { case: 'archive' })['value'],
  input?: Uint8Array,
): Promise<{ code: number; bytes: Buffer; messages: string }> {
  const id = freshId();
  await client.batch([{ case: 'archive', value: { ...value, id } }]);
  const gathered = await Gathered.attach(client, id);
  if (input !== undefined) await gathered.attachment.write(input, { eof: true });
  const { code } = await client.wait(id);
  await gathered.attachment.closed;
  await client.batch([{ case: 'release', value: { id } }]);
  return { code, bytes: gathered.bytes(1), messages: gathered.error };
}

/** One of which only the exit status is left does not. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** An upper directory as overlayfs leaves one: a deleted name is a device 0/0, a replaced directory is opaque. */
async function upper(client: AgentClient, agent: HostAgent): Promise<{ upper: string; lower: string }> {
  const at = { upper: agent.path('upper'), lower: agent.path('lower') };
  fs.mkdirSync(join(at.lower, 'kept', 'deep'), { recursive: true });
  fs.mkdirSync(join(at.lower, 'replaced'));
  for (const name of ['gone', 'kept/changed', 'replaced/hidden']) fs.writeFileSync(join(at.lower, name), '');
  fs.symlinkSync('kept', join(at.lower, 'link'));
  fs.mkdirSync(join(at.upper, 'kept', 'deep'), { recursive: true });
  fs.mkdirSync(join(at.upper, 'replaced'));
  fs.mkdirSync(join(at.upper, 'link'));
  for (const name of ['added', 'kept/changed', 'replaced/new', 'link/changed'])
    fs.writeFileSync(join(at.upper, name), name);
  await client.batch([
    { case: 'mknod', value: { path: join(at.upper, 'gone'), mode: 0o020000, major: 0, minor: 0 } },
    {
      case: 'setXattr',
      value: { path: join(at.upper, 'replaced'), name: 'trusted.overlay.opaque', value: Buffer.from('y') },
    },
    {
      case: 'setXattr',
      value: { path: join(at.upper, 'kept'), name: 'trusted.overlay.impure', value: Buffer.from('y') },
    },
    {
      case: 'setXattr',
      value: { path: join(at.upper, 'added'), name: 'user.note', value: Buffer.from('mine') },
    },
  ]);
  return at;
}

test('the changes of an upper directory: added, changed, deleted', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const at = await upper(client, agent);
  const { code, bytes } = await archive(client, {
    mode: Archive_Mode.CHANGES,
    root: at.upper,
    lower: at.lower,
  });
  assert.equal(code, 0);
  assert.deepEqual(bytes.toString().split('\0').filter(Boolean).sort(), [
    'A/added',
    // Below there is a link of this name: what is behind it is another directory.
    'A/link/changed',
    'A/replaced/new',
    'C/kept',
    'C/kept/changed',
    'C/kept/deep',
    'C/link',
    'C/replaced',
    'D/gone',
  ]);
  const missing = await archive(client, { mode: Archive_Mode.CHANGES, root: at.upper, lower: '/nosuch' });
  assert.notEqual(missing.code, 0);
});

test('an upper directory as a layer: marks instead of devices and attributes', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const at = await upper(client, agent);
  const { code, bytes } = await archive(client, {
    mode: Archive_Mode.PACK,
    root: at.upper,
    path: '/',
    layer: true,
  });
  assert.equal(code, 0);
  const file = agent.path('layer.tar');
  fs.writeFileSync(file, bytes);
  const names = execFileSync('tar', ['-tf', file], { encoding: 'utf8' }).trim().split('\n');
  assert.deepEqual(names.map((name) => name.replace(/\/$/, '')).sort(), [
    '.',
    '.wh.gone',
    'added',
    'kept',
    'kept/changed',
    'kept/deep',
    'link',
    'link/changed',
    'replaced',
    'replaced/.wh..wh..opq',
    'replaced/new',
  ]);
  assert.ok(bytes.includes('SCHILY.xattr.user.note=mine'), 'attributes of one’s own stay');
  assert.ok(!bytes.includes('trusted.overlay'));
});

test('unpacking gives the top entry another name, links to it too', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const root = agent.path('root');
  fs.mkdirSync(root);
  const input = tar(
    { name: 'top/', type: '5', mode: 0o755 },
    { name: 'top/file', data: Buffer.from('x') },
    { name: 'top/hard', type: '1', link: 'top/file' },
  );
  const { code, messages } = await archive(
    client,
    { mode: Archive_Mode.UNPACK, root, path: '/', baseName: 'new' },
    input,
  );
  assert.deepEqual({ code, messages }, { code: 0, messages: '' });
  assert.deepEqual(fs.readdirSync(root), ['new']);
  assert.equal(fs.statSync(join(root, 'new', 'hard')).ino, fs.statSync(join(root, 'new', 'file')).ino);
  const outside = await archive(
    client,
    { mode: Archive_Mode.UNPACK, root, path: '/', baseName: '..' },
    input,
  );
  assert.notEqual(outside.code, 0);
});

test('no link and no .. leads out of a root', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const root = agent.path('root');
  fs.mkdirSync(join(root, 'etc'), { recursive: true });
  fs.writeFileSync(join(root, 'etc', 'name'), 'inside');
  fs.writeFileSync(agent.path('name'), 'outside');
  fs.symlinkSync('/etc/name', join(root, 'absolute'));
  fs.symlinkSync('../../../name', join(root, 'etc', 'relative'));
  fs.symlinkSync('/proc/self/root/etc/passwd', join(root, 'magic'));
  const read = async (path: string): Promise<string> => {
    const results = await client.batch([{ case: 'read', value: { path, root } }]);
    return Buffer.from(resultOf(results, 0, 'data').data).toString();
  };
  assert.equal(await read('/etc/name'), 'inside');
  assert.equal(await read('/absolute'), 'inside');
  assert.equal(await read('/../../etc/name'), 'inside');
  for (const path of ['/etc/relative', '/magic', '/nosuch']) {
    await assert.rejects(
      read(path),
      (error) => error instanceof AgentOpError && error.errnoName === 'ENOENT',
      path,
    );
  }
  const results = await client
    .batch([
      { case: 'stat', value: { path: '/absolute', root } },
      { case: 'stat', value: { path: '/absolute', root, follow: true } },
      { case: 'list', value: { path: '/absolute/..', root: agent.path('root') } },
    ])
    .catch((error: unknown) => (error instanceof AgentOpError ? [...error.results] : []));
  assert.equal(resultOf(results, 0, 'stat').linkTarget, '/etc/name');
  assert.equal(resultOf(results, 1, 'stat').size, 6n);
  const [listed] = await client.batch([{ case: 'list', value: { path: '/', root } }]);
  const entries = listed?.result.case === 'list' ? listed.result.value.entries.map(({ name }) => name) : [];
  assert.deepEqual(entries.sort(), ['absolute', 'etc', 'magic']);
});

test('a process is entered by its object’s name, and what an ended one left in its group can go on', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const target = freshId();
  await client.batch([shell('exec sleep 1000', { id: target })]);
  const inside = (id: string, script: string): OpInput & { case: 'execIn' } => ({
    case: 'execIn',
    value: {
      target,
      keepAllCapabilities: true,
      spawn: { id, argv: ['/bin/sh', '-c', script], env: ['PATH=/bin:/usr/bin'] },
    },
  });
  const id = freshId();
  const { output } = await run(client, inside(id, 'sleep 1000 >/dev/null 2>&1 & echo $!'));
  await eventually(() => assert.ok(!isRunning(Number(output)), 'without keep_group it goes'));
  const kept = freshId();
  await client.batch([inside(kept, 'sleep 1000 >/dev/null 2>&1 & echo $!')]);
  const gathered = await Gathered.attach(client, kept);
  await client.wait(kept);
  await gathered.attachment.closed;
  await client.batch([{ case: 'release', value: { id: kept, keepGroup: true } }]);
  const pid = Number(gathered.output);
  assert.ok(isRunning(pid));
  process.kill(pid, 'SIGKILL');
  await client.batch([{ case: 'release', value: { id: target } }]);
  await assert.rejects(
    client.batch([inside(freshId(), 'true')]),
    (error) => error instanceof AgentOpError && error.errnoName === 'ESRCH',
  );
});
