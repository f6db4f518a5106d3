import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Arcbox, outcome, untilOutput } from './support.ts';

let arcbox: Arcbox;
before(async () => {
  arcbox = new Arcbox();
  const { code, stderr } = await arcbox.run([
    ...['run', '-d', '--name', 'box', '-e', 'A=container', '--cap-drop', 'ALL', '--cap-add', 'chown'],
    ...['--security-opt', 'no-new-privileges', '--ulimit', 'nofile=100:200', 'busybox', 'sleep', '10000'],
  ]);
  assert.equal(code, 0, stderr);
});
after(async () => {
  await arcbox.run(['rm', '-f', 'box']);
  await arcbox[Symbol.asyncDispose]();
});

const sh = (script: string): string[] => ['sh', '-c', script];

test('streams stay apart, and the exit code is the command’s own', async () => {
  const result = await arcbox.run(['exec', 'box', ...sh('echo out; echo err >&2; exit 7')]);
  assert.deepEqual(result, { stdout: 'out\n', stderr: 'err\n', code: 7 });
  const killed = await arcbox.run(['exec', 'box', ...sh('kill -9 $$')]);
  assert.equal(killed.code, 137);
});

test('it is in the container: its processes, its host name, its files, its limits', async () => {
  const { stdout } = await arcbox.run([
    ...['exec', '-e', 'B=mine', '-w', '/tmp', 'box'],
    ...sh(
      'echo $A $B; pwd; cat /proc/1/cmdline | tr "\\0" " "; echo; hostname; cat /proc/self/cgroup; ulimit -n; ulimit -Hn; grep -E "^(CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status | tr "\\t" " "',
    ),
  ]);
  const [words, directory, first, hostname, ...rest] = stdout.trim().split('\n');
  assert.equal(words, 'container mine');
  assert.equal(directory, '/tmp');
  assert.equal(first?.trim(), 'sleep 10000');
  assert.match(hostname ?? '', /^[0-9a-f]{12}$/);
  assert.deepEqual(rest, [
    '0::/',
    '100',
    '200',
    'CapEff: 0000000000000001',
    'CapBnd: 0000000000000001',
    'NoNewPrivs: 1',
    'Seccomp: 2',
  ]);
});

test('standard input reaches it and ends; without -i there is none', async () => {
  const input = Array.from({ length: 100_000 }, (_, n) => `${n}\n`).join('');
  const { stdout, code } = await arcbox.run(['exec', '-i', 'box', 'cat'], { input });
  assert.equal(code, 0);
  assert.ok(stdout === input, `${stdout.length} of ${input.length} characters`);
  const none = await arcbox.run(['exec', 'box', 'cat'], { input: 'not passed on' });
  assert.deepEqual(none, { stdout: '', stderr: '', code: 0 });
});

test('another user, by name and number, and every capability when privileged', async () => {
  const user = await arcbox.run(['exec', '-u', '33:44', 'box', ...sh('id -u; id -g')]);
  assert.equal(user.stdout, '33\n44\n');
  const nobody = await arcbox.run(['exec', '-u', 'nosuch', 'box', 'id']);
  assert.equal(nobody.code, 1);
  assert.match(nobody.stderr, /unable to find user nosuch/);
  const privileged = await arcbox.run([
    ...['exec', '--privileged', 'box'],
    ...sh('grep -E "^(CapEff|Seccomp):" /proc/self/status | tr "\\t" " "'),
  ]);
  assert.match(privileged.stdout, /^CapEff: 000001ffffffffff\nSeccomp: 0\n$/);
});

test('what cannot be run says why: 126, 127, and 1 for what is not there', async () => {
  const table: readonly [readonly string[], number, RegExp][] = [
    [['exec', 'box', 'nosuch'], 127, /^arcbox: exec: "nosuch": executable file not found in \$PATH\n$/],
    [['exec', 'box', '/no/such'], 127, /^arcbox: exec: "\/no\/such": executable file not found\n$/],
    [['exec', 'box', '/etc/passwd'], 126, /^arcbox: exec: "\/etc\/passwd": .*denied\n$/],
    [['exec', '-w', '/nosuch', 'box', 'true'], 126, /chdir \/nosuch/],
    [['exec', 'nosuch', 'true'], 1, /^arcbox: no such container: nosuch\n$/],
    [['exec', '--nosuchflag', 'box', 'true'], 125, /unknown option/],
  ];
  for (const [args, code, message] of table) {
    const result = await arcbox.run(args);
    assert.match(result.stderr, message, args.join(' '));
    assert.equal(result.code, code, `${args.join(' ')}: ${result.stderr}`);
  }
});

test('-t gives it a terminal, -d leaves it running, what it leaves behind goes on', async () => {
  const tty = await arcbox.run(['exec', '-t', 'box', ...sh('tty; echo err >&2')]);
  assert.deepEqual(tty, { stdout: '/dev/pts/0\r\nerr\r\n', stderr: '', code: 0 });
  const detached = await arcbox.run(['exec', '-d', 'box', ...sh('mkfifo /tmp/f; echo done > /tmp/f')]);
  assert.deepEqual(detached, { stdout: '', stderr: '', code: 0 });
  const left = await arcbox.run([
    'exec',
    'box',
    ...sh('until [ -p /tmp/f ]; do :; done; cat /tmp/f; sleep 4321 & echo left'),
  ]);
  assert.equal(left.stdout, 'done\nleft\n');
  const { stdout } = await arcbox.run(['top', 'box', '-o', 'pid,args']);
  assert.match(stdout, /^PID +COMMAND\n.*sleep 10000\n.*sleep 4321\n$/);
});

test('a daemon that is killed takes the command with it, and says so', async () => {
  const child = arcbox.spawn(['exec', 'box', ...sh('echo ready; exec sleep 8765')], { input: '' });
  const ended = outcome(child);
  await untilOutput(child, 'ready');
  await arcbox.crashDaemon();
  const { code, stderr } = await ended;
  assert.equal(code, 1);
  assert.match(stderr, /the daemon has gone while the command ran, and the command with it/);
  const { stdout } = await arcbox.run(['top', 'box', '-o', 'args']);
  assert.doesNotMatch(stdout, /8765/);
  assert.match(stdout, /sleep 10000/);
});
