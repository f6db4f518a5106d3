/** The states of a machine: the table, what is written of it, and what real machines (on the fake driver) do with it. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  canApply,
  type MachineEvent,
  type MachineState,
  nextState,
  TRANSITIONS,
} from '../src/machine/transitions.ts';
import { FakeRuntime } from './support/fake-runtime.ts';

const STATES = Object.keys(TRANSITIONS) as MachineState[];
const WAYS = STATES.flatMap((from) =>
  Object.entries(TRANSITIONS[from]).map(([event, to]) => ({ from, event: event as MachineEvent, to })),
);

test('every way of the table can be gone, and no other', () => {
  const events = [...new Set(WAYS.map(({ event }) => event))];
  for (const state of STATES) {
    for (const event of events) {
      const way = WAYS.find((each) => each.from === state && each.event === event);
      assert.equal(canApply(state, event), way !== undefined);
      if (way !== undefined) assert.equal(nextState('m', state, event), way.to);
      else {
        assert.throws(() => nextState('m', state, event), {
          code: 'ERR_ARCBOX_MACHINE_STATE',
          message: new RegExp(`^the machine m is ${state} and cannot be `),
        });
      }
    }
  }
});

test('every state is reached from stopped, and leads back to it', () => {
  const reach = (from: MachineState): Set<MachineState> => {
    const reached = new Set([from]);
    for (const state of reached) for (const way of WAYS) if (way.from === state) reached.add(way.to);
    return reached;
  };
  assert.deepEqual([...reach('stopped')].sort(), STATES.toSorted());
  for (const state of STATES) assert.ok(reach(state).has('stopped'), state);
});

test('the documentation has the same ways', () => {
  const page = readFileSync(new URL('../../../docs/architecture.md', import.meta.url), 'utf8');
  const written = page.matchAll(/^(\w+) ── (\w+) ─▶ (\w+)( {2,}.*)?$/gm);
  assert.deepEqual(
    Array.from(written, ([, from, event, to]) => `${from} ${event} ${to}`).sort(),
    WAYS.map(({ from, event, to }) => `${from} ${event} ${to}`).sort(),
  );
});

test('a machine goes these ways', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const machine = (await runtime.machines())[0];
  assert.ok(machine !== undefined);
  assert.equal(machine.state, 'stopped');
  await machine.ensure();
  assert.equal(machine.state, 'running');
  assert.equal(await machine.idleDown(), true);
  assert.equal(machine.state, 'idle');
  await machine.ensure();
  assert.equal(machine.state, 'running');
  await machine.idleDown();
  await machine.stop();
  assert.equal(machine.state, 'stopped');
  await machine.stop();
  assert.equal(machine.state, 'stopped');
  await assert.rejects(machine.idleDown(), { code: 'ERR_ARCBOX_MACHINE_STATE' });
});
