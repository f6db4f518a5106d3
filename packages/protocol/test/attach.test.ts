import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import {
  AgentCallError,
  AgentClient,
  type Attachment,
  ServedObject,
  Status,
  serveAgent,
} from '../src/index.ts';
import { connectedPair, objectsOnly, SECRET } from './support.ts';

test('both outputs arrive whole, in order, with their ends', async () => {
  const object = new ServedObject({ id: 'o' });
  await using pair = await connectedPair(objectsOnly(object));
  const sent = [randomBytes(3_000_000), randomBytes(2_000_000)];
  const hashes = [createHash('sha256'), createHash('sha256')];
  const ends: number[] = [];
  const attachment: Attachment = await pair.client.attach('o', {
    onChunk({ channel, offset, data, eof }) {
      hashes[channel - 1]?.update(data);
      if (eof) ends.push(channel);
      // Until `attach` has returned the window is enough.
      setImmediate(() => attachment.ack(channel, offset + data.length));
    },
  });
  const [output = Buffer.alloc(0), error = Buffer.alloc(0)] = sent;
  await Promise.all([
    (async () => {
      for (let at = 0; at < output.length; at += 100_000)
        await object.output.write(output.subarray(at, at + 100_000));
    })(),
    object.error.write(error),
  ]);
  object.finish({ code: 0 });
  await attachment.closed;
  assert.deepEqual(ends.sort(), [1, 2]);
  assert.deepEqual(
    hashes.map((hash) => hash.digest('hex')),
    sent.map((bytes) => createHash('sha256').update(bytes).digest('hex')),
  );
});

test('the agent does not go past the window, to the byte, and a stalled channel does not stall the other', async () => {
  const object = new ServedObject({ id: 'o' });
  await using pair = await connectedPair(objectsOnly(object));
  void object.output.write(randomBytes(10_000));
  void object.error.write(randomBytes(200_000));
  const received = [0, 0];
  const errorDone = Promise.withResolvers<void>();
  const furtherOutput = Promise.withResolvers<void>();
  const attachment: Attachment = await pair.client.attach('o', {
    output: { offset: 0, windowBytes: 777 },
    onChunk({ channel, offset, data }) {
      received[channel - 1] = offset + data.length;
      if (channel === 2 && received[1] === 200_000) errorDone.resolve();
      if (channel === 1 && offset === 777) furtherOutput.resolve();
    },
  });
  await errorDone.promise;
  assert.deepEqual(received, [777, 200_000]);
  attachment.ack(1, 100);
  await furtherOutput.promise;
  // The answers to these come behind whatever else the agent would send.
  for (let call = 0; call < 3; call += 1) await assert.rejects(pair.client.wait('none'));
  assert.equal(received[0], 877);
  assert.throws(() => attachment.ack(1, 878), { code: 'ERR_ARCBOX_AGENT_LIMIT' });
});

test('input waits for credit, is kept until acknowledged, and ends', async () => {
  const taken: Buffer[] = [];
  const gate = Promise.withResolvers<void>();
  let ended = false;
  const object: ServedObject = new ServedObject({
    id: 'o',
    async input(data, eof) {
      await gate.promise;
      taken.push(Buffer.from(data));
      ended = eof;
      if (eof) object.finish({ code: 0 });
    },
  });
  await using pair = await connectedPair(objectsOnly(object));
  const attachment = await pair.client.attach('o', { onChunk() {} });
  const bytes = randomBytes(3_000_000);
  let written = false;
  const write = attachment.write(bytes, { eof: true }).then(() => {
    written = true;
  });
  await assert.rejects(pair.client.wait('none'));
  assert.equal(written, false);
  assert.equal(attachment.inputAcked, 0);
  gate.resolve();
  await write;
  await assert.rejects(attachment.write(bytes), { code: 'ERR_ARCBOX_AGENT_STREAM_ENDED' });
  await attachment.closed;
  assert.ok(ended);
  assert.ok(Buffer.concat(taken).equals(bytes));
});

test('a new epoch goes on at the acknowledged offsets, both ways', async () => {
  const bytes = randomBytes(500_000);
  const input = randomBytes(3_000_000);
  const taken: Buffer[] = [];
  const gate = Promise.withResolvers<void>();
  const object: ServedObject = new ServedObject({
    id: 'o',
    async input(data, eof) {
      await gate.promise;
      taken.push(Buffer.from(data));
      if (eof) object.finish({ code: 0 });
    },
  });
  const output: Buffer[] = [];
  let acked = 0;
  void object.output.write(bytes);
  const handlers = objectsOnly(object);

  const first = await connectedPair(handlers);
  const before = await first.client.attach('o', {
    output: { offset: 0, windowBytes: 100_000 },
    onChunk({ data }) {
      // Half of it gets lost with the epoch.
      if (acked < 50_000) {
        output.push(Buffer.from(data));
        acked += data.length;
      }
    },
  });
  const write = before.write(input, { eof: false });
  await assert.rejects(first.client.wait('none'));
  await first.session.close();
  await assert.rejects(write, { code: 'ERR_ARCBOX_AGENT_CLOSED' });
  const unacked = before.unacked();
  assert.equal(unacked.offset, 0);
  const kept = unacked.data.reduce((sum, data) => sum + data.length, 0);
  assert.ok(kept > 0 && kept <= 1 << 20);
  gate.resolve();

  await using second = await connectedPair(handlers);
  const after: Attachment = await second.client.attach('o', {
    output: { offset: acked },
    input: unacked,
    onChunk({ channel, offset, data }) {
      if (channel === 2) return;
      assert.equal(offset, acked);
      output.push(Buffer.from(data));
      acked += data.length;
      setImmediate(() => after.ack(1, offset + data.length));
    },
  });
  await after.write(input.subarray(kept), { eof: true });
  await after.closed;
  assert.ok(Buffer.concat(output).equals(bytes));
  assert.ok(Buffer.concat(taken).equals(input));
});

test('an offset that was freed or not reached, and an object that is not there, are refused', async () => {
  const object = new ServedObject({ id: 'o' });
  await using pair = await connectedPair(objectsOnly(object));
  void object.output.write(randomBytes(100));
  const received = Promise.withResolvers<void>();
  const attachment = await pair.client.attach('o', { onChunk: () => received.resolve() });
  await received.promise;
  attachment.ack(1, 60);
  attachment.detach();
  await attachment.closed;
  for (const offset of [59, 101]) {
    const refused = pair.client.attach('o', { output: { offset }, onChunk() {} });
    await assert.rejects(
      refused,
      (error) => error instanceof AgentCallError && error.status === Status.outOfRange,
    );
  }
  const nobody = pair.client.attach('nobody', { onChunk() {} });
  await assert.rejects(
    nobody,
    (error) => error instanceof AgentCallError && error.status === Status.notFound,
  );
  const again = Promise.withResolvers<number>();
  await pair.client.attach('o', {
    output: { offset: 60 },
    onChunk: ({ data }) => again.resolve(data.length),
  });
  assert.equal(await again.promise, 40);
});

test('a second attachment ends the first; a handler that throws ends its own', async () => {
  const object = new ServedObject({ id: 'o' });
  await using pair = await connectedPair(objectsOnly(object));
  const first = await pair.client.attach('o', { onChunk() {} });
  const boom = new Error('boom');
  const second = await pair.client.attach('o', {
    onChunk() {
      throw boom;
    },
  });
  await assert.rejects(
    first.closed,
    (error) => error instanceof AgentCallError && error.status === Status.aborted,
  );
  void object.output.write(Buffer.from('x'));
  await assert.rejects(second.closed, boom);
  await assert.rejects(second.write(Buffer.from('x')), boom);
  const third: Attachment = await pair.client.attach('o', {
    onChunk: ({ channel, offset, data }) => setImmediate(() => third.ack(channel, offset + data.length)),
  });
  object.finish({ code: 0 });
  await third.closed;
});

test('an object without input refuses bytes, and takes the end of none', async () => {
  const object = new ServedObject({ id: 'o' });
  await using pair = await connectedPair(objectsOnly(object));
  const attachment = await pair.client.attach('o', { onChunk() {} });
  await assert.rejects(attachment.write(Buffer.from('x')), {
    code: 'ERR_ARCBOX_AGENT_STREAM_ENDED',
    message: /no input/,
  });
  await attachment.write(Buffer.alloc(0), { eof: true });
  object.finish({ code: 0 });
  await attachment.closed;
});

test('acknowledgements are coalesced', async () => {
  const object = new ServedObject({ id: 'o' });
  const [ours, theirs] = duplexPair();
  await using session = serveAgent(theirs, objectsOnly(object));
  await using client = await AgentClient.connect(ours, { secret: SECRET, timeoutMs: 5000 });
  let attachment: Attachment | undefined;
  attachment = await client.attach('o', {
    onChunk: ({ channel, offset, data }) => attachment?.ack(channel, offset + data.length),
  });
  let credits = 0;
  theirs.on('data', () => credits++);
  for (let index = 0; index < 1000; index++) {
    await object.output.write(randomBytes(1000));
    if (index % 10 === 0) await new Promise(setImmediate);
  }
  object.finish({ code: 0 });
  await attachment.closed;
  assert.ok(credits <= 20, `${credits} pieces with credit for 1000 chunks`);
  assert.ok(session.closed instanceof Promise);
});
