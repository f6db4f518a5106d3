import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DockerRegistry } from '../packages/image/test/support/registry.ts';
import { Arcbox, nextOutput, outcome, untilOutput } from './support.ts';

const KILLS = 50;
const KILLS_UNATTENDED = 10;
/** The least there is. */
const ROTATED_SIZE = '64k';

/** Checks numbers as they come: each the one before it and one. */
function counter(first = 0): { push(text: string): void; readonly next: number; readonly errors: string[] } {
  let rest = '';
  let next = first;
  const errors: string[] = [];
  return {
    push(text) {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        if (Number(line) !== next && errors.length < 10) errors.push(`${line} instead of ${next}`);
        next = Number(line) + 1;
      }
    },
    get next() {
      return next;
    },
    errors,
  };
}

test(`a counting container is followed while the daemon is killed ${KILLS} times: nothing missing, nothing doubled`, async () => {
  await using arcbox = new Arcbox();
  const script = 'i=0; while [ ! -e /stop ]; do echo $i; i=$((i+1)); done; echo $i; exit 9';
  const attached = arcbox.spawn(['run', '--name', 'count', 'busybox', 'sh', '-c', script]);
  const attachedEnd = outcome(attached);
  const attachedCount = counter();
  attached.stdout?.on('data', (text: string) => attachedCount.push(text));
  await untilOutput(attached, '100\n');
  const followed = arcbox.spawn(['logs', '-f', 'count'], { input: '' });
  const followedEnd = outcome(followed);
  const followedCount = counter();
  followed.stdout?.on('data', (text: string) => followedCount.push(text));
  await untilOutput(followed, '100\n');
  const machines = arcbox.machines();

  for (let kill = 0; kill < KILLS; kill += 1) {
    const before = attachedCount.next;
    await arcbox.crashDaemon();
    // The clients start the next daemon; go on when output has come through it, at some random moment after.
    while (attachedCount.next === before) await nextOutput(attached);
    await sleep(randomInt(60));
  }

  assert.deepEqual(arcbox.machines(), machines, 'one machine all along');
  // The only way to reach into it, until there is exec: its end.
  const stopped = await arcbox.run(['stop', '-t', '0', 'count']);
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.equal((await attachedEnd).code, 137);
  await followedEnd;
  assert.deepEqual(attachedCount.errors, []);
  assert.deepEqual(followedCount.errors, []);
  assert.ok(attachedCount.next > 1000);
  assert.equal(followedCount.next, attachedCount.next);
  const all = counter();
  all.push((await arcbox.run(['logs', 'count'])).stdout);
  assert.deepEqual(all.errors, []);
  assert.equal(all.next, attachedCount.next);
  assert.equal((await arcbox.run(['rm', 'count'])).code, 0);
});

test(`containers of a pulled image write while the daemon is killed ${KILLS_UNATTENDED} times and nobody is attached`, async () => {
  await using registry = await DockerRegistry.start();
  await using arcbox = new Arcbox({ DOCKER_CONFIG: '/nonexistent' });
  const ok = async (...args: string[]): Promise<string> => {
    const { stdout, stderr, code } = await arcbox.run(args);
    assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
    return stdout;
  };
  const image = `${registry.host}/busybox:1`;
  await ok('tag', 'busybox', image);
  await ok('push', image);
  await ok('rmi', image);
  const writer = ['sh', '-c', 'i=0; while :; do echo $i; i=$((i+1)); done'];
  await ok('run', '-d', '--name', 'whole', image, ...writer);
  const rotation = ['--log-opt', `max-size=${ROTATED_SIZE}`, '--log-opt', 'max-file=2'];
  await ok('run', '-d', '--name', 'rotated', ...rotation, image, ...writer);
  const machines = arcbox.machines();
  for (let kill = 0; kill < KILLS_UNATTENDED; kill += 1) {
    await arcbox.crashDaemon();
    await sleep(randomInt(60));
    await ok('daemon', 'start');
    await sleep(randomInt(60));
  }
  assert.deepEqual(arcbox.machines(), machines, 'one machine all along');
  // More than is kept, however slow this machine is.
  while (Number(await ok('logs', '--tail', '1', 'rotated')) < 40_000);
  await ok('kill', 'whole', 'rotated');
  await ok('wait', 'whole', 'rotated');
  const all = counter();
  all.push(await ok('logs', 'whole'));
  assert.deepEqual(all.errors, []);
  assert.ok(all.next > 1000);
  const kept = await ok('logs', 'rotated');
  const first = kept.indexOf('\n') + 1;
  const rest = counter(Number(kept.slice(first, kept.indexOf('\n', first))));
  assert.ok(rest.next > 1, 'the oldest is gone');
  rest.push(kept.slice(first));
  assert.deepEqual(rest.errors, []);
  await ok('rm', 'whole', 'rotated');
});

test('input is neither lost nor doubled when the daemon is killed under it', async () => {
  await using arcbox = new Arcbox();
  const child = arcbox.spawn(['run', '-i', '--rm', 'busybox', 'cat']);
  const ended = outcome(child);
  const count = counter();
  child.stdout?.on('data', (text: string) => count.push(text));
  let sent = 0;
  const send = (numbers: number): void => {
    let text = '';
    for (let n = 0; n < numbers; n += 1) text += `${sent++}\n`;
    child.stdin?.write(text);
  };
  send(1000);
  await untilOutput(child, '999\n');
  for (let kill = 0; kill < 10; kill += 1) {
    send(20_000);
    await sleep(randomInt(30));
    await arcbox.crashDaemon();
    const until = sent;
    while (count.next < until) await nextOutput(child);
  }
  child.stdin?.end();
  assert.equal((await ended).code, 0);
  assert.deepEqual(count.errors, []);
  assert.equal(count.next, sent);
});
