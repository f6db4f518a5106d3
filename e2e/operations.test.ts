import assert from 'node:assert/strict';
import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { Arcbox, outcome, untilOutput } from './support.ts';

let arcbox: Arcbox;
before(() => {
  arcbox = new Arcbox();
});
after(() => arcbox[Symbol.asyncDispose]());

const run = async (...args: string[]): Promise<string> => {
  const { stdout, stderr, code } = await arcbox.run(args);
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
  return stdout;
};
/** What Prometheus is told. */
async function metrics(): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const socketPath = join(arcbox.home, 'run', 'arcbox.sock');
  request({ socketPath, path: '/metrics', agent: false }, resolve).on('error', reject).end();
  return text(await promise);
}
const state = (name: string): Promise<string> => run('inspect', '-f', '{{.State.Status}}', name);

test('pause makes it stand still, unpause lets it go on, stop works on a paused one', async () => {
  await run(
    'run',
    '-d',
    '--name',
    'beat',
    'busybox',
    'sh',
    '-c',
    'trap "exit 4" TERM; while :; do echo x; sleep 0.01; done',
  );
  await run('pause', 'beat');
  // The agent's answer comes behind the output that it had read when the container stood still.
  await run('top', 'beat');
  assert.equal(await state('beat'), 'paused\n');
  assert.match(await run('ps'), /Up .* \(Paused\)/);
  const standing = (await run('logs', 'beat')).length;
  const refused = await arcbox.run(['exec', 'beat', 'true']);
  assert.match(refused.stderr, /is paused; unpause it first/);
  assert.match((await arcbox.run(['pause', 'beat'])).stderr, /is paused and cannot be paused/);
  // A daemon that comes back finds it as it was.
  await arcbox.crashDaemon();
  assert.equal(await state('beat'), 'paused\n');
  assert.equal((await run('logs', 'beat')).length, standing);
  await run('unpause', 'beat');
  const following = arcbox.spawn(['logs', '-f', 'beat'], { input: '' });
  const followed = outcome(following);
  await untilOutput(following, 'x\n'.repeat(standing / 2 + 3));
  await run('pause', 'beat');
  await run('stop', 'beat');
  assert.equal((await followed).code, 0);
  assert.equal(await run('inspect', '-f', '{{.State.ExitCode}}', 'beat'), '4\n');
  await run('rm', 'beat');
});

test('rename, restart, update, wait', async () => {
  const id = (await run('run', '-d', '--name', 'first', 'busybox', 'sleep', '10000')).trim();
  await run('rename', 'first', 'second');
  assert.equal(await run('ps', '--format', '{{.Names}} {{.ID}}'), `second ${id.slice(0, 12)}\n`);
  assert.match((await arcbox.run(['rename', 'second', 'second'])).stderr, /is in use/);
  const before = await run('inspect', '-f', '{{.State.Pid}}', 'second');
  const nextExit = outcome(await arcbox.spawnWaiting(['wait', '--condition', 'next-exit', 'second']));
  await run('restart', '-t', '0', 'second');
  assert.equal((await nextExit).stdout, '137\n');
  assert.notEqual(await run('inspect', '-f', '{{.State.Pid}}', 'second'), before);
  await run('update', '-m', '32m', '--cpus', '0.25', '--pids-limit', '9', 'second');
  const script = 'cd /sys/fs/cgroup; cat memory.max cpu.max pids.max';
  assert.equal(await run('exec', 'second', 'sh', '-c', script), '33554432\n25000 100000\n9\n');
  assert.equal(await run('inspect', '-f', '{{.HostConfig.NanoCpus}}', 'second'), '250000000\n');
  assert.match((await arcbox.run(['update', '-m', '1k', 'second'])).stderr, /below the least/);
  await run('update', '--restart', 'on-failure:3', 'second');
  const policy = await run('inspect', '-f', '{{json .HostConfig.RestartPolicy}}', 'second');
  assert.deepEqual(JSON.parse(policy), { Name: 'on-failure', MaximumRetryCount: 3 });
  await run('update', '--restart', 'no', 'second');
  await run('restart', '-t', '0', 'second');
  assert.equal(await run('exec', 'second', 'sh', '-c', script), '33554432\n25000 100000\n9\n', 'limits stay');
  const removed = outcome(await arcbox.spawnWaiting(['wait', '--condition', 'removed', 'second']));
  await run('rm', '-f', 'second');
  assert.equal((await removed).stdout, '137\n');
});

test('create, start with input and output, and its exit code', async () => {
  await run('create', '-i', '--name', 'upper', 'busybox', 'sh', '-c', 'tr a-z A-Z; exit 9');
  for (let time = 0; time < 2; time += 1) {
    const started = await arcbox.run(['start', '-a', '-i', 'upper'], { input: 'hello\n' });
    assert.deepEqual(started, { stdout: 'HELLO\n', stderr: '', code: 9 });
  }
  assert.equal(await run('start', 'upper'), 'upper\n');
  await run('rm', '-f', 'upper');
});

test('attach: its output from now on, its signals, its exit code; input that does not end it', async () => {
  await run(
    'run',
    '-d',
    '-i',
    '--name',
    'echo',
    'busybox',
    'sh',
    '-c',
    'trap "exit 6" TERM; echo up; while read line; do echo "got $line"; done; echo over',
  );
  const one = arcbox.spawn(['attach', 'echo']);
  one.stdin?.write('one\n');
  await untilOutput(one, 'got one');
  one.stdin?.end('two\n');
  await untilOutput(one, 'got two');
  const silent = arcbox.spawn(['attach', '--no-stdin', 'echo']);
  const watched = outcome(silent);
  const ended = outcome(one);
  // Whoever attaches hears what is said from then on.
  const heard = untilOutput(silent, 'got');
  for (let listening = false; !listening; ) {
    const four = arcbox.spawn(['attach', 'echo'], { input: 'four\n' });
    listening = await Promise.race([heard.then(() => true), untilOutput(four, 'got four').then(() => false)]);
    four.kill('SIGKILL');
  }
  const three = arcbox.spawn(['attach', 'echo']);
  three.stdin?.write('three\n');
  await untilOutput(three, 'got three');
  const last = outcome(three);
  three.kill('SIGTERM');
  assert.deepEqual(await last, { stdout: '', stderr: '', code: 6 });
  assert.equal((await ended).code, 6);
  assert.equal((await watched).code, 6);
  assert.match((await arcbox.run(['attach', 'echo'])).stderr, /is exited; start it with -a/);
  await run('rm', 'echo');
});

test('top, stats, ps and their formats', async () => {
  await run('run', '-d', '--name', 'busy', '-l', 'tier=front', 'busybox', 'sh', '-c', 'while :; do :; done');
  assert.match(
    await run('top', 'busy'),
    /^UID +PID +PPID +C +STIME +TTY +TIME +CMD\nroot +\d+ +1 .* sh -c while/,
  );
  const [cpu = '', memory = ''] = (
    await run('stats', '--no-stream', '--format', '{{.CPUPerc}} {{.MemUsage}}', 'busy')
  ).split(' ');
  assert.ok(Number.parseFloat(cpu) > 20, `a loop uses ${cpu} of a CPU`);
  assert.match(memory, /^[\d.]+[KM]iB$/);
  // What goes from one container to another counts for both.
  const address = await run('inspect', '-f', '{{.NetworkSettings.IPAddress}}', 'busy');
  await run('run', '--rm', 'busybox', 'ping', '-c', '2', '-s', '50000', address.trim());
  const traffic = await run('stats', '--no-stream', '--format', '{{.NetIO}}', 'busy');
  assert.match(traffic, /^10\d(\.\d)?kB \/ 10\d(\.\d)?kB$/m);
  const page = await metrics();
  const figure = (series: string): number =>
    Number(new RegExp(`^arcbox_${series} (\\S+)$`, 'm').exec(page)?.[1]);
  const busy = '\\{id="[0-9a-f]{64}",name="busy"\\}';
  assert.ok(figure(`container_cpu_seconds_total${busy}`) > 0, page);
  assert.ok(figure(`container_memory_bytes${busy}`) > 50_000, page);
  assert.equal(figure(`container_processes${busy}`), 1);
  for (const direction of ['receive', 'transmit'])
    assert.ok(figure(`container_network_${direction}_bytes_total${busy}`) > 100_000, page);
  for (const kind of ['vmm', 'guest'])
    assert.ok(figure(`machine_memory_bytes\\{machine="default",kind="${kind}"\\}`) > 2 ** 20, page);
  assert.equal(await run('ps', '-q', '-f', 'label=tier=front'), await run('ps', '-q', '-l'));
  assert.equal(
    await run('ps', '-f', 'label=tier=back'),
    'CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n',
  );
  const row = JSON.parse(await run('ps', '--format', 'json')) as { Names: string; Labels: string };
  assert.equal(row.Names, 'busy');
  assert.match(row.Labels, /(^|,)tier=front(,|$)/);
  assert.match(
    await run('ps', '--format', 'table {{.Names}}\\t{{.Label "tier"}}'),
    /^NAMES +tier\nbusy +front\n$/,
  );
  assert.match((await run('ps', '--no-trunc', '-q')).trim(), /^[0-9a-f]{64}$/);
  const { stdout: own } = await arcbox.run(['version', '--format', '{{.Client.Version}}']);
  assert.equal(await run('version', '--format', '{{.Server.Version}}'), own);
  assert.equal(await run('info', '--format', '{{.ContainersRunning}} {{.ServerVersion}}'), `1 ${own}`);
  assert.match(await run('system', 'df', '--format', '{{.Type}}: {{.TotalCount}}'), /^Containers: 1$/m);
  assert.match(await run('doctor', '--format', '{{.Name}} {{.Status}}'), /^.+ (ok|warn|fail)$/m);
  assert.match(
    await run(
      'events',
      '--since',
      '0',
      '--until',
      '0s',
      '--format',
      '{{.Action}} {{.Actor.Attributes.name}}',
    ),
    /^start busy$/m,
  );
  assert.equal(await run('port', 'busy'), '');
  assert.match((await arcbox.run(['port', 'busy', '80'])).stderr, /no public port '80\/tcp'/);
  await run('rm', '-f', 'busy');
  assert.match((await arcbox.run(['top', 'busy'])).stderr, /no such container/);
});
