/** The data structures under the stack, against simple models of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../src/memory/arena.ts';
import { ByteQueue } from '../src/memory/byte-queue.ts';
import { FlowTable } from '../src/stack/flow-table.ts';
import { FlowKey } from '../src/stack/packet.ts';
import { Reassembly } from '../src/stack/reassembly.ts';
import { Timed, TimerWheel } from '../src/stack/timer-wheel.ts';
import { Ranges } from '../src/tcp/ranges.ts';
import { fold, sum16 } from '../src/wire/checksum.ts';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

const arena = new Arena({ ports: 1, chunks: 64 });

test('the kernels sum and copy as the portable ones do', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4000 }), fc.nat(63), fc.nat(63), (data, from, to) => {
      const source = arena.chunkAt(0) + from;
      const target = arena.chunkAt(1) + to;
      arena.bytes.set(data, source);
      const expected = fold(sum16(arena.bytes, source, source + data.length));
      const congruent = (sum: number): boolean =>
        sum % 0xffff === expected % 0xffff && (sum === 0) === (expected === 0);
      assert.ok(congruent(arena.kernels.sum(source, data.length)));
      arena.bytes.fill(0xaa, target - 1, target + data.length + 1);
      assert.ok(congruent(arena.kernels.copySum(target, source, data.length)));
      assert.deepEqual(arena.bytes.slice(target, target + data.length), data);
      assert.equal(arena.bytes[target - 1], 0xaa);
      assert.equal(arena.bytes[target + data.length], 0xaa, 'not one byte more');
    }),
    { seed: SEED },
  );
});

test('a byte queue is an array of bytes, and gives its chunks back', () => {
  const step = fc.oneof(
    fc.record({ put: fc.integer({ min: 1, max: 60_000 }) }),
    fc.record({ drop: fc.integer({ min: 1, max: 60_000 }) }),
    fc.record({ sum: fc.nat(70_000), length: fc.integer({ min: 1, max: 70_000 }) }),
    fc.constant({ clear: true }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const queue = new ByteQueue(arena);
      let model = Buffer.alloc(0);
      let next = 1;
      for (const action of steps) {
        if ('put' in action) {
          const data = Buffer.alloc(action.put, next++);
          if (!queue.putView(queue.length, data)) continue;
          queue.length += data.length;
          model = Buffer.concat([model, data]);
        } else if ('drop' in action) {
          const count = Math.min(action.drop, model.length);
          queue.drop(count);
          model = model.subarray(count);
        } else if ('sum' in action) {
          const at = Math.min(action.sum, model.length);
          const length = Math.min(action.length, model.length - at, 60_000);
          if (length === 0) continue;
          const sum = queue.copySum(at, arena.scratch, length);
          assert.equal(fold(sum) % 0xffff, fold(sum16(model, at, at + length)) % 0xffff);
          assert.equal(
            Buffer.compare(
              arena.bytes.subarray(arena.scratch, arena.scratch + length),
              model.subarray(at, at + length),
            ),
            0,
          );
        } else {
          queue.clear();
          model = Buffer.alloc(0);
        }
        assert.equal(queue.length, model.length);
        const peeked = queue.peek(0);
        assert.equal(Buffer.compare(peeked, model.subarray(0, peeked.length)), 0);
        assert.equal(peeked.length === 0, model.length === 0);
      }
      queue.clear();
      assert.equal(arena.freeChunks, arena.chunksTotal);
    }),
    { seed: SEED, numRuns: 60 },
  );
});

test('ranges are a set of numbers, also where they wrap', () => {
  fc.assert(
    fc.property(
      fc.integer(),
      fc.array(fc.record({ at: fc.nat(300), length: fc.integer({ min: 1, max: 20 }), drop: fc.boolean() }), {
        maxLength: 60,
      }),
      (base, steps) => {
        const ranges = new Ranges();
        const model = new Set<number>();
        let floor = 0;
        for (const { at, length, drop } of steps) {
          if (drop) {
            floor = Math.max(floor, at);
            ranges.dropBefore((base + floor) | 0);
            for (const value of model) if (value < floor) model.delete(value);
          } else if (ranges.add((base + floor + at) | 0, (base + floor + at + length) | 0)) {
            for (let i = 0; i < length; i += 1) model.add(floor + at + i);
          }
          assert.equal(ranges.total, model.size);
          for (let i = 0; i < ranges.count; i += 1) {
            for (let value = ranges.start(i); value !== ranges.end(i); value = (value + 1) | 0) {
              assert.ok(model.has((value - base) | 0));
            }
          }
          let gap = floor;
          while (model.has(gap)) gap += 1;
          assert.equal(ranges.nextGap((base + floor) | 0), (base + gap) | 0);
        }
      },
    ),
    { seed: SEED },
  );
});

test('the flow table finds what was added, and nothing that was removed', () => {
  const table = new FlowTable<number>(500, 12345);
  const key = (i: number): FlowKey => {
    const address = new Uint8Array(16);
    if (i % 2 === 0) address.set([0xff, 0xff, 10, 0, i >>> 8, i], 10);
    else address.set([0xfd, 0, i >>> 8, i]);
    return new FlowKey().setAddresses(i % 2 === 0 ? 4 : 6, address, address);
  };
  for (let round = 0; round < 20; round += 1) {
    for (let i = 0; i < 500; i += 1) assert.ok(table.add(key(i), i * 3, i));
    assert.equal(table.add(key(501), 0, 501), false, 'full');
    for (let i = 0; i < 500; i += 1) assert.equal(table.find(key(i), i * 3), i);
    assert.equal(table.find(key(3), 1), undefined);
    assert.equal([...table.values()].length, 500);
    for (let i = 0; i < 500; i += 1) {
      table.remove(key(i), i * 3);
      assert.equal(table.find(key(i), i * 3), undefined);
    }
    assert.equal(table.size, 0);
  }
});

class Bell extends Timed {
  readonly rung: number[] = [];
  expired(nowMs: number): void {
    this.rung.push(nowMs);
  }
}

test('timers ring once, not early, and not much later; the next time is known', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 100_000 }), { minLength: 1, maxLength: 30 }), (delays) => {
      let told = Number.POSITIVE_INFINITY;
      const wheel = new TimerWheel(1000, (atMs) => {
        told = Math.min(told, atMs);
      });
      const bells = delays.map((delay) => {
        const bell = new Bell();
        wheel.set(bell, 1000 + delay);
        return bell;
      });
      assert.ok(told <= 1000 + Math.min(...delays) + 16, 'we are told of the earliest');
      for (let guard = 0; guard < 2000; guard += 1) {
        const next = wheel.nextMs();
        if (next === Number.POSITIVE_INFINITY) break;
        wheel.advance(next);
      }
      for (const [i, bell] of bells.entries()) {
        const delay = delays[i] ?? 0;
        assert.equal(bell.rung.length, 1);
        assert.ok((bell.rung[0] ?? 0) >= 1000 + delay && (bell.rung[0] ?? 0) <= 1000 + delay + 16);
      }
    }),
    { seed: SEED },
  );
});

test('a timer that is moved rings at its last time only; one that is cleared never does', () => {
  const wheel = new TimerWheel(0);
  const moved = new Bell();
  const cleared = new Bell();
  wheel.set(moved, 100);
  wheel.set(moved, 500);
  wheel.set(cleared, 100);
  wheel.clear(cleared);
  wheel.advance(400);
  assert.deepEqual([moved.rung, cleared.rung], [[], []]);
  wheel.set(moved, 450);
  wheel.advance(60_000);
  assert.equal(moved.rung.length, 1);
  assert.equal(wheel.nextMs(), Number.POSITIVE_INFINITY);
});

test('a payload cut into fragments comes together in any order', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 9, maxLength: 3000 }),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 30 }),
      fc.infiniteStream(fc.nat()),
      (payload, cuts, order) => {
        const reassembly = new Reassembly();
        const parts: { offset: number; data: Uint8Array }[] = [];
        for (let offset = 0, i = 0; offset < payload.length; i += 1) {
          const size = (cuts[i] ?? 400) * 8;
          parts.push({ offset, data: payload.subarray(offset, offset + size) });
          offset += size;
        }
        const shuffled = parts
          .map((part) => ({ part, rank: Number(order.next().value) }))
          .sort((a, b) => a.rank - b.rank)
          .map(({ part }) => part);
        const results = shuffled.map(({ offset, data }) =>
          reassembly.add('k', offset, offset + data.length < payload.length, data, 0),
        );
        assert.deepEqual(results.at(-1), payload);
        assert.ok(results.slice(0, -1).every((result) => result === undefined));
        assert.equal(reassembly.size, 0);
      },
    ),
    { seed: SEED },
  );
});
