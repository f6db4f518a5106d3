import assert from 'node:assert/strict';
import { appendFile, mkdtemp, readdir, readlink, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { EngineError } from '../src/errors.ts';
import { ContainerLog } from '../src/log/container-log.ts';
import type { LogReader } from '../src/log/log-reader.ts';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

async function withDirectory(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'arcbox-log-'));
  try {
    await run(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function readAll(reader: LogReader): Promise<{ out: string; err: string; position: number }> {
  let out = '';
  let err = '';
  let position = reader.position;
  for (let batch = await reader.read(); batch !== undefined; batch = await reader.read()) {
    for (const { channel, data } of batch.records) {
      if (channel === 1) out += data.toString();
      else err += data.toString();
    }
    position = batch.position;
  }
  await reader.close();
  return { out, err, position };
}

test('what was appended is read back, acknowledged, and survives a reopening', async () => {
  await withDirectory(async (directory) => {
    const acknowledged: [number, number][] = [];
    {
      await using log = await ContainerLog.open(directory, {
        onDurable: (channel, offset) => acknowledged.push([channel, offset]),
      });
      log.beginRun(1);
      log.append(1, 0, Buffer.from('one '), false);
      log.append(2, 0, Buffer.from('err'), true);
      await log.flushed();
      log.append(1, 4, Buffer.from('two'), false);
      await log.flushed();
      assert.deepEqual(acknowledged, [
        [1, 4],
        [2, 3],
        [1, 7],
      ]);
    }
    await using log = await ContainerLog.open(directory);
    assert.equal(log.run, 1);
    assert.equal(log.offset(1), 7);
    assert.equal(log.offset(2), 3);
    assert.equal(log.hasEnded(1), false);
    assert.equal(log.hasEnded(2), true);
    const all = await readAll(log.reader({ cursor: 'start' }));
    assert.deepEqual(all, { out: 'one two', err: 'err', position: log.end });
  });
});

test('a chunk that leaves a gap, repeats something or comes after the end is refused', async () => {
  await withDirectory(async (directory) => {
    await using log = await ContainerLog.open(directory);
    log.beginRun(1);
    log.append(1, 0, Buffer.from('ab'), false);
    for (const offset of [0, 1, 3]) {
      assert.throws(() => log.append(1, offset, Buffer.from('x'), false), { code: 'ERR_ARCBOX_LOG_CORRUPT' });
    }
    log.append(1, 2, Buffer.alloc(0), true);
    assert.throws(() => log.append(1, 2, Buffer.from('x'), false), { code: 'ERR_ARCBOX_LOG_CORRUPT' });
  });
});

test('a follower gets what comes, in order, and ends with the run', async () => {
  await withDirectory(async (directory) => {
    await using log = await ContainerLog.open(directory);
    const early = readAll(log.reader({ cursor: 'end', followRun: 1 }));
    log.beginRun(1);
    let expected = '';
    for (let n = 0; n < 2000; n += 1) {
      const line = `${n}\n`;
      log.append(1, expected.length, Buffer.from(line), false);
      expected += line;
      if (n % 100 === 0) await log.flushed();
    }
    const late = readAll(log.reader({ cursor: 'start', followRun: 1 }));
    await log.endRun();
    assert.equal((await early).out, expected);
    assert.equal((await late).out, expected);
    log.beginRun(2);
    log.append(1, 0, Buffer.from('again'), true);
    await log.endRun();
    assert.equal((await readAll(log.reader({ cursor: 'start' }))).out, `${expected}again`);
  });
});

test('rotation keeps the newest segments, goes on after a reopening, and says when a cursor is gone', async () => {
  await withDirectory(async (directory) => {
    const options = { segmentBytes: 1000, segments: 2 };
    const data = Buffer.alloc(100, 'x');
    {
      await using log = await ContainerLog.open(directory, options);
      log.beginRun(1);
      log.append(2, 0, Buffer.from('early'), false);
      for (let n = 0; n < 100; n += 1) {
        log.append(1, n * 100, data, false);
        await log.flushed();
      }
      assert.equal((await readdir(directory)).length, 2);
    }
    await using log = await ContainerLog.open(directory, options);
    assert.equal(log.offset(1), 10_000);
    assert.equal(log.offset(2), 5, 'known from the checkpoint, its record is gone');
    assert.throws(
      () => log.reader({ cursor: 0 }),
      (error) => error instanceof EngineError && error.code === 'ERR_ARCBOX_LOG_TRUNCATED',
    );
    log.append(1, 10_000, data, false);
    await log.flushed();
    const { out } = await readAll(log.reader({ cursor: 'start' }));
    assert.ok(out.length >= 800 && out.length < 2000, String(out.length));
  });
});

test('a connected reader loses nothing to rotation, and one that has left holds nothing up', async () => {
  await withDirectory(async (directory) => {
    let acknowledged = 0;
    await using log = await ContainerLog.open(directory, {
      segmentBytes: 1000,
      segments: 2,
      onDurable: (_channel, offset) => {
        acknowledged = offset;
      },
    });
    log.beginRun(1);
    const reader = log.reader({ cursor: 'start', followRun: 1 });
    const gone = log.reader({ cursor: 'start', followRun: 1 });
    for (let n = 0; n < 1000; n += 1) log.append(1, n * 10, Buffer.from(`${n}`.padStart(10)), false);
    const first = await reader.read();
    assert.ok(first !== undefined);
    await gone.close();
    let out = first.records.map((record) => record.data.toString()).join('');
    const ended = log.endRun();
    assert.ok(acknowledged < 10_000, 'the reader is in the way');
    for (let batch = await reader.read(); batch !== undefined; batch = await reader.read()) {
      out += batch.records.map((record) => record.data.toString()).join('');
    }
    await ended;
    await reader.close();
    assert.equal(acknowledged, 10_000);
    assert.equal(out.length, 10_000);
    for (let n = 0; n < 1000; n += 1) assert.equal(Number(out.slice(n * 10, n * 10 + 10)), n);
  });
});

test('a reader that follows nothing ends where the log ended when it came', async () => {
  await withDirectory(async (directory) => {
    await using log = await ContainerLog.open(directory);
    log.beginRun(1);
    log.append(1, 0, Buffer.from('before'), false);
    await log.flushed();
    const reader = log.reader({ cursor: 'start' });
    log.append(1, 6, Buffer.from('after'), false);
    await log.flushed();
    assert.equal((await readAll(reader)).out, 'before');
  });
});

test('a reader that is closed while it reads leaves no file open', async () => {
  await withDirectory(async (directory) => {
    await using log = await ContainerLog.open(directory);
    log.beginRun(1);
    log.append(1, 0, Buffer.from('x'.repeat(1000)), false);
    await log.endRun();
    // Of this log; what else the process has open is nobody's business here.
    const open = async (): Promise<number> => {
      const fds = await readdir('/proc/self/fd');
      const paths = await Promise.all(fds.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')));
      return paths.filter((path) => path.startsWith(directory)).length;
    };
    const before = await open();
    for (let round = 0; round < 40; round += 1) {
      const reader = log.reader({ cursor: 'start' });
      const read = reader.read();
      for (let turn = 0; turn < round % 4; turn += 1) await new Promise((next) => setImmediate(next));
      await reader.close();
      await read;
    }
    assert.equal(await open(), before);
  });
});

test('a slow attached reader delays the acknowledgement', async () => {
  await withDirectory(async (directory) => {
    let acknowledged = 0;
    await using log = await ContainerLog.open(directory, {
      onDurable: (_channel, offset) => {
        acknowledged = offset;
      },
    });
    log.beginRun(1);
    await log.flushed();
    const reader = log.reader({ cursor: 'end', followRun: 1, maxLagBytes: 100 });
    log.append(1, 0, Buffer.alloc(500), false);
    const written = log.flushed();
    const batch = await reader.read();
    assert.equal(batch?.records.length, 1);
    assert.equal(acknowledged, 0, 'written, but not handled by the client');
    const next = reader.read();
    await written;
    assert.equal(acknowledged, 500);
    await reader.close();
    assert.equal(await next, undefined);
  });
});

test('whatever a crash leaves of the end, the complete records and nothing else are there', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          channel: fc.constantFrom(1 as const, 2 as const),
          size: fc.integer({ min: 0, max: 300 }),
        }),
        {
          minLength: 1,
          maxLength: 20,
        },
      ),
      fc.oneof(fc.constant(0), fc.nat(400)),
      fc.nat(60),
      async (chunks, cut, garbageBytes) => {
        await withDirectory(async (directory) => {
          const ends: { position: number; one: number; two: number }[] = [];
          const offsets = { 1: 0, 2: 0 };
          {
            await using log = await ContainerLog.open(directory);
            log.beginRun(7);
            await log.flushed();
            ends.push({ position: log.end, one: 0, two: 0 });
            for (const { channel, size } of chunks) {
              log.append(channel, offsets[channel], Buffer.alloc(size, 'y'), false);
              offsets[channel] += size;
              await log.flushed();
              ends.push({ position: log.end, one: offsets[1], two: offsets[2] });
            }
          }
          const [name = ''] = await readdir(directory);
          const file = join(directory, name);
          const kept = Math.max(ends[0]?.position ?? 0, (ends.at(-1)?.position ?? 0) - cut);
          await truncate(file, kept);
          await appendFile(file, Buffer.alloc(cut === 0 ? garbageBytes : 0, 0xee));
          const expected = ends.findLast((end) => end.position <= kept);
          await using log = await ContainerLog.open(directory);
          assert.equal(log.end, expected?.position);
          assert.equal(log.offset(1), expected?.one);
          assert.equal(log.offset(2), expected?.two);
          assert.equal(log.run, 7);
          log.append(1, log.offset(1), Buffer.from('on'), true);
          await log.flushed();
          const all = await readAll(log.reader({ cursor: 'start' }));
          assert.equal(all.out.length, (expected?.one ?? 0) + 2);
          assert.equal(all.err.length, expected?.two);
        });
      },
    ),
    { seed: SEED, numRuns: 60 },
  );
});
