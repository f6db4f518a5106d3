import assert from 'node:assert/strict';
import { test } from 'node:test';
import { holds, recordOf } from '../lib/report.ts';
import { interval95, median, percentile } from '../lib/statistics.ts';

const samples = [5, 1, 4, 2, 3, 6, 7, 8, 9, 10];

test('the median and the nearest-rank percentile', () => {
  assert.equal(median(samples), 5.5);
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(percentile(samples, 95), 10);
  assert.equal(percentile(samples, 50), 5);
  assert.throws(() => median([]), RangeError);
});

test('the interval holds the median and is the same every time', () => {
  const [low, high] = interval95(samples);
  assert.ok(low <= 5.5 && 5.5 <= high);
  assert.deepEqual(interval95(samples), [low, high]);
});

test('a bar is missed only when the interval excludes it', () => {
  assert.equal(holds({ kind: 'at-most', value: 10 }, [9, 12]), true);
  assert.equal(holds({ kind: 'at-most', value: 10 }, [10.1, 12]), false);
  assert.equal(holds({ kind: 'at-least', value: 10 }, [8, 10]), true);
  assert.equal(holds({ kind: 'ratio-at-least', value: 1 }, [0.8, 0.9]), false);
});

test('a record carries the peer, the ratio and the verdict', () => {
  const record = recordOf(
    {
      bench: 'b',
      metric: 'm',
      unit: 'ms',
      samples: samples.map((x) => x * 2),
      peer: { name: 'raw', samples },
      bar: { kind: 'ratio-at-most', value: 1.25 },
    },
    'abc',
    'here',
  );
  assert.equal(record.ratio, 2);
  assert.equal(record.peer_p50, 5.5);
  assert.equal(record.n, 10);
  assert.equal(record.ok, record.ci95[0] <= 1.25);
});
