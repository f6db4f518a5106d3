/** A peer that breaks the protocol ends its connection, with an error that says why. */
import assert from 'node:assert/strict';
import { type Duplex, duplexPair } from 'node:stream';
import { test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { encodeChunkHead, encodeCredit, encodeOpen } from '../src/attach-codec.ts';
import { AttachmentStream } from '../src/attachment.ts';
import { AgentCallError, AgentOpError } from '../src/errors.ts';
import { encodeFrame } from '../src/frame.ts';
import type { FrameWriter } from '../src/frame-writer.ts';
import { RequestSchema } from '../src/gen/ttrpc/ttrpc_pb.ts';
import { AgentClient, ProtocolError, ServedObject, serveAgent } from '../src/index.ts';
import { INPUT_UNACKED_BYTES_MAX } from '../src/limits.ts';
import { objectsOnly, SECRET } from './support.ts';

/** A client whose agent, once it is open, can be made to send anything. */
async function clientOfHostile(): Promise<{ client: AgentClient; agent: Duplex; host: Duplex }> {
  const object = new ServedObject({ id: 'o', input() {} });
  const [ours, theirs] = duplexPair();
  serveAgent(theirs, objectsOnly(object));
  const client = await AgentClient.connect(ours, { secret: SECRET, timeoutMs: 5000 });
  return { client, agent: theirs, host: ours };
}

function chunk(streamId: number, channel: number, offset: number, bytes: number, eof = false): Uint8Array {
  const data = Buffer.concat([encodeChunkHead(channel, offset, eof, bytes), new Uint8Array(bytes)]);
  return encodeFrame(streamId, 3, 0, data);
}

/** The client's first streams: 3 is a `Wait`, 5 an `Attach` with a window of 1000 bytes. */
const CASES: readonly (readonly [string, Uint8Array, RegExp])[] = [
  ['an oversized frame', Buffer.from('ffffffff000000030200', 'hex'), /4294967295 bytes/],
  ['a frame just too large', Buffer.from('00400001000000030200', 'hex'), /4194305 bytes/],
  ['an unknown type', encodeFrame(3, 9, 0, new Uint8Array(0)), /unknown type 9/],
  ['unknown flags', encodeFrame(3, 2, 0x10, new Uint8Array(0)), /unknown flags 0x10/],
  ['a request', encodeFrame(3, 1, 0, new Uint8Array(0)), /sent a request/],
  ['an answer on a stream that is not open', encodeFrame(99, 2, 0, new Uint8Array(0)), /stream 99/],
  ['an answer that is no message', encodeFrame(3, 2, 0, Buffer.from([0xff])), /no ttrpc.Response/],
  [
    'a payload that is no message',
    encodeFrame(3, 2, 0, Buffer.from([0x12, 1, 0xff])),
    /no arcbox.agent.v1.Wait/,
  ],
  ['stream data on a call', encodeFrame(3, 3, 0, Buffer.from([1])), /stream data in answer to Wait/],
  ['a stream message that is none', encodeFrame(5, 3, 0, Buffer.from([0x12, 9])), /longer than itself/],
  ['an empty stream message', encodeFrame(5, 3, 0, new Uint8Array(0)), /is empty/],
  [
    'an opening',
    encodeFrame(5, 3, 0, encodeOpen('o', { acked: 0, limit: 0 }, { acked: 0, limit: 0 })),
    /opened/,
  ],
  ['a chunk of the input', chunk(5, 0, 0, 1), /chunk of channel 0/],
  ['a chunk of an unknown channel', chunk(5, 7, 0, 1), /chunk of channel 7/],
  ['a gap', chunk(5, 1, 1, 1), /offset 1 of channel 1 of o; 0 is next/],
  ['bytes past the limit', chunk(5, 1, 0, 1001), /1001 bytes at 0 .* limit is 1000/],
  ['bytes twice', Buffer.concat([chunk(5, 1, 0, 9), chunk(5, 1, 0, 9)]), /offset 0 .* 9 is next/],
  [
    'bytes after the end',
    Buffer.concat([chunk(5, 2, 0, 9, true), chunk(5, 2, 9, 1)]),
    /after the end of channel 2/,
  ],
  ['credit for an output', encodeFrame(5, 3, 0, encodeCredit(1, 0, 9)), /gave credit for channel 1/],
  ['an acknowledgement of what was not sent', encodeFrame(5, 3, 0, encodeCredit(0, 1, 2_000_000)), /0 sent/],
  ['a limit that goes back', encodeFrame(5, 3, 0, encodeCredit(0, 0, 9)), /with the limit 9/],
];

for (const [what, bytes, message] of CASES) {
  test(`the agent sends ${what}`, async () => {
    const { client, agent, host } = await clientOfHostile();
    const wait = client.wait('o');
    wait.catch(() => {});
    const attachment = await client.attach('o', { output: { offset: 0, windowBytes: 1000 }, onChunk() {} });
    agent.write(bytes);
    const error = await client.closed;
    assert.equal(error.code, 'ERR_ARCBOX_AGENT_PROTOCOL');
    assert.match(error.message, message);
    await assert.rejects(wait, error);
    await assert.rejects(attachment.closed, error);
    await assert.rejects(client.batch([]), error);
    await client.close();
    assert.ok(host.destroyed);
  });
}

test('the agent gives endless credit and acknowledges nothing: what we hold for it is bounded', async () => {
  let sentBytes = 0;
  const writer = {
    ready: () => undefined,
    send(_stream: number, _type: number, _flags: number, _head: Uint8Array, data?: Uint8Array) {
      sentBytes += data?.length ?? 0;
    },
  };
  const stream = new AttachmentStream(
    'o',
    3,
    { onChunk() {} },
    { writer: writer as unknown as FrameWriter, abandon() {} },
  );
  stream.onData(0, encodeCredit(0, 0, 2 ** 52));
  const write = stream.write(Buffer.alloc(2 * INPUT_UNACKED_BYTES_MAX));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(sentBytes, INPUT_UNACKED_BYTES_MAX);
  stream.onData(0, encodeCredit(0, INPUT_UNACKED_BYTES_MAX, 2 ** 52));
  await write;
  assert.equal(sentBytes, 2 * INPUT_UNACKED_BYTES_MAX);
  stream.detach();
});

test('a failure says no more than it may', () => {
  const text = 'x'.repeat(4 * 1024 * 1024);
  for (const error of [new AgentOpError(0, 'read', 5, text, []), new AgentCallError('Wait', 13, text)]) {
    assert.ok(error.message.length < 5000 && error.detail.length < 5000);
  }
});

const openO = toBinary(
  RequestSchema,
  create(RequestSchema, {
    service: 'arcbox.agent.v1.Agent',
    method: 'Attach',
    payload: encodeOpen('o', { acked: 0, limit: 1000 }, { acked: 0, limit: 1000 }),
  }),
);

function request(method: string, payload: Uint8Array): Uint8Array {
  return toBinary(
    RequestSchema,
    create(RequestSchema, { service: 'arcbox.agent.v1.Agent', method, payload }),
  );
}

/** The host, after `Hello`. */
const HOST_CASES: readonly (readonly [string, Uint8Array, RegExp])[] = [
  ['an even stream', encodeFrame(4, 1, 0, request('Wait', new Uint8Array(0))), /stream 4/],
  ['a stream twice', Buffer.concat(Array(2).fill(encodeFrame(3, 1, 2, openO))), /stream 3/],
  ['Hello with another nonce', encodeFrame(3, 1, 0, request('Hello', Buffer.from('0a0108', 'hex'))), /./],
  ['a response', encodeFrame(3, 2, 0, new Uint8Array(0)), /sent a response/],
  ['data on a stream never opened', encodeFrame(3, 3, 0, new Uint8Array(0)), /never opened/],
  ['Attach without a stream', encodeFrame(3, 1, 0, openO), /without one/],
  ['a chunk of an output', Buffer.concat([encodeFrame(3, 1, 2, openO), chunk(3, 1, 0, 1)]), /channel 1/],
  ['a gap in the input', Buffer.concat([encodeFrame(3, 1, 2, openO), chunk(3, 0, 1, 1)]), /0 is next/],
  [
    'an acknowledgement of what was not sent',
    Buffer.concat([encodeFrame(3, 1, 2, openO), encodeFrame(3, 3, 0, encodeCredit(2, 5, 1000))]),
    /acknowledged 5/,
  ],
];

for (const [what, bytes, message] of HOST_CASES) {
  test(`the host sends ${what}`, async () => {
    const object = new ServedObject({ id: 'o', input() {} });
    const [ours, theirs] = duplexPair();
    const session = serveAgent(theirs, objectsOnly(object));
    await AgentClient.connect(ours, { secret: SECRET, timeoutMs: 5000 });
    ours.write(bytes);
    const error = await session.closed;
    assert.equal(error.code, 'ERR_ARCBOX_AGENT_PROTOCOL');
    assert.match(error.message, message);
    await session.close();
  });
}

test('random bytes end a connection or wait for more, and nothing else', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 30 }), { maxLength: 6 }),
      fc.boolean(),
      async (pieces, framed) => {
        const { client, agent } = await clientOfHostile();
        const attachment = await client.attach('o', { onChunk() {} });
        for (const piece of pieces) agent.write(framed ? encodeFrame(3, 3, 0, piece) : piece);
        agent.end();
        const error = await client.closed;
        assert.ok(error instanceof ProtocolError);
        await assert.rejects(attachment.closed, error);
        await client.close();
      },
    ),
    { seed: 20261122, numRuns: 200 },
  );
});
