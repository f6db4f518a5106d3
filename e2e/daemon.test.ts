import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Arcbox, isRunning, outcome, processGone } from './support.ts';

/** A shell as PID 1 does not end on SIGTERM by itself. */
const POLITE = 'trap "exit 0" TERM; echo ready; while :; do sleep 0.1; done';

test('every command starts the daemon, any number of them at once start one', async () => {
  await using arcbox = new Arcbox();
  assert.equal((await arcbox.run(['daemon', 'status'])).code, 3);
  const answers = await Promise.all(
    Array.from({ length: 5 }, () => arcbox.run(['info', '--format', 'json'])),
  );
  for (const { code, stderr } of answers) assert.equal(code, 0, stderr);
  const ready = arcbox.daemonLog().match(/daemon\.ready/g);
  assert.equal(ready?.length, 1);
  assert.match((await arcbox.run(['daemon', 'status'])).stdout, new RegExp(`process ${arcbox.daemonPid},`));
  const pid = arcbox.daemonPid;
  assert.match((await arcbox.run(['daemon', 'stop'])).stdout, /has stopped/);
  assert.equal(isRunning(pid), false);
  assert.equal(existsSync(join(arcbox.home, 'run', 'arcbox.sock')), false);
  assert.equal(existsSync(join(arcbox.home, 'run', 'daemon.pid')), false);
});

test('SIGTERM stops containers and machine, then the daemon', async () => {
  await using arcbox = new Arcbox();
  await arcbox.run(['run', '-d', '--name', 'one', 'busybox', 'sh', '-c', POLITE]);
  // Before its trap is set, PID 1 of a namespace ignores the signal.
  while (!(await arcbox.run(['logs', 'one'])).stdout.includes('ready'));
  const [machine = 0] = arcbox.machines();
  assert.ok(isRunning(machine));
  const pid = arcbox.daemonPid;
  process.kill(pid, 'SIGTERM');
  await processGone(pid);
  assert.equal(isRunning(machine), false);
  const { stdout } = await arcbox.run(['ps', '-a']);
  assert.match(stdout, /Exited \(0\)/);
  await arcbox.run(['rm', 'one']);
});

test('the machine outlives a killed daemon, the next command takes it over, and its container goes on', async () => {
  await using arcbox = new Arcbox();
  await arcbox.run(['run', '-d', '--name', 'one', 'busybox', 'sh', '-c', 'echo first; sleep 1000']);
  const machines = arcbox.machines();
  assert.equal(machines.length, 1);
  await arcbox.crashDaemon();
  assert.match((await arcbox.run(['ps'])).stdout, / one\n$/);
  assert.deepEqual(arcbox.machines(), machines, 'the same process');
  assert.equal((await arcbox.run(['logs', 'one'])).stdout, 'first\n');
  assert.equal((await arcbox.run(['run', '--rm', 'busybox', 'echo', 'second'])).stdout, 'second\n');
  assert.equal((await arcbox.run(['rm', '-f', 'one'])).code, 0);
});

test('with nobody coming back the machine is gone after the grace time, and the container is marked', async () => {
  await using arcbox = new Arcbox({ ARCBOX_ORPHAN_GRACE_S: '1' });
  await arcbox.run(['run', '-d', '--name', 'one', 'busybox', 'sh', '-c', POLITE]);
  const [machine = 0] = arcbox.machines();
  await arcbox.crashDaemon();
  await processGone(machine);
  const { stdout } = await arcbox.run(['ps', '-a']);
  assert.match(stdout, /Exited \(255\)/);
  assert.equal((await arcbox.run(['rm', 'one'])).code, 0);
});

test('a daemon killed while its machine boots leaves nothing in the way of the next one', async () => {
  await using arcbox = new Arcbox();
  await arcbox.run(['info']);
  const first = arcbox.spawn(['run', '--rm', 'busybox', 'echo', 'hi'], { input: '' });
  const ended = outcome(first);
  // From the moment the machine's process is there until it has booted and is written down.
  for (let delayMs = 1; arcbox.machines().length === 0; delayMs = Math.min(delayMs * 2, 20))
    await sleep(delayMs);
  await arcbox.crashDaemon();
  // The command lost its daemon under it, and finished with the next one.
  assert.deepEqual(await ended, { stdout: 'hi\n', stderr: '', code: 0 });
  assert.equal(arcbox.machines().length, 1);
});
