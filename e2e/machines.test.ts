import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { HostLayout } from '@arcbox/engine';
import { Arcbox, processGone, untilAnswered } from './support.ts';

let arcbox: Arcbox;
before(() => {
  arcbox = new Arcbox({ ARCBOX_MACHINE_MEMORY: '256m' });
});
after(() => arcbox[Symbol.asyncDispose]());

const run = async (...args: string[]): Promise<string> => {
  const { stdout, stderr, code } = await arcbox.run(args);
  assert.equal(code, 0, stderr);
  return stdout;
};
const refused = async (...args: string[]): Promise<string> => {
  const { stderr, code } = await arcbox.run(args);
  assert.notEqual(code, 0);
  return stderr;
};

test('a second machine: its own size, containers of one network and the volumes of both', async () => {
  assert.equal(
    await run('machine', 'create', 'small', '--cpus', '1', '--memory', '192m', '--disk', '1g'),
    'small\n',
  );
  assert.equal(
    await run('machine', 'ls', '--format', '{{.Name}} {{.State}}'),
    'default stopped\nsmall stopped\n',
  );
  const service = 'while true; do echo hello | nc -l -p 80; done';
  await run('run', '-d', '--name', 'here', 'busybox', 'sh', '-c', service);
  await run(
    'run',
    '-d',
    '--name',
    'there',
    '--machine',
    'small',
    '-p',
    '127.0.0.1::80',
    'busybox',
    'sh',
    '-c',
    service,
  );
  assert.deepEqual(
    (await run('ps', '--format', '{{.Names}} {{.Machine}}')).split('\n').filter(Boolean).sort(),
    ['here default', 'there small'],
  );
  assert.equal(arcbox.machines().length, 2);
  const free = Number((await run('exec', 'there', 'cat', '/proc/meminfo')).match(/MemTotal: +(\d+)/)?.[1]);
  assert.ok(free < 192 * 1024 && free > 128 * 1024, `${free} kB`);
  assert.equal(
    await run('machine', 'inspect', '-f', '{{.State}} {{.Disk.Size}}', 'small'),
    `running ${1024 ** 3}\n`,
  );
  // By name, from one machine to the other and back.
  const ask = 'until nc -w 2 $0 80 </dev/null; do sleep 0.1; done';
  assert.equal(await run('exec', 'here', 'sh', '-c', ask, 'there'), 'hello\n');
  assert.equal(await run('exec', 'there', 'sh', '-c', ask, 'here'), 'hello\n');
  const [port = ''] = (await run('port', 'there', '80')).trim().split('\n');
  assert.equal(await untilAnswered(Number(port.split(':')[1]), ''), 'hello\n');
  // One machine at a time.
  await run(
    'run',
    '-d',
    '--name',
    'writer',
    '--machine',
    'small',
    '-v',
    'data:/data',
    'busybox',
    'sh',
    '-c',
    'echo kept > /data/file; sleep 1000',
  );
  await run('exec', 'writer', 'sh', '-c', 'until [ -s /data/file ]; do sleep 0.01; done');
  assert.match(
    await refused('run', '--rm', '-v', 'data:/data', 'busybox', 'true'),
    /data is in use by the container writer in the machine small/,
  );
  await run('rm', '-f', 'writer');
  assert.equal(await run('run', '--rm', '-v', 'data:/data', 'busybox', 'cat', '/data/file'), 'kept\n');
});

test('both machines outlive the daemon, and their containers with them', async () => {
  const before = arcbox.machines();
  await arcbox.crashDaemon();
  assert.deepEqual(
    (await run('ps', '--format', '{{.Names}} {{.State}}')).split('\n').filter(Boolean).sort(),
    ['here running', 'there running'],
  );
  assert.deepEqual(arcbox.machines(), before);
  const ask = 'until nc -w 2 $0 80 </dev/null; do sleep 0.1; done';
  assert.equal(await run('exec', 'here', 'sh', '-c', ask, 'there'), 'hello\n');
});

test('a machine idles by itself, and goes with everything that is its own', async () => {
  assert.match(await refused('machine', 'rm', 'small'), /runs the container there; .* use -f/);
  await run('rm', '-f', 'there');
  assert.match(await refused('machine', 'rm', 'small'), /is running; stop it first/);
  await run('machine', 'idle', 'small');
  assert.equal(arcbox.machines().length, 1);
  assert.equal(await run('exec', 'here', 'echo', 'on'), 'on\n');
  await run('run', '-d', '--name', 'there', '--machine', 'small', 'busybox', 'sleep', '1000');
  await run('machine', 'rm', '-f', 'small');
  assert.equal(arcbox.machines().length, 1);
  assert.equal(await run('ps', '-a', '--format', '{{.Names}}'), 'here\n');
  assert.equal(await run('machine', 'ls', '-q'), 'default\n');
  const layout = new HostLayout(arcbox.home);
  assert.equal(existsSync(layout.machine('small')), false);
  assert.equal(existsSync(layout.machineMemory('small')), false);
  assert.match(
    await refused('run', '--rm', '--machine', 'small', 'busybox', 'true'),
    /no such machine: small/,
  );
  await run('rm', '-f', 'here');
});

test('a daemon that dies while it makes or removes a machine leaves a true listing, and the next one finishes', async () => {
  const layout = new HostLayout(arcbox.home);
  const listed = async (): Promise<string> => run('machine', 'ls', '-q');
  const dyingAt = async (point: string, ...args: string[]): Promise<void> => {
    await arcbox.crashDaemon();
    await arcbox.run(['daemon', 'start'], { environment: { ARCBOX_FAULT_POINT: point } });
    const pid = arcbox.daemonPid;
    assert.notEqual((await arcbox.run(args)).code, 0, point);
    await processGone(pid);
  };
  await dyingAt('machine.record', 'machine', 'create', 'small');
  assert.equal(await listed(), 'default\n');
  for (const [point, left] of [
    ['machine.removing', 'default\nsmall\n'],
    ['machine.unlink', 'default\n'],
    ['machine.forget', 'default\n'],
  ] as const) {
    await arcbox.run(['machine', 'create', 'small']);
    await dyingAt(point, 'machine', 'rm', 'small');
    assert.equal(await listed(), left, point);
  }
  assert.equal(existsSync(layout.machine('small')), false);
});
