import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import { FrameWriter } from '../src/frame-writer.ts';
import { ProtocolError } from '../src/index.ts';
import { SEND_QUEUE_BYTES } from '../src/limits.ts';

const CHUNK = new Uint8Array(64 * 1024);
const HEAD = new Uint8Array(4);

for (const highWaterMark of [1024, 4 * SEND_QUEUE_BYTES]) {
  test(`senders wait for the channel and go on (high-water mark ${highWaterMark})`, async () => {
    const [ours, theirs] = duplexPair({ highWaterMark });
    const writer = new FrameWriter(ours, assert.fail);
    let longest = 0;
    const send = async (): Promise<void> => {
      for (let chunk = 0; chunk < 50; chunk++) {
        await writer.ready();
        writer.send(1, 3, 0, HEAD, CHUNK);
        longest = Math.max(longest, ours.writableLength);
      }
    };
    const sending = Promise.all(Array.from({ length: 20 }, send));
    let received = 0;
    for await (const piece of theirs) {
      received += piece.length;
      if (received === 1000 * (10 + HEAD.length + CHUNK.length)) break;
    }
    await sending;
    assert.ok(
      longest < Math.max(highWaterMark, SEND_QUEUE_BYTES) + 21 * CHUNK.length,
      `${longest} bytes were queued`,
    );
  });
}

test('those who wait are told of the end', async () => {
  const [ours] = duplexPair();
  const writer = new FrameWriter(ours, assert.fail);
  let first = writer.ready();
  for (; first === undefined; first = writer.ready()) writer.send(1, 3, 0, HEAD, CHUNK);
  const waiting = [first, writer.ready()];
  const error = new ProtocolError('ERR_ARCBOX_AGENT_CLOSED', 'gone');
  for (const ready of waiting) ready?.catch(() => {});
  writer.end(error);
  for (const ready of waiting) await assert.rejects(ready ?? Promise.resolve(), error);
  await assert.rejects(writer.ready() ?? Promise.resolve(), error);
  assert.throws(() => writer.send(1, 3, 0, HEAD), error);
});

test('a peer that takes nothing is given up', () => {
  const [ours] = duplexPair();
  const overflows: ProtocolError[] = [];
  const writer = new FrameWriter(ours, (error) => {
    overflows.push(error);
    writer.end(error);
  });
  assert.throws(
    () => {
      for (let frame = 0; frame < 2000; frame++) writer.send(1, 3, 0, HEAD, CHUNK);
    },
    { code: 'ERR_ARCBOX_AGENT_LIMIT' },
  );
  assert.equal(overflows.length, 1);
});
