import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readlinkSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { join } from 'node:path';
import { type AgentClient, AgentOpError, WatchEventSchema } from '@arcbox/protocol';
import { fromBinary } from '@bufbuild/protobuf';
import { eventually } from './support/eventually.ts';
import { HostAgent } from './support/host-agent.ts';
import { freshId, Gathered, resultOf, run, shell } from './support/run.ts';
import { test } from './support/test.ts';

/** Messages that have their length, as a varint, before them. */
function messages(bytes: Buffer): Buffer[] {
  const found: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    let length = 0;
    let shift = 0;
    for (; ; shift += 7) {
      const byte = bytes[at++] ?? 0;
      length |= (byte & 127) << shift;
      if (byte < 128) break;
    }
    found.push(bytes.subarray(at, at + length));
    at += length;
  }
  return found;
}

test('a watch tells what happens to names', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const IN = { create: 0x100, delete: 0x200, movedFrom: 0x40, movedTo: 0x80, isDir: 0x40000000 };
  const directory = agent.path('watched');
  mkdirSync(directory);
  const id = freshId();
  const mask = IN.create | IN.delete | IN.movedFrom | IN.movedTo;
  await client.batch([{ case: 'watch', value: { id, path: directory, mask } }]);
  const gathered = await Gathered.attach(client, id);
  writeFileSync(`${directory}/file`, '');
  renameSync(`${directory}/file`, `${directory}/moved`);
  mkdirSync(`${directory}/${'x'.repeat(255)}`);
  rmSync(`${directory}/moved`);
  const seen = (): [number, string][] =>
    messages(gathered.bytes(1)).map((bytes) => {
      const { mask, name } = fromBinary(WatchEventSchema, bytes);
      return [mask, name];
    });
  await gathered.until(() => seen().length === 5);
  assert.deepEqual(seen(), [
    [IN.create, 'file'],
    [IN.movedFrom, 'file'],
    [IN.movedTo, 'moved'],
    [IN.create | IN.isDir, 'x'.repeat(255)],
    [IN.delete, 'moved'],
  ]);
  const cookies = messages(gathered.bytes(1)).map((bytes) => fromBinary(WatchEventSchema, bytes).cookie);
  assert.ok(cookies[1] !== 0 && cookies[1] === cookies[2]);
  // What was watched goes, and the object ends.
  const wait = client.wait(id);
  rmSync(directory, { recursive: true });
  assert.equal((await wait).code, 0);
  await gathered.attachment.closed;
  await client.batch([{ case: 'release', value: { id } }]);
  await assert.rejects(client.batch([{ case: 'watch', value: { id, path: directory, mask } }]), {
    errnoName: 'ENOENT',
  });
});

test('netlink: the links, of here and of another namespace', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  // RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, a struct ifinfomsg.
  const request = Buffer.alloc(32);
  request.writeUInt32LE(32, 0);
  request.writeUInt16LE(18, 4);
  request.writeUInt16LE(0x301, 6);
  request.writeUInt32LE(7, 8);
  const names = async (netnsPid: number): Promise<string[]> => {
    const results = await client.batch([{ case: 'netlink', value: { protocol: 0, request, netnsPid } }]);
    const reply = Buffer.from(resultOf(results, 0, 'data').data);
    const found: string[] = [];
    let done = false;
    for (let at = 0; at < reply.length; ) {
      const length = reply.readUInt32LE(at);
      const type = reply.readUInt16LE(at + 4);
      done = type === 3;
      // RTM_NEWLINK; the attributes follow the header of 16 and the message of 16 bytes.
      for (let attribute = at + 32; type === 16 && attribute < at + length; ) {
        const size = reply.readUInt16LE(attribute);
        if (reply.readUInt16LE(attribute + 2) === 3)
          found.push(reply.toString('utf8', attribute + 4, attribute + size - 1));
        attribute += (size + 3) & ~3;
      }
      at += (length + 3) & ~3;
    }
    assert.ok(done, 'the answer is whole');
    return found;
  };
  assert.ok((await names(0)).includes('lo'));
  // Devices of the machine that the tests run on may come and go between the two.
  await eventually(async () => {
    const { output } = await run(client, shell('ls /sys/class/net'));
    assert.deepEqual((await names(0)).sort(), output.trim().split(/\s+/).sort());
  });
  const id = freshId();
  const [spawn] = await client.batch([shell('exec unshare --net sleep 1000', { id })]);
  const pid = resultOf([spawn ?? assert.fail()], 0, 'process').pid;
  const home = (await run(client, shell(`readlink /proc/self/ns/net`))).output;
  const other = shell(`while [ "$(readlink /proc/${pid}/ns/net)" = "${home.trim()}" ]; do sleep 0.01; done`);
  await run(client, other);
  assert.deepEqual(await names(pid), ['lo']);
  assert.ok((await names(0)).length >= 1, 'and we are back in our own');
  await client.batch([{ case: 'release', value: { id } }]);
  for (const bad of [Buffer.alloc(0), request.subarray(0, 10), Buffer.from(request).fill(0xff, 0, 4)]) {
    const attempt = client.batch([{ case: 'netlink', value: { protocol: 0, request: bad } }]);
    await assert.rejects(attempt, { errnoName: 'EINVAL' });
  }
});

test('a network namespace of its own is pinned at a path, until that is let go of', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const path = join(agent.directory, 'netns');
  await client.batch([{ case: 'netNamespace', value: { path } }]);
  // RTM_GETLINK of everything there: its loopback interface alone.
  const request = Buffer.alloc(32);
  request.writeUInt32LE(32, 0);
  request.writeUInt16LE(18, 4);
  request.writeUInt16LE(0x301, 6);
  const links = async (netnsPath: string): Promise<number> => {
    const results = await client.batch([{ case: 'netlink', value: { protocol: 0, request, netnsPath } }]);
    const reply = Buffer.from(resultOf(results, 0, 'data').data);
    let found = 0;
    for (let at = 0; at < reply.length; at += (reply.readUInt32LE(at) + 3) & ~3)
      if (reply.readUInt16LE(at + 4) === 16) found += 1;
    return found;
  };
  assert.equal(await links(path), 1);
  const home = readlinkSync('/proc/self/ns/net');
  assert.equal(
    (await run(client, shell('readlink /proc/self/ns/net'))).output.trim(),
    home,
    'we stay in ours',
  );
  const again = client.batch([{ case: 'netNamespace', value: { path } }]);
  await assert.rejects(again, { errnoName: 'EEXIST' });
  await client.batch([
    { case: 'unmount', value: { target: path, detach: true } },
    { case: 'remove', value: { path } },
  ]);
  await assert.rejects(links(path), { errnoName: 'ENOENT' });
  await assert.rejects(links(agent.directory), { errnoName: 'EINVAL' });
});

test('statistics are those of the machine', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const stats = resultOf(await client.batch([{ case: 'stats', value: {} }]), 0, 'stats');
  assert.equal(stats.memoryTotal, BigInt(totalmem()));
  const difference = Math.abs(Number(stats.memoryAvailable) - freemem());
  assert.ok(difference < totalmem() / 10, `${difference} bytes off`);
  assert.ok(stats.uptimeNs > 0n && stats.cpuBusyNs > 0n && stats.processes > 1);
  assert.equal(stats.cgroup, undefined);
  const later = resultOf(await client.batch([{ case: 'stats', value: {} }]), 0, 'stats');
  assert.ok(later.uptimeNs >= stats.uptimeNs && later.cpuBusyNs >= stats.cpuBusyNs);
  for (const cgroup of ['/sys/fs/cgroup/no/such', '/etc', '/sys/fs/cgroup/../../etc', '/sys/fs/cgroup/..']) {
    await assert.rejects(client.batch([{ case: 'stats', value: { cgroup } }]), AgentOpError);
  }
});

/** A FUSE server that knows the root directory and one file in it, for as long as the mount lives. */
async function serveFuse(client: AgentClient, id: string, content: Buffer): Promise<Gathered> {
  let pending = Buffer.alloc(0);
  const opcodes: number[] = [];
  const attributes = (ino: bigint): Buffer => {
    const attr = Buffer.alloc(88);
    attr.writeBigUInt64LE(ino, 0);
    attr.writeBigUInt64LE(ino === 1n ? 0n : BigInt(content.length), 8);
    attr.writeUInt32LE(ino === 1n ? 0o040755 : 0o100644, 60);
    attr.writeUInt32LE(1, 64);
    return attr;
  };
  const answer = (opcode: number, node: bigint, body: Buffer): Buffer | number | undefined => {
    opcodes.push(opcode);
    if (opcode === 26) {
      // INIT: version 7.31, 64 KiB writes.
      const init = Buffer.alloc(64);
      init.writeUInt32LE(7, 0);
      init.writeUInt32LE(31, 4);
      init.writeUInt32LE(65536, 8);
      init.writeUInt32LE(65536, 20);
      return init;
    }
    if (opcode === 3) return Buffer.concat([Buffer.alloc(16), attributes(node)]);
    if (opcode === 1) {
      if (body.toString('utf8', 0, body.length - 1) !== 'hello') return 2;
      const entry = Buffer.alloc(40);
      entry.writeBigUInt64LE(2n, 0);
      return Buffer.concat([entry, attributes(2n)]);
    }
    if (opcode === 14) return Buffer.alloc(16);
    if (opcode === 15) {
      const offset = Number(body.readBigUInt64LE(8));
      return content.subarray(offset, offset + body.readUInt32LE(16));
    }
    if (opcode === 18 || opcode === 25) return Buffer.alloc(0);
    return opcode === 2 || opcode === 42 ? undefined : 38;
  };
  const gathered = await Gathered.attach(client, id);
  let consumed = 0;
  const serve = async (): Promise<void> => {
    for (;;) {
      await gathered.until((stream) => stream.ended[0] || stream.bytes(1).length > consumed);
      const bytes = gathered.bytes(1);
      pending = Buffer.concat([pending, bytes.subarray(consumed)]);
      consumed = bytes.length;
      while (pending.length >= 40 && pending.length >= pending.readUInt32LE(0)) {
        const request = pending.subarray(0, pending.readUInt32LE(0));
        pending = pending.subarray(request.length);
        const reply = answer(request.readUInt32LE(4), request.readBigUInt64LE(16), request.subarray(40));
        if (reply === undefined) continue;
        const body = typeof reply === 'number' ? Buffer.alloc(0) : reply;
        const header = Buffer.alloc(16);
        header.writeUInt32LE(16 + body.length, 0);
        header.writeInt32LE(typeof reply === 'number' ? -reply : 0, 4);
        request.copy(header, 8, 8, 16);
        // In pieces: the relay puts a reply together.
        await gathered.attachment.write(header.subarray(0, 5));
        await gathered.attachment.write(Buffer.concat([header.subarray(5), body]));
      }
      if (gathered.ended[0]) return;
    }
  };
  serve().catch(() => {});
  return gathered;
}

test('a FUSE file system is served over the channel', { skip: !existsSync('/dev/fuse') }, async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const target = agent.path('fuse');
  const id = freshId();
  await client.batch([
    { case: 'fuseRelay', value: { id, target, mkdirTarget: true, options: 'allow_other' } },
  ]);
  const content = Buffer.alloc(300_000, 'relayed ');
  const gathered = await serveFuse(client, id, content);
  const { output, code } = await run(
    client,
    shell(`cat ${target}/hello | sha256sum; ls ${target}/none; stat -c %s ${target}/hello`),
  );
  assert.equal(code, 0);
  const { output: expected } = await run(client, shell('sha256sum', { stdin: true }), content);
  assert.equal(output, `${expected}300000\n`);
  // The agent's own operations do not wait for themselves.
  const stat = resultOf(
    await client.batch([{ case: 'stat', value: { path: `${target}/hello` } }]),
    0,
    'stat',
  );
  assert.equal(stat.size, 300_000n);
  const wait = client.wait(id);
  await client.batch([{ case: 'unmount', value: { target } }]);
  assert.equal((await wait).code, 0);
  await gathered.attachment.closed;
  await client.batch([{ case: 'release', value: { id } }]);
});

test('a FUSE file system that nobody serves hurts only who uses it', {
  skip: !existsSync('/dev/fuse'),
}, async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const target = agent.path('fuse');
  const id = freshId();
  await client.batch([{ case: 'fuseRelay', value: { id, target, mkdirTarget: true } }]);
  const spawn = shell(`cat ${target}/x; echo done`);
  await client.batch([spawn]);
  const other = await run(client, shell('echo fine'));
  assert.equal(other.output, 'fine\n');
  // Whoever waits for it is let go when it is released.
  await client.batch([{ case: 'release', value: { id } }]);
  assert.equal((await client.wait(spawn.value.id ?? '')).code, 0);
  await client.batch([{ case: 'release', value: { id: spawn.value.id ?? '' } }]);
});
