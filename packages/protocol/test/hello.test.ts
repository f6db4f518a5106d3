import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type Duplex, duplexPair, PassThrough } from 'node:stream';
import { test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { encodeFrame, FrameDecoder } from '../src/frame.ts';
import { RequestSchema, ResponseSchema } from '../src/gen/ttrpc/ttrpc_pb.ts';
import {
  AgentCallError,
  AgentClient,
  HelloRequestSchema,
  HelloResponseSchema,
  PROTOCOL_VERSION,
  Status,
  serveAgent,
} from '../src/index.ts';
import { objectsOnly, SECRET } from './support.ts';

/** An agent by hand: calls `onHello` with each `Hello` and the answer it wants. */
function answering(
  channel: Duplex,
  onHello: (count: number, answer: Uint8Array) => void,
  version = PROTOCOL_VERSION,
) {
  let count = 0;
  const decoder = new FrameDecoder((streamId, _type, _flags, data) => {
    const request = fromBinary(RequestSchema, new Uint8Array(data));
    assert.equal(request.service, 'arcbox.agent.v1.Agent');
    if (request.method !== 'Hello') {
      channel.write(encodeFrame(streamId, 2, 0, new Uint8Array(0)));
      return;
    }
    const { nonce, secret } = fromBinary(HelloRequestSchema, request.payload);
    assert.deepEqual(Buffer.from(secret), Buffer.from(SECRET));
    const hello = create(HelloResponseSchema, {
      nonce,
      protocolVersion: version,
      epoch: 3n,
      agentVersion: 'hand',
    });
    const payload = toBinary(HelloResponseSchema, hello);
    count++;
    onHello(
      count,
      encodeFrame(streamId, 2, 0, toBinary(ResponseSchema, create(ResponseSchema, { payload }))),
    );
  });
  channel.on('data', (piece: Buffer) => decoder.push(piece));
}

test('everything before the answer is skipped', async () => {
  const [ours, theirs] = duplexPair();
  theirs.write(randomBytes(100_000));
  answering(theirs, (_count, answer) => {
    theirs.write(randomBytes(10));
    theirs.write(Buffer.concat([answer.subarray(0, 20), answer.subarray(0, 40), answer]));
  });
  await using client = await AgentClient.connect(ours, { secret: SECRET, timeoutMs: 5000 });
  assert.equal(client.hello.epoch, 3n);
  assert.equal(client.hello.agentVersion, 'hand');
  // An empty answer: the object ended with 0. The channel is at a frame's boundary.
  assert.deepEqual(await client.wait('o'), { signaled: false, code: 0, error: '' });
});

test('Hello is sent again until it is answered, and late answers are ignored', async () => {
  const [ours, theirs] = duplexPair();
  const missed: Uint8Array[] = [];
  answering(theirs, (count, answer) => {
    missed.push(answer);
    if (count === 3) theirs.write(Buffer.concat(missed));
  });
  await using client = await AgentClient.connect(ours, { secret: SECRET, timeoutMs: 5000 });
  assert.deepEqual(missed[0], missed[2]);
  assert.deepEqual(await client.wait('o'), { signaled: false, code: 0, error: '' });
});

test('no answer, an end, an abort and another version give up, and the channel is released', async () => {
  const [silent] = duplexPair();
  const late = AgentClient.connect(silent, { secret: SECRET, timeoutMs: 20 });
  await assert.rejects(late, { code: 'ERR_ARCBOX_AGENT_TIMEOUT' });
  assert.ok(silent.destroyed);

  const [ended, peer] = duplexPair();
  const gone = AgentClient.connect(ended, { secret: SECRET, timeoutMs: 5000 });
  peer.end();
  await assert.rejects(gone, { code: 'ERR_ARCBOX_AGENT_CLOSED' });
  assert.ok(ended.destroyed);

  const [broken] = duplexPair();
  const failing = AgentClient.connect(broken, { secret: SECRET, timeoutMs: 5000 });
  broken.destroy(new Error('cable'));
  await assert.rejects(failing, { code: 'ERR_ARCBOX_AGENT_CLOSED', message: /cable/ });

  const [aborted] = duplexPair();
  const controller = new AbortController();
  const reason = new Error('never mind');
  const abort = AgentClient.connect(aborted, { secret: SECRET, timeoutMs: 5000, signal: controller.signal });
  controller.abort(reason);
  await assert.rejects(abort, reason);
  assert.ok(aborted.destroyed);

  const [other, newer] = duplexPair();
  answering(newer, (_count, answer) => newer.write(answer), 2);
  const version = AgentClient.connect(other, { secret: SECRET, timeoutMs: 5000 });
  await assert.rejects(version, { code: 'ERR_ARCBOX_AGENT_VERSION', message: /version 2/ });
  assert.ok(other.destroyed);

  const short = AgentClient.connect(new PassThrough(), { secret: new Uint8Array(3), timeoutMs: 5000 });
  await assert.rejects(short, { code: 'ERR_ARCBOX_AGENT_LIMIT' });
});

test('the served agent gives what its handlers say, and can refuse', async () => {
  const [ours, theirs] = duplexPair();
  await using _session = serveAgent(theirs, {
    ...objectsOnly(),
    hello: (secret) => ({ epoch: BigInt(secret[0] ?? 0), isInit: true }),
  });
  await using client = await AgentClient.connect(ours, { secret: SECRET, timeoutMs: 5000 });
  assert.equal(client.hello.epoch, 7n);
  assert.ok(client.hello.isInit);

  const [refused, refusing] = duplexPair();
  await using _refusal = serveAgent(refusing, {
    ...objectsOnly(),
    hello() {
      throw new AgentCallError('Hello', Status.permissionDenied, 'wrong secret');
    },
  });
  const connect = AgentClient.connect(refused, { secret: SECRET, timeoutMs: 100 });
  await assert.rejects(connect, { code: 'ERR_ARCBOX_AGENT_TIMEOUT' });
});
