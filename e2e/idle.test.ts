import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { HostLayout } from '@arcbox/engine';
import { Arcbox, outcome } from './support.ts';

/** The clock is set once, when the machine is back; under emulation it may run late by this much until it is read. */
const CLOCK_OFF_S_MAX = 20;

function stateOf(listing: string): string {
  return (JSON.parse(listing) as { State: string }).State;
}

test('an idle machine has no process, keeps what was written, and is back for the next container', async () => {
  await using arcbox = new Arcbox();
  assert.equal(
    (await arcbox.run(['run', '--name', 'one', 'busybox', 'sh', '-c', 'echo kept > /file'])).code,
    0,
  );
  const [before] = arcbox.machines();
  const idle = await arcbox.run(['machine', 'idle', 'default']);
  assert.equal(idle.code, 0, idle.stderr);
  assert.deepEqual(arcbox.machines(), []);
  const listing = await arcbox.run(['machine', 'ls', '--format', 'json']);
  assert.equal(stateOf(listing.stdout), 'idle');
  // Containers and the guest's clock: both are as they should be at once.
  const asked = Date.now() / 1000;
  const { stdout } = await arcbox.run(['run', '--rm', 'busybox', 'date', '+%s']);
  const answered = Date.now() / 1000;
  const off = Math.max(asked - 1 - Number(stdout), Number(stdout) - answered);
  assert.ok(off < CLOCK_OFF_S_MAX, `the guest's clock says ${stdout}, it is ${asked} to ${answered}`);
  const [after] = arcbox.machines();
  assert.notEqual(after, before);
  assert.equal((await arcbox.run(['logs', 'one'])).code, 0);
  // Again, from the memory that it took over; and in the next daemon.
  assert.equal((await arcbox.run(['machine', 'idle', 'default'])).code, 0);
  await arcbox.crashDaemon();
  assert.equal(stateOf((await arcbox.run(['machine', 'ls', '--format', 'json'])).stdout), 'idle');
  assert.equal((await arcbox.run(['run', '--rm', 'busybox', 'echo', 'again'])).stdout, 'again\n');
  await arcbox.run(['rm', 'one']);
});

/** Places right before a side effect, and whether the machine is idle when a daemon that died there has gone. */
const FAULTS: Readonly<Record<string, 'idle' | 'other'>> = {
  'idle.save': 'other',
  'idle.kill': 'idle',
  'wake.forget': 'idle',
  'wake.recorded': 'other',
};

for (const [point, expected] of Object.entries(FAULTS)) {
  test(`a daemon that dies at ${point} leaves a machine that the next one can use`, async () => {
    await using arcbox = new Arcbox();
    const memory = new HostLayout(arcbox.home).machineMemory('default');
    const faulty = { environment: { ARCBOX_FAULT_POINT: point } };
    if (point.startsWith('idle.')) {
      assert.equal((await arcbox.run(['run', '--rm', 'busybox', 'true'], faulty)).code, 0);
      await arcbox.run(['machine', 'idle', 'default']);
    } else {
      await arcbox.run(['run', '--rm', 'busybox', 'true']);
      assert.equal((await arcbox.run(['machine', 'idle', 'default'])).code, 0);
      await arcbox.crashDaemon();
      await outcome(arcbox.spawn(['machine', 'start', 'default'], { input: '', ...faulty }));
    }
    const { stdout } = await arcbox.run(['machine', 'ls', '--format', 'json']);
    assert.equal(stateOf(stdout) === 'idle' ? 'idle' : 'other', expected);
    assert.equal((await arcbox.run(['run', '--rm', 'busybox', 'echo', 'on'])).stdout, 'on\n');
    assert.equal(arcbox.machines().length, 1);
    assert.equal(existsSync(memory), false, 'no memory is left behind');
  });
}
