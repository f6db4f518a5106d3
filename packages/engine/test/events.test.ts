import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type EventBatch, EventLog, type EventQuery } from '../src/events/event-log.ts';
import { checkFilters } from '../src/events/filters.ts';
import { EVENTS_TRIM_EVERY } from '../src/limits.ts';
import { FakeRuntime } from './support/fake-runtime.ts';

async function all(log: EventLog, query: EventQuery): Promise<EventBatch[]> {
  const batches: EventBatch[] = [];
  for await (const batch of log.read({ untilMs: Date.now(), ...query })) batches.push(batch);
  return batches;
}
const actions = (batches: readonly EventBatch[]): string[] =>
  batches.flatMap(({ events }) => events.map(({ action }) => action));

test('events are read from a number on, by any number of readers, as they come', async () => {
  using log = new EventLog(':memory:');
  log.emit('container', 'create', 'a');
  const stop = new AbortController();
  const follow = async (query: EventQuery, count: number): Promise<number[]> => {
    const seqs: number[] = [];
    for await (const { events } of log.read({ ...query, signal: stop.signal })) {
      seqs.push(...events.map(({ seq }) => seq));
      if (seqs.length >= count) break;
    }
    return seqs;
  };
  const both = [follow({ afterSeq: 0 }, 3), follow({}, 2)];
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(log.readers, 2);
  log.emit('container', 'start', 'a');
  log.emit('container', 'die', 'a');
  assert.deepEqual(await Promise.all(both), [
    [1, 2, 3],
    [2, 3],
  ]);
  const waiting = follow({}, 1);
  await new Promise((resolve) => setImmediate(resolve));
  stop.abort();
  assert.deepEqual(await waiting, []);
  assert.equal(log.readers, 0);
});

test('filters: keys together, values either or', async () => {
  using log = new EventLog(':memory:');
  log.emit('container', 'create', 'a'.repeat(64), { name: 'web', image: 'busybox', tier: 'front' });
  log.emit('container', 'die', 'a'.repeat(64), { name: 'web', image: 'busybox', exitCode: '0' });
  log.emit('volume', 'create', 'data');
  log.emit('container', 'exec_start: sh', 'b'.repeat(64), { name: 'db' });
  const get = async (filters: Record<string, string[]>): Promise<string[]> =>
    actions(await all(log, { afterSeq: 0, filters }));
  assert.deepEqual(await get({ type: ['container'], event: ['create', 'die'] }), ['create', 'die']);
  assert.deepEqual(await get({ container: ['web'] }), ['create', 'die']);
  assert.deepEqual(await get({ container: ['bbbb'] }), ['exec_start: sh']);
  assert.deepEqual(await get({ event: ['exec_start'] }), ['exec_start: sh']);
  assert.deepEqual(await get({ image: ['busybox'], event: ['die'] }), ['die']);
  assert.deepEqual(await get({ volume: ['data'] }), ['create']);
  assert.deepEqual(await get({ label: ['tier=front'] }), ['create']);
  assert.deepEqual(await get({ label: ['tier=back'] }), []);
  assert.throws(() => checkFilters({ colour: ['red'] }), /no filter "colour"/);
});

test('the table is bounded, and a reader that was too slow is told how much it missed', async () => {
  using log = new EventLog(':memory:', { eventsMax: EVENTS_TRIM_EVERY });
  log.emit('daemon', 'first', '');
  const reader = log.read({ afterSeq: 0 });
  const first = await reader.next();
  assert.equal(first.value?.events.length, 1);
  for (let n = 0; n < 3 * EVENTS_TRIM_EVERY; n += 1) log.emit('daemon', 'more', '');
  const second = await reader.next();
  assert.equal(second.value?.lost, 2 * EVENTS_TRIM_EVERY - 1);
  assert.equal(second.value?.events[0]?.seq, 2 * EVENTS_TRIM_EVERY + 1);
  assert.equal(log.lost, 2 * EVENTS_TRIM_EVERY - 1);
  await reader.return(undefined);
  assert.equal(
    (await all(log, { afterSeq: 0 }))[0]?.lost,
    0,
    'who asks for what there is has missed nothing',
  );
});

test('the next daemon goes on counting', () => {
  const directory = mkdtempSync(join(tmpdir(), 'arcbox-events-'));
  for (const seq of [1, 2]) {
    using log = new EventLog(join(directory, 'events.db'));
    log.emit('daemon', 'start', '');
    assert.equal(log.lastSeq, seq);
  }
  rmSync(directory, { recursive: true });
});

test('a container tells its life', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const { id } = await containers.create({
    image: 'busybox',
    command: ['both'],
    name: 'both',
    labels: { a: '1' },
  });
  await containers.start(id);
  await containers.wait(id);
  await containers.remove(id);
  const batches = await all(runtime.events, { afterSeq: 0, filters: { type: ['container'] } });
  assert.deepEqual(actions(batches), ['create', 'start', 'die', 'destroy']);
  const die = batches.flatMap(({ events }) => events)[2];
  assert.equal(die?.id, id);
  assert.equal(die.attributes.exitCode, '7');
  assert.equal(die.attributes.name, 'both');
  assert.equal(die.attributes.a, '1');
  assert.deepEqual(
    actions(await all(runtime.events, { afterSeq: 0, filters: { machine: ['default'], type: ['machine'] } })),
    ['start'],
  );
});
