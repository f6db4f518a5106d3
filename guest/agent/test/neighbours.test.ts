/** What one program can do to the others that the agent serves, and to the host: take its share and no more. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { AcceptedSchema, AgentCallError, Archive_Mode, type OpInput, Status } from '@arcbox/protocol';
import { fromBinary } from '@bufbuild/protobuf';
import { eventually } from './support/eventually.ts';
import { HostAgent } from './support/host-agent.ts';
import { freshId, Gathered, resultOf, run, shell } from './support/run.ts';
import { test } from './support/test.ts';

const OUTPUT_RETAIN_MAX = 1 << 20;
const RETAIN_TOTAL_MAX = 64 << 20;
/** More than a pipe holds, and less than a pipe and a full ring: it ends although nobody takes its output. */
const WRITE_MUCH = `head -c ${OUTPUT_RETAIN_MAX + OUTPUT_RETAIN_MAX / 2} /dev/zero`;
/** So many rings of full size are all that there may be. */
const RINGS = RETAIN_TOTAL_MAX / OUTPUT_RETAIN_MAX;
const OBJECTS_MAX = 4096;
const OBJECTS_OF_HOST_MIN = 1024;

test('small messages do not use up the room for output', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const ids = Array.from({ length: RINGS }, freshId);
  await client.batch(
    ids.map((id): OpInput => ({ case: 'watch', value: { id, path: agent.directory, mask: 0x100 } })),
  );
  writeFileSync(agent.path('event'), '');
  const last = await Gathered.attach(client, ids.at(-1) ?? '');
  await last.until(({ output }) => output.length > 0);
  const spawn = shell(WRITE_MUCH);
  await client.batch([spawn]);
  assert.equal((await client.wait(spawn.value.id ?? '', { timeoutMs: 90_000 })).code, 0);
  await client.batch([...ids, spawn.value.id ?? ''].map((id) => ({ case: 'release', value: { id } })));
});

test('the room of those who wrote much goes to those who write', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const spawns = Array.from({ length: RINGS }, () =>
    shell(`head -c ${OUTPUT_RETAIN_MAX} /dev/zero; echo written >&2; read line`, { stdin: true }),
  );
  await client.batch(spawns);
  for (const { value } of spawns) {
    const gathered = await Gathered.attach(client, value.id ?? '');
    await gathered.until(
      (stream) => stream.bytes(1).length === OUTPUT_RETAIN_MAX && stream.error === 'written\n',
    );
  }
  const next = shell(WRITE_MUCH);
  await client.batch([next]);
  assert.equal((await client.wait(next.value.id ?? '', { timeoutMs: 90_000 })).code, 0);
  await client.batch(
    [...spawns, next].map(({ value }) => ({ case: 'release', value: { id: value.id ?? '' } })),
  );
});

test('connections that arrive leave room for what the host makes', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const path = agent.path('listener');
  await client.batch([{ case: 'listen', value: { id: 'l', address: { case: 'unixPath', value: path } } }]);
  const names = async (): Promise<string[]> => {
    const results = await client.batch([{ case: 'listObjects', value: {} }]);
    return resultOf(results, 0, 'objects').objects.map(({ id }) => id);
  };
  const sockets: net.Socket[] = [];
  const most = OBJECTS_MAX - OBJECTS_OF_HOST_MIN;
  // The listener is an object too.
  for (let made = 1; made < most + 10; made++) {
    const socket = net.connect(path);
    socket.on('error', () => {});
    sockets.push(socket);
    await once(socket, 'connect');
    // The queue of those not accepted yet is short.
    if (made % 100 === 0) await eventually(async () => assert.ok((await names()).length > made));
  }
  await eventually(async () => assert.equal((await names()).length, most));
  assert.equal((await run(client, shell('echo fine'))).output, 'fine\n');
  for (const socket of sockets) socket.destroy();
  await client.batch([{ case: 'release', value: { id: 'l' } }]);
  const left = await names();
  for (let at = 0; at < left.length; at += 256) {
    await client.batch(left.slice(at, at + 256).map((id) => ({ case: 'release', value: { id } })));
  }
});

test('the name of a peer can be any bytes, and is announced as text', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const path = agent.path('listener');
  await client.batch([{ case: 'listen', value: { id: 'l', address: { case: 'unixPath', value: path } } }]);
  const listener = await Gathered.attach(client, 'l');
  const script = `import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1].encode() + b'/\\xff\\xfe')
s.connect(sys.argv[2])`;
  execFileSync('/usr/bin/python3', ['-c', script, agent.directory, path]);
  await listener.until(({ output }) => output.length > 0);
  const { id, peer } = fromBinary(AcceptedSchema, listener.bytes(1).subarray(1));
  assert.deepEqual([id, peer], ['l/1', `unix ${agent.path('??')}`]);
  await client.batch(['l', 'l/1'].map((name) => ({ case: 'release', value: { id: name } })));
});

test('what a host asks for in all is bounded', async () => {
  await using agent = await HostAgent.start();
  const hasty = await agent.connect();
  const data = Buffer.alloc(1_000_000);
  const write: OpInput = { case: 'write', value: { path: agent.path('never'), data } };
  const wait: OpInput = {
    case: 'waitDevice',
    value: { match: { case: 'serial', value: 'none' }, timeoutMs: 60_000 },
  };
  const calls: Promise<unknown>[] = [];
  for (let call = 0; call < 20; call++) {
    const batch = hasty.batch([wait, write, write, write, write]);
    batch.catch(() => {});
    calls.push(batch);
    // It has come: the host's own queue has a limit as well.
    await hasty.batch([{ case: 'listObjects', value: {} }]);
  }
  const refused = await Promise.any(
    calls.map((call) =>
      call.then(
        () => assert.fail(),
        (error: unknown) => error,
      ),
    ),
  );
  assert.ok(
    refused instanceof AgentCallError && refused.status === Status.resourceExhausted,
    String(refused),
  );
  await hasty.close();
  assert.equal((await Promise.allSettled(calls)).length, 20);
  await using client = await agent.connect();
  assert.equal((await run(client, shell('echo fine'))).output, 'fine\n');
  // The next wait takes the abandoned ones away, and with the last of them what listens for devices.
  await assert.rejects(client.batch([{ ...wait, value: { ...wait.value, timeoutMs: 1 } }]), {
    errnoName: 'ETIMEDOUT',
  });
});

test('a tree that is deeper than a path may be long is packed under its names', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const name = 'n'.repeat(200);
  const depth = 60;
  mkdirSync(agent.path('tree'));
  const made = spawnSync('sh', [
    '-c',
    `cd ${agent.path('tree')}; i=0; while [ $i -lt ${depth} ]; do mkdir ${name}; cd -P ${name} || exit 1; i=$((i+1)); done`,
  ]);
  assert.equal(made.status, 0, made.stderr.toString());
  const id = freshId();
  const value = { id, mode: Archive_Mode.PACK, root: agent.directory, path: '/tree', baseName: 'other' };
  await client.batch([{ case: 'archive', value }]);
  const gathered = await Gathered.attach(client, id);
  const end = await client.wait(id);
  await gathered.attachment.closed;
  await client.batch([{ case: 'release', value: { id } }]);
  assert.deepEqual([end.code, gathered.error], [0, '']);
  const listed = execFileSync('tar', ['-t'], { input: gathered.bytes(1) })
    .toString()
    .trim()
    .split('\n');
  const lengths = listed.map((path) => path.length).sort((a, b) => a - b);
  assert.deepEqual(
    lengths,
    Array.from({ length: depth + 1 }, (_, level) => 'other/'.length + level * (name.length + 1)),
  );
  await client.batch([{ case: 'remove', value: { path: agent.path('tree'), recursive: true } }]);
});
