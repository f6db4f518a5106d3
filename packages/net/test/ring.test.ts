import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { createRing, RingConsumer, RingProducer } from '@arcbox/net/ring';
import fc from 'fast-check';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

test('records come out as they went in, and never half', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.oneof(
          fc.record({ put: fc.uint8Array({ maxLength: 140 }), tail: fc.uint8Array({ maxLength: 20 }) }),
          fc.record({ take: fc.integer({ min: 1, max: 5 }) }),
        ),
        { maxLength: 100 },
      ),
      (steps) => {
        const memory = createRing(256);
        const producer = new RingProducer(memory);
        const consumer = new RingConsumer(memory);
        const model: Buffer[] = [];
        for (const step of steps) {
          if ('put' in step) {
            const record = Buffer.concat([step.put, step.tail]);
            const wasEmpty = model.length === 0;
            const put = producer.put(step.put, step.tail);
            if (record.length > producer.recordBytesMax) assert.equal(put, false);
            else if (wasEmpty) assert.equal(put, true, 'into an empty ring everything fits');
            if (!put) continue;
            assert.equal(producer.consumerWaits, wasEmpty);
            model.push(record);
          } else {
            consumer.drain((record) => assert.deepEqual(Buffer.from(record), model.shift()), step.take);
          }
        }
        consumer.drain((record) => assert.deepEqual(Buffer.from(record), model.shift()));
        assert.equal(model.length, 0);
      },
    ),
    { seed: SEED },
  );
});

test('between two threads nothing is lost, doubled or reordered', async () => {
  const memory = createRing(4096);
  const count = 200_000;
  const worker = new Worker(
    `import { workerData } from 'node:worker_threads';
     import { RingProducer } from '@arcbox/net/ring';
     const producer = new RingProducer(workerData.memory);
     const record = new Uint8Array(64);
     const words = new Uint32Array(record.buffer);
     const nap = new Int32Array(new SharedArrayBuffer(4));
     for (let i = 0; i < workerData.count; ) {
       words[0] = i;
       const length = 4 + (i % 60);
       record.fill(i & 255, 4, length);
       if (producer.put(record.subarray(0, length))) i += 1;
       // Full: where there is one processor for both threads, the other one needs it now.
       else Atomics.wait(nap, 0, 0, 0.01);
     }`,
    { eval: true, workerData: { memory, count }, execArgv: ['--input-type=module'] },
  );
  const ended = once(worker, 'exit');
  const consumer = new RingConsumer(memory);
  const nap = new Int32Array(new SharedArrayBuffer(4));
  let expected = 0;
  while (expected < count) {
    const before = expected;
    consumer.drain((record) => {
      const bytes = Buffer.from(record);
      if (bytes.readUInt32LE(0) !== expected || bytes.length !== 4 + (expected % 60)) {
        assert.fail(`record ${expected} is ${bytes.readUInt32LE(0)} of ${bytes.length} bytes`);
      }
      if (bytes.length > 4 && bytes.at(-1) !== (expected & 255)) assert.fail(`record ${expected} is torn`);
      expected += 1;
    });
    if (expected === before) Atomics.wait(nap, 0, 0, 0.01);
    await new Promise(setImmediate);
  }
  await ended;
});

test('a capacity that is no power of two is refused', () => {
  for (const capacity of [0, 63, 100, 2 ** 31]) assert.throws(() => createRing(capacity), RangeError);
});
