import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { AgentCallError, type AgentClient, type Attachment, Status } from '@arcbox/protocol';
import { eventually } from './support/eventually.ts';
import { HostAgent } from './support/host-agent.ts';
import { Gathered, run, type SpawnInput, shell } from './support/run.ts';
import { test } from './support/test.ts';

const INPUT_WINDOW_BYTES = 256 * 1024;

/** Long enough for anything that should not come to have come. */
const QUIET_MS = 50;

async function spawned(client: AgentClient, script: string, more: Partial<SpawnInput> = {}): Promise<string> {
  const spawn = shell(script, more);
  await client.batch([spawn]);
  return spawn.value.id ?? '';
}

async function release(client: AgentClient, ...ids: string[]): Promise<void> {
  await client.batch(ids.map((id) => ({ case: 'release', value: { id } })));
}

function sha256(...pieces: Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return hash.digest('hex');
}

test('64 MiB in, and out twice, at the same time', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const id = await spawned(client, 'exec tee /dev/stderr', { stdin: true });
  const block = randomBytes(1 << 20);
  const hashes = [createHash('sha256'), createHash('sha256')] as const;
  const ends: number[] = [];
  const pending: (() => void)[] = [];
  let attachment: Attachment | undefined;
  attachment = await client.attach(id, {
    onChunk({ channel, offset, data, eof }) {
      hashes[channel - 1]?.update(data);
      if (eof) ends.push(channel);
      const ack = (): void => attachment?.ack(channel, offset + data.length);
      if (attachment === undefined) pending.push(ack);
      else ack();
    },
  });
  for (const ack of pending) ack();
  const source = createHash('sha256');
  for (let mib = 0; mib < 64; mib++) {
    const piece = Buffer.from(block);
    piece.writeUInt32BE(mib);
    source.update(piece);
    await attachment.write(piece, { eof: mib === 63 });
  }
  assert.equal((await client.wait(id)).code, 0);
  await attachment.closed;
  const expected = source.digest('hex');
  assert.deepEqual([hashes[0].digest('hex'), hashes[1].digest('hex')], [expected, expected]);
  assert.deepEqual(ends.sort(), [1, 2]);
  assert.equal(attachment.inputAcked, 64 << 20);
  await release(client, id);
});

test('a reader that stalls stalls neither the other channel nor another object', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const id = await spawned(client, 'yes & head -c 3000000 /dev/zero >&2; echo done >&2; read line; kill $!', {
    stdin: true,
  });
  const flowing = 3_000_005;
  const flowedAll = Promise.withResolvers<void>();
  const stalledAll = Promise.withResolvers<void>();
  let stalled = 0;
  let flowed = 0;
  let attachment: Attachment | undefined;
  attachment = await client.attach(id, {
    output: { offset: 0, windowBytes: 100_000 },
    onChunk({ channel, offset, data }) {
      if (channel === 1) {
        stalled += data.length;
        if (stalled >= 100_000) stalledAll.resolve();
      } else {
        flowed += data.length;
        if (flowed >= flowing) flowedAll.resolve();
        setImmediate(() => attachment?.ack(channel, offset + data.length));
      }
    },
  });
  const other = await run(client, shell('head -c 5000000 /dev/zero | sha256sum'));
  assert.equal(other.code, 0);
  await Promise.all([stalledAll.promise, flowedAll.promise]);
  await attachment.write(Buffer.from('end\n'));
  assert.equal((await client.wait(id)).signaled, false);
  assert.equal(flowed, flowing);
  assert.equal(stalled, 100_000, 'and not one byte past the window');
  await release(client, id);
  await assert.rejects(
    attachment.closed,
    (error) => error instanceof AgentCallError && error.status === Status.aborted,
  );
});

test('credit counts to the byte', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const id = await spawned(client, 'exec seq 1 100000');
  const pieces: Buffer[] = [];
  const received = (): number => pieces.reduce((sum, piece) => sum + piece.length, 0);
  const attachment = await client.attach(id, {
    output: { offset: 0, windowBytes: 777 },
    onChunk: ({ channel, data }) => channel === 1 && pieces.push(Buffer.from(data)),
  });
  /** So many have come, and there they stop. */
  const stopsAt = async (bytes: number): Promise<void> => {
    await eventually(() => assert.ok(received() >= bytes));
    await client.batch([{ case: 'sync', value: {} }]);
    await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    assert.equal(received(), bytes);
  };
  await stopsAt(777);
  for (const acked of [1, 100, 777]) {
    attachment.ack(1, acked);
    await stopsAt(acked + 777);
  }
  const expected = Array.from({ length: 2000 }, (_, index) => `${index + 1}\n`).join('');
  assert.equal(Buffer.concat(pieces).toString(), expected.slice(0, 1554));
  attachment.detach();
  await attachment.closed;
  await release(client, id);
});

test('input stops at the window while nobody reads it, and goes on', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const id = await spawned(client, 'read line; exec sha256sum', { stdin: true });
  const gathered = await Gathered.attach(client, id);
  // Nobody reads past the first line until it has come.
  const bytes = randomBytes(5_000_000).map((byte) => (byte === 10 ? 11 : byte));
  const stuck = await spawned(client, 'exec sleep 1000', { stdin: true });
  const stopped = await Gathered.attach(client, stuck);
  const write = stopped.attachment.write(bytes);
  write.catch(() => {});
  const sent = (): number =>
    stopped.attachment
      .unacked()
      .data.reduce((sum, { length }) => sum + length, stopped.attachment.inputAcked);
  await eventually(() => {
    const taken = stopped.attachment.inputAcked;
    assert.ok(taken > 0);
    assert.equal(sent(), taken + INPUT_WINDOW_BYTES);
  });
  const taken = stopped.attachment.inputAcked;
  await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
  assert.equal(stopped.attachment.inputAcked, taken);
  assert.ok(taken <= 1 << 20, 'a pipe is full at some point');
  assert.equal(sent(), taken + INPUT_WINDOW_BYTES);

  await gathered.attachment.write(Buffer.from('first\n'));
  await gathered.attachment.write(bytes, { eof: true });
  assert.equal((await client.wait(id)).code, 0);
  await gathered.attachment.closed;
  assert.equal(gathered.output, `${sha256(bytes)}  -\n`);
  await release(client, id, stuck);
  await assert.rejects(write);
});

test('what is attached twice belongs to the second', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const id = await spawned(client, 'exec cat', { stdin: true });
  const first = await Gathered.attach(client, id);
  await first.attachment.write(Buffer.from('one\n'));
  await first.until(({ output }) => output === 'one\n');
  // Its acknowledgement has to be there before the stream is taken away.
  await eventually(() => assert.equal(first.attachment.inputAcked, 4));
  const pieces: string[] = [];
  const second: Attachment = await client.attach(id, {
    output: { offset: 4 },
    onChunk({ channel, offset, data }) {
      pieces.push(Buffer.from(data).toString());
      setImmediate(() => second.ack(channel, offset + data.length));
    },
  });
  await assert.rejects(
    first.attachment.closed,
    (error) => error instanceof AgentCallError && error.status === Status.aborted,
  );
  await assert.rejects(first.attachment.write(Buffer.from('lost')));
  await second.write(Buffer.from('two\n'), { eof: true });
  await second.closed;
  assert.equal(pieces.join(''), 'two\n');
  assert.equal(second.inputAcked, 8);
  for (const offset of [0, 7, 9]) {
    const attach = client.attach(id, { output: { offset }, onChunk() {} });
    await assert.rejects(
      attach,
      (error) => error instanceof AgentCallError && error.status === Status.outOfRange,
    );
  }
  await release(client, id);
});

test('an object without input says so', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const id = await spawned(client, 'exec sleep 1000');
  const gathered = await Gathered.attach(client, id);
  await assert.rejects(gathered.attachment.write(Buffer.from('x')), {
    code: 'ERR_ARCBOX_AGENT_STREAM_ENDED',
  });
  await release(client, id);
});

test('what nobody takes is kept within bounds', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const kib = (): number =>
    Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${agent.pid}/status`, 'utf8'))?.[1]);
  const before = kib();
  const ids: string[] = [];
  for (let index = 0; index < 200; index++) ids.push(await spawned(client, 'exec yes'));
  await new Promise((resolve) => setTimeout(resolve, 20 * QUIET_MS));
  const grown = kib() - before;
  assert.ok(grown < 200 * 1024, `${grown} KiB for 200 processes that write without end`);
  await release(client, ...ids);
});
