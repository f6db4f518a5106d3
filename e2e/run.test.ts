import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Arcbox, LAUNCHER, outcome, untilOutput } from './support.ts';

let arcbox: Arcbox;
before(() => {
  arcbox = new Arcbox();
});
after(() => arcbox[Symbol.asyncDispose]());

test('streams stay apart, and the exit code is the command’s own', async () => {
  const result = await arcbox.run(['run', '--rm', 'busybox', 'sh', '-c', 'echo out; echo err >&2; exit 7']);
  assert.deepEqual(result, { stdout: 'out\n', stderr: 'err\n', code: 7 });
});

test('it runs in a virtual machine: PID 1 of its own namespace, a host name of its own, our kernel', async () => {
  const { stdout } = await arcbox.run(['run', '--rm', 'busybox', 'sh', '-c', 'echo $$; hostname; uname -r']);
  const [pid, hostname, release = ''] = stdout.split('\n');
  assert.equal(pid, '1');
  assert.match(hostname ?? '', /^[0-9a-f]{12}$/);
  assert.match(release, /^6\.1\./);
});

test('its machine gives free memory back in blocks of 2 MiB', async () => {
  const order = '/sys/module/page_reporting/parameters/page_reporting_order';
  assert.equal((await arcbox.run(['run', '--rm', 'busybox', 'cat', order])).stdout, '9\n');
});

test('standard input reaches it, and its end too', async () => {
  const result = await arcbox.run(['run', '-i', '--rm', 'busybox', 'cat'], { input: 'hi\n' });
  assert.deepEqual(result, { stdout: 'hi\n', stderr: '', code: 0 });
  const none = await arcbox.run(['run', '--rm', 'busybox', 'cat'], { input: 'not passed on' });
  assert.deepEqual(none, { stdout: '', stderr: '', code: 0 });
});

test('large input and output come through whole', async () => {
  const input = Array.from({ length: 300_000 }, (_, n) => `${n}\n`).join('');
  const { stdout, code } = await arcbox.run(['run', '-i', '--rm', 'busybox', 'cat'], { input });
  assert.equal(code, 0);
  assert.equal(stdout.length, input.length);
  assert.ok(stdout === input);
});

test('memory limit, environment, working directory, host name, user', async () => {
  const limit = await arcbox.run(['run', '--rm', '-m', '64m', 'busybox', 'cat', '/sys/fs/cgroup/memory.max']);
  assert.equal(limit.stdout, '67108864\n');
  const { stdout } = await arcbox.run(
    // prettier-ignore
    [
      'run',
      '--rm',
      '-e',
      'A=1',
      '-e',
      'FROM_HERE',
      '-e',
      'NOT_SET_HERE',
      '-w',
      '/tmp',
      '-h',
      'box',
      '-u',
      '33:44',
      'busybox',
      'sh',
      '-c',
      'echo $A $FROM_HERE $NOT_SET_HERE-; pwd; hostname; cat /etc/hostname; id -u; id -g',
    ],
    { environment: { FROM_HERE: 'here' } },
  );
  assert.equal(stdout, '1 here -\n/tmp\nbox\nbox\n33\n44\n');
});

test('a place for the data that cannot be is told in one sentence', () => {
  const home = join(tmpdir(), 'x'.repeat(100));
  for (const [verb, code] of [
    ['run', 125],
    ['ps', 1],
  ] as const) {
    const { status, stderr } = spawnSync(LAUNCHER, [verb, 'busybox'], {
      env: { ...process.env, ARCBOX_HOME: home },
      encoding: 'utf8',
    });
    assert.equal(status, code, stderr);
    assert.match(stderr, /^arcbox: the path .* set ARCBOX_HOME to a shorter path\n$/);
  }
});

test('what cannot be run says why in one sentence: 125, 126, 127', async () => {
  const table: readonly [readonly string[], number, RegExp][] = [
    [['run', '--rm', '--pull=never', 'nosuch'], 125, /^arcbox: no such image: nosuch:latest .*\n$/],
    [['run', '--rm', 'BAD'], 125, /^arcbox: invalid image reference "BAD": .*\n$/],
    [['run', '--rm', '-m', 'much', 'busybox'], 125, /^arcbox: --memory: "much" is not a size .*\n$/],
    [['run', '--nosuchflag', 'busybox'], 125, /^arcbox: unknown option '--nosuchflag'/],
    [
      ['run', '--rm', 'busybox', 'nosuch'],
      127,
      /^arcbox: exec: "nosuch": executable file not found in \$PATH\n$/,
    ],
    [
      ['run', '--rm', 'busybox', '/no/such'],
      127,
      /^arcbox: exec: "\/no\/such": executable file not found\n$/,
    ],
    [['run', '--rm', 'busybox', '/etc/passwd'], 126, /^arcbox: exec: "\/etc\/passwd": .*ermission denied\n$/],
    [['run', '--rm', 'busybox', '/etc'], 126, /^arcbox: exec: "\/etc": .*\n$/],
  ];
  for (const [args, code, message] of table) {
    const result = await arcbox.run(args);
    assert.equal(result.code, code, `${args.join(' ')}: ${result.stderr}`);
    assert.match(result.stderr, message, args.join(' '));
    assert.equal(result.stdout, '');
  }
  assert.equal((await arcbox.run(['ps', '-aq'])).stdout, '', 'nothing of these stays');
});

test('a signal that ends it is 128 and its number', async () => {
  const child = arcbox.spawn([
    'run',
    '--rm',
    '--name',
    'shot',
    'busybox',
    'sh',
    '-c',
    'echo ready; sleep 1000',
  ]);
  const ended = outcome(child);
  await untilOutput(child, 'ready');
  assert.equal((await arcbox.run(['kill', '-s', 'KILL', 'shot'])).code, 0);
  assert.equal((await ended).code, 137);
});

test('PID 1 is not killed from inside', async () => {
  const { code } = await arcbox.run([
    'run',
    '--rm',
    'busybox',
    'sh',
    '-c',
    'kill -9 $$; sleep 9 & kill -9 $!; wait $!',
  ]);
  // The shell goes on, and says how its child ended.
  assert.equal(code, 137);
});

test('-t gives it a terminal', async () => {
  const { stdout, code } = await arcbox.run([
    'run',
    '--rm',
    '-t',
    'busybox',
    'sh',
    '-c',
    'tty; echo err >&2',
  ]);
  assert.equal(code, 0);
  assert.equal(stdout, '/dev/pts/0\r\nerr\r\n');
  const without = await arcbox.run(['run', '--rm', 'busybox', 'tty']);
  assert.equal(without.stdout, 'not a tty\n');
});

test('signals are passed on to the container', async () => {
  for (const [signal, code] of [
    ['SIGTERM', 3],
    ['SIGINT', 4],
  ] as const) {
    const child = arcbox.spawn([
      'run',
      '--rm',
      'busybox',
      'sh',
      '-c',
      'trap "exit 3" TERM; trap "exit 4" INT; echo ready; while :; do sleep 0.1; done',
    ]);
    const ended = outcome(child);
    await untilOutput(child, 'ready');
    // The launcher has become the command: it is one process.
    child.kill(signal);
    assert.equal((await ended).code, code, signal);
  }
});

test('detached: ps, logs, inspect, stop, wait, rm', async () => {
  const { stdout: id, code } = await arcbox.run([
    'run',
    '-d',
    '--name',
    'server',
    'busybox',
    'sh',
    '-c',
    'echo up; trap "exit 5" TERM; while :; do sleep 0.1; done',
  ]);
  assert.equal(code, 0);
  assert.match(id, /^[0-9a-f]{64}\n$/);
  assert.equal((await arcbox.run(['ps', '-q'])).stdout, `${id.slice(0, 12)}\n`);
  assert.match(
    (await arcbox.run(['ps'])).stdout,
    /CONTAINER ID .*\n[0-9a-f]{12} +busybox +"sh -c .*Up .* server\n$/,
  );
  const logs = arcbox.spawn(['logs', '-f', 'server'], { input: '' });
  const logged = outcome(logs);
  await untilOutput(logs, 'up');
  const waiting = arcbox.run(['wait', 'server']);
  const taken = await arcbox.run(['run', '--name', 'server', 'busybox']);
  assert.equal(taken.code, 125);
  assert.match(taken.stderr, /name server is in use/);
  assert.match((await arcbox.run(['rm', 'server'])).stderr, /is running; stop it first/);
  assert.equal((await arcbox.run(['stop', 'server'])).stdout, 'server\n');
  assert.equal((await waiting).stdout, '5\n');
  assert.deepEqual(await logged, { stdout: 'up\n', stderr: '', code: 0 });
  const [inspected] = JSON.parse((await arcbox.run(['inspect', id.slice(0, 6)])).stdout) as {
    State: { ExitCode: number; Status: string };
  }[];
  assert.equal(inspected?.State.ExitCode, 5);
  assert.equal(inspected?.State.Status, 'exited');
  assert.equal((await arcbox.run(['rm', 'server'])).stdout, 'server\n');
  const gone = await arcbox.run(['rm', 'server']);
  assert.deepEqual(gone, { stdout: '', stderr: 'arcbox: no such container: server\n', code: 1 });
});

test('listings are JSON when asked, and doctor says what it found', async () => {
  const images = await arcbox.run(['images', '--format', 'json']);
  const { Repository, Tag } = JSON.parse(images.stdout) as { Repository: string; Tag: string };
  assert.deepEqual([Repository, Tag], ['busybox', 'latest']);
  assert.match((await arcbox.run(['machine', 'ls'])).stdout, /default +running/);
  const doctor = await arcbox.run(['doctor']);
  assert.equal(doctor.code, 0, doctor.stdout);
  assert.match(doctor.stdout, /QEMU: QEMU emulator version/);
  assert.match(doctor.stdout, /accelerator: (tcg|kvm)/);
});
