import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { ContainerLog } from '../src/log/container-log.ts';
import { findTail, LogView } from '../src/log/log-view.ts';
import { FakeRuntime } from './support/fake-runtime.ts';

type Write = readonly [channel: 1 | 2, text: string];

async function withLog<T>(writes: readonly Write[], use: (log: ContainerLog) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'arcbox-view-'));
  try {
    await using log = await ContainerLog.open(directory);
    log.beginRun(1);
    const offsets = { 1: 0, 2: 0 };
    for (const [channel, text] of writes) {
      log.append(channel, offsets[channel], Buffer.from(text), false);
      offsets[channel] += Buffer.byteLength(text);
      await log.flushed();
    }
    await log.endRun();
    return await use(log);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function tail(log: ContainerLog, lines: number): Promise<Write[]> {
  await using scan = log.reader({ cursor: 'start' });
  const from = await findTail(scan, lines, {});
  const view = new LogView(log.reader({ cursor: from?.position ?? 'start' }), {}, from);
  const writes = await writesOf(view);
  await view.close();
  return writes;
}

/** All that a view gives, to its end. */
async function writesOf(view: LogView): Promise<Write[]> {
  const writes: Write[] = [];
  for (let batch = await view.read(); batch !== undefined; batch = await view.read())
    for (const { channel, data } of batch.records) writes.push([channel, data.toString()]);
  return writes;
}
const text = (writes: readonly Write[]): string => writes.map(([, part]) => part).join('');

test('the last lines of one stream are those that tail would print', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.stringMatching(/^[ab\n]{1,6}$/), { maxLength: 12 }),
      fc.integer({ min: 1, max: 8 }),
      async (parts, count) => {
        const all = parts.join('');
        const lines = all.split(/(?<=\n)/);
        const writes = parts.map((part): Write => [1, part]);
        assert.equal(text(await withLog(writes, (log) => tail(log, count))), lines.slice(-count).join(''));
      },
    ),
    { numRuns: 60, seed: 7 },
  );
});

test('lines of both streams are counted together, each where it began', async () => {
  const writes: Write[] = [
    [1, 'one\n'],
    [2, 'two\n'],
    [1, 'three'],
    [2, 'four\n'],
    [1, ' and on\n'],
  ];
  await withLog(writes, async (log) => {
    assert.equal(text(await tail(log, 2)), 'threefour\n and on\n');
    assert.equal(text(await tail(log, 3)), 'two\nthreefour\n and on\n');
    assert.equal(text(await tail(log, 9)), 'one\ntwo\nthreefour\n and on\n');
  });
});

test('since and until cut by time, and a follower ends when the time has come', async () => {
  await using fake = await FakeRuntime.create({
    async talk({ out }) {
      await out('here\n');
    },
  });
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['talk'] });
  await containers.start(id);
  const first = await containers.logs(id, { follow: true });
  await first.reader.read();
  await first.release();
  const untilMs = Date.now() + 50;
  const { reader, release } = await containers.logs(id, { follow: true, untilMs });
  const seen: string[] = [];
  for (let batch = await reader.read(); batch !== undefined; batch = await reader.read())
    seen.push(...batch.records.map(({ data }) => data.toString()));
  await release();
  assert.deepEqual(seen, ['here\n']);
  assert.ok(Date.now() >= untilMs);
  // A time that has passed already, or passes before there was time to read.
  const past = await containers.logs(id, { follow: true, untilMs });
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal((await past.reader.read())?.records[0]?.data.toString(), 'here\n');
  assert.equal(await past.reader.read(), undefined);
  await past.release();
  const later = await containers.logs(id, { sinceMs: Date.now() + 1000 });
  assert.equal(await later.reader.read(), undefined);
  await later.release();
  await containers.kill(id);
});

test('the last line of a log is one line, however fast the log is written and rotated meanwhile', async () => {
  let goesOn = true;
  await using fake = await FakeRuntime.create({
    async flood({ out, exit }) {
      for (let n = 0; goesOn; n += 1) await out(`${n}${'x'.repeat(1023)}\n`);
      exit(0);
    },
  });
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const life = { log: { maxSizeBytes: 65_536, maxFiles: 2 } };
  const { id } = await containers.create({ image: 'busybox', command: ['flood'], life });
  await containers.start(id);
  let last = -1;
  // So many lines that the oldest are gone.
  for (let round = 0; round < 50 || last < 200; round += 1) {
    const { reader, release } = await containers.logs(id, { tail: 1 });
    const line = text(await writesOf(reader));
    await release();
    assert.match(line, /^\d+x+\n$|^$/);
    if (line === '') continue; // nothing has been written yet
    assert.ok(Number.parseInt(line, 10) >= last);
    last = Number.parseInt(line, 10);
  }
  goesOn = false;
  await containers.wait(id);
});

test('a log is kept in so many files of the size that was asked for', async () => {
  const line = `${'x'.repeat(1023)}\n`;
  await using fake = await FakeRuntime.create({
    async flood({ out, exit }) {
      for (let n = 0; n < 400; n += 1) await out(line);
      exit(0);
    },
  });
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const life = { log: { maxSizeBytes: 65_536, maxFiles: 3 } };
  const { id } = await containers.create({ image: 'busybox', command: ['flood'], life });
  await containers.start(id);
  await containers.wait(id);
  const directory = fake.layout.containerLog(id);
  const files = await readdir(directory);
  assert.equal(files.length, 3);
  for (const file of files) assert.ok((await stat(join(directory, file))).size < 4 * 65_536);
  const { reader, release } = await containers.logs(id, { tail: 5 });
  const last = text(await writesOf(reader));
  await release();
  assert.equal(last, line.repeat(5));
  await assert.rejects(
    containers.create({ image: 'busybox', life: { log: { maxSizeBytes: 1 } } }),
    /max-size/,
  );
});
