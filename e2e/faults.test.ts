/**
 * The daemon is killed right before each side effect of creating, starting, ending, stopping, pausing, removing and
 * committing a container, of making, joining, leaving and removing a network, and of getting an image. What the next
 * daemon says is true, what was acknowledged is there, and at the end nothing is left in the machine.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { dockerArchive, testImage } from '../packages/image/test/support/archives.ts';
import { DockerRegistry } from '../packages/image/test/support/registry.ts';
import { Arcbox, backOff, freePorts, type Outcome, processGone, untilAnswered } from './support.ts';

let arcbox: Arcbox;
let baseline = '';
before(async () => {
  arcbox = new Arcbox();
  await run('run', '--rm', 'busybox', 'true');
  // The kernel takes a container's card away behind the answer.
  for (let last: string | undefined; last !== baseline; ) {
    last = baseline;
    baseline = await inventory();
  }
});
after(() => arcbox[Symbol.asyncDispose]());

async function run(...args: string[]): Promise<string> {
  const { stdout, stderr, code } = await arcbox.run(args);
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
  return stdout;
}
const state = (name: string): Promise<string> =>
  run('ps', '-a', '--filter', `name=^${name}$`, '--format', '{{.State}}').then((text) => text.trim());

/** What containers have in the machine: seen by one that is in the machine's process namespace. */
async function inventory(): Promise<string> {
  const script =
    'cd /proc/1/root; for d in run/c run/crun m/c run/shm sys/fs/cgroup/arcbox; do echo $d $(ls -d $d/*/ 2>/dev/null | wc -l); done; echo mounts $(wc -l < /proc/1/mounts); echo links $(ls sys/class/net run/n | wc -l)';
  return run('run', '--rm', '--privileged', '--pid', 'host', 'busybox', 'sh', '-c', script);
}

/** A command under a daemon that dies at `point`; the command's own start of the next one has no such point. */
async function dyingAt(point: string, ...args: string[]): Promise<Outcome> {
  await arcbox.crashDaemon();
  assert.equal(
    (await arcbox.run(['daemon', 'start'], { environment: { ARCBOX_FAULT_POINT: point } })).code,
    0,
  );
  const pid = arcbox.daemonPid;
  const outcome = await arcbox.run(args);
  // It may die behind the answer; a point that it never comes to ends the test by its time limit.
  await processGone(pid);
  return outcome;
}

const TIDY_MS_MAX = 10_000;

/** A daemon that has just come up tidies its store behind the first answers. */
async function inTheEnd(holds: () => void): Promise<void> {
  const endMs = performance.now() + TIDY_MS_MAX;
  await backOff(() => {
    try {
      holds();
      return true;
    } catch {
      return performance.now() > endMs;
    }
  });
  holds();
}

/** Removals go on behind the answer; in the end nothing is left. */
async function nothingLeft(): Promise<void> {
  assert.equal(await run('ps', '-aq'), '');
  let found = '';
  for (let attempt = 0; attempt < 20; attempt += 1) {
    found = await inventory();
    if (found === baseline) return;
  }
  assert.equal(found, baseline);
}

test('create and start: the command goes on with the next daemon, and there is one container', async () => {
  const points = [
    'create.record',
    'create.recorded',
    'start.record',
    'start.log',
    'start.mount',
    'start.spawn',
    'start.running',
  ];
  for (const point of points) {
    const { code, stderr } = await dyingAt(point, 'run', '-d', '--name', 'one', 'busybox', 'sleep', '10000');
    assert.equal(code, 0, `${point}: ${stderr}`);
    assert.equal(await run('ps', '-a', '--format', '{{.Names}} {{.State}}'), 'one running\n', point);
    assert.match(await run('exec', 'one', 'ip', '-o', '-4', 'addr'), / eth0 +inet /, point);
    await run('rm', '-f', 'one');
  }
  await nothingLeft();
});

test('the end of a container is not lost', async () => {
  for (const point of ['exit.log', 'exit.record', 'exit.clean']) {
    await arcbox.crashDaemon();
    await run(
      'run',
      '-d',
      '-i',
      '--name',
      'ending',
      'busybox',
      'sh',
      '-c',
      'echo said; read line; echo last; exit 7',
    );
    // What it says is not on its way any more when it is killed.
    while ((await run('logs', 'ending')) !== 'said\n');
    await dyingAt(point, 'kill', '-s', 'KILL', 'ending');
    assert.equal(await run('wait', 'ending'), '137\n', point);
    assert.equal(await state('ending'), 'exited', point);
    assert.equal(await run('logs', 'ending'), 'said\n', point);
    await run('rm', 'ending');
  }
  await nothingLeft();
});

test('stop, pause and unpause: asked again they do what they say, and what is listed is so', async () => {
  await run('run', '-d', '--name', 'one', 'busybox', 'sh', '-c', 'while :; do echo x; sleep 0.02; done');
  for (const point of ['pause.record', 'unpause.record']) {
    if (point.startsWith('un')) await run('pause', 'one');
    await dyingAt(point, point.split('.')[0] ?? '', 'one');
    const listed = await state('one');
    assert.equal(listed, point === 'pause.record' ? 'running' : 'paused', point);
    const before = (await run('logs', 'one')).length;
    if (listed === 'running') await run('exec', 'one', 'sleep', '0.1');
    assert.equal(
      (await run('logs', 'one')).length > before,
      listed === 'running',
      `${point}: it is as it is listed`,
    );
    if (listed === 'paused') await run('unpause', 'one');
  }
  await dyingAt('stop.signal', 'stop', '-t', '1', 'one');
  assert.equal(await state('one'), 'running');
  await dyingAt('stop.kill', 'stop', '-t', '0', 'one');
  assert.equal(await state('one'), 'running');
  await run('stop', '-t', '0', 'one');
  assert.equal(await state('one'), 'exited');
  await run('rm', 'one');
  await nothingLeft();
});

test('remove: it is there as before, or on its way out', async () => {
  for (const point of ['remove.record', 'remove.files', 'remove.forget', 'remove.disk']) {
    const id = (await run('run', '-d', '--name', 'one', 'busybox', 'sh', '-c', 'echo x > /file')).trim();
    await run('wait', 'one');
    await dyingAt(point, 'rm', 'one');
    const listed = await state('one');
    if (point === 'remove.record') assert.equal(listed, 'exited', point);
    await arcbox.run(['rm', 'one']);
    assert.equal(existsSync(join(arcbox.home, 'containers', id)), false, point);
  }
  await nothingLeft();
});

test('networks: a container has its address and its port, and the machine has links for what is listed', async () => {
  const networks = (): Promise<string> =>
    run('network', 'ls', '--filter', 'name=own', '--format', '{{.Name}}');
  await dyingAt('network.create', 'network', 'create', 'own');
  await run('network', 'create', 'own');
  const port = await freePorts(1);
  const inside = (): Promise<string> => run('exec', 'one', 'ip', '-o', '-4', 'addr');
  const points = ['bridge', 'namespace', 'join', 'bind'];
  const server = ['busybox', 'sh', '-c', 'while :; do echo here | nc -l -p 80; done'];
  for (const point of points) {
    const args = ['-d', '--name', 'one', '--network', 'own', '-p', `127.0.0.1:${port}:80`, ...server];
    const { code, stderr } = await dyingAt(`network.${point}`, 'run', ...args);
    assert.equal(code, 0, `${point}: ${stderr}`);
    assert.equal(await untilAnswered(port, ''), 'here\n', point);
    if (point !== points.at(-1)) await run('rm', '-f', 'one');
  }
  await dyingAt('network.leave', 'kill', 'one');
  await run('wait', 'one');
  // Nobody has the port any more.
  const again = createServer().listen(port, '127.0.0.1');
  await once(again, 'listening');
  await new Promise((resolve) => again.close(resolve));
  await run('rm', 'one');

  await run('run', '-d', '--name', 'one', 'busybox', 'sleep', '10000');
  for (const point of ['cable', 'uncable', 'part']) {
    const verb = point === 'cable' ? 'connect' : 'disconnect';
    await dyingAt(`network.${point}`, 'network', verb, 'own', 'one');
    assert.match(
      await run('network', 'inspect', 'own'),
      /"one"/,
      `${point}: it is in it, as before or as asked`,
    );
    assert.match(await inside(), / eth1 +inet /, `${point}: and so is the machine`);
  }
  await run('rm', '-f', 'one');
  await dyingAt('network.unbridge', 'network', 'rm', 'own');
  assert.equal(await networks(), '');
  // The next one of that name has another subnet, and nothing of the one before.
  await run('network', 'create', '--subnet', '10.77.0.0/24', 'own');
  assert.match(await run('run', '--rm', '--network', 'own', 'busybox', 'ip', 'route'), /via 10\.77\.0\.1/);
  await run('network', 'rm', 'own');
  await nothingLeft();
});

test('commit: no image or a whole one, and the container goes on', async () => {
  await run('run', '-d', '--name', 'one', 'busybox', 'sh', '-c', 'echo x > /file; exec sleep 10000');
  await run('exec', 'one', 'sh', '-c', 'until [ -s /file ]; do :; done');
  for (const point of [
    'container.commit',
    'image.create.commit',
    'image.commit.tables',
    'image.commit.sync',
  ]) {
    const { code } = await dyingAt(point, 'commit', 'one', 'made:1');
    assert.notEqual(code, 0, point);
    assert.equal(await state('one'), 'running', point);
    assert.equal(await run('exec', 'one', 'cat', '/file'), 'x\n', `${point}: it does not stand still`);
    const listed = (await run('images')).includes('made');
    if (listed) assert.equal(await run('run', '--rm', 'made:1', 'cat', '/file'), 'x\n', point);
  }
  await run('commit', 'one', 'made:1');
  assert.equal(await run('run', '--rm', 'made:1', 'cat', '/file'), 'x\n');
  await run('rm', '-f', 'one');
});

test('pull and load: no image or a whole one, nothing half in the store, and asked again it is there', async () => {
  await using registry = await DockerRegistry.start();
  const name = `${registry.host}/app:1`;
  const file = join(arcbox.home, 'image.tar');
  const image = testImage([[{ name: 'a', data: 'x'.repeat(200_000) }], [{ name: 'b' }]]);
  writeFileSync(file, dockerArchive(image, [name]));
  const stored = (): string[][] =>
    ['tmp', 'sha256', 'layers'].map((part) => readdirSync(join(arcbox.home, 'content', part)).sort());
  const empty = stored();
  await run('load', '-i', file);
  const whole = stored();
  await run('push', name);
  await run('rmi', name);
  assert.deepEqual(stored(), empty);
  for (const point of [
    'image.pull.download',
    'image.pull.extract',
    'image.pull.commit',
    'image.commit.layer',
    'image.load.ingest',
    'image.load.commit',
  ]) {
    const ask = point.startsWith('image.load') ? ['load', '-i', file] : ['pull', name];
    const { code } = await dyingAt(point, ...ask);
    assert.notEqual(code, 0, point);
    assert.doesNotMatch(await run('images'), /app/, point);
    await inTheEnd(() => assert.deepEqual(stored(), empty, `${point}: nothing of it is left`));
    await run(...ask);
    assert.deepEqual(stored()[2], whole[2], point);
    await run('rmi', name);
  }
});
