import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Arcbox, killed, untilOutput } from './support.ts';

let arcbox: Arcbox;
before(() => {
  arcbox = new Arcbox();
});
after(() => arcbox[Symbol.asyncDispose]());

const run = async (...args: string[]): Promise<string> => {
  const { stdout, stderr, code } = await arcbox.run(args);
  assert.equal(code, 0, stderr);
  return stdout;
};
const inspect = async (
  name: string,
): Promise<{
  State: { Status: string; Health?: { Status: string; Log: { ExitCode: number; Output: string }[] } };
  RestartCount: number;
}> => JSON.parse(await run('inspect', name))[0];

test('a health check is run in the container; its verdict is in ps, inspect and events', async () => {
  const follower = arcbox.spawn([
    'events',
    '--since',
    '0',
    '--filter',
    'event=health_status',
    '--filter',
    'container=sick',
  ]);
  const health = [
    '--health-cmd',
    'test -e /ok || { echo not yet; false; }',
    '--health-interval',
    '200ms',
    '--health-retries',
    '2',
  ];
  await run('run', '-d', '--name', 'sick', ...health, 'busybox', 'sleep', '1000');
  await untilOutput(follower, 'health_status: unhealthy');
  const { State } = await inspect('sick');
  assert.equal(State.Health?.Status, 'unhealthy');
  assert.deepEqual(State.Health?.Log.at(-1)?.Output, 'not yet\n');
  assert.match(await run('ps'), /Up .* \(unhealthy\)/);
  await run('exec', 'sick', 'touch', '/ok');
  await untilOutput(follower, 'health_status: healthy');
  assert.match(await run('ps'), /Up .* \(healthy\)/);
  await killed(follower);
  await run('rm', '-f', 'sick');
});

test('a check that takes too long is ended and has failed', async () => {
  const follower = arcbox.spawn([
    'events',
    '--since',
    '0',
    '--filter',
    'event=health_status',
    '--filter',
    'container=slow',
  ]);
  const health = [
    '--health-cmd',
    'sleep 1000',
    '--health-interval',
    '100ms',
    '--health-timeout',
    '300ms',
    '--health-retries',
    '1',
  ];
  await run('run', '-d', '--name', 'slow', ...health, 'busybox', 'sleep', '1000');
  await untilOutput(follower, 'health_status: unhealthy');
  const { State } = await inspect('slow');
  assert.equal(State.Health?.Log[0]?.ExitCode, -1);
  assert.match(State.Health?.Log[0]?.Output ?? '', /exceeded timeout \(0\.3s\)/);
  await killed(follower);
  await run('rm', '-f', 'slow');
});

/** Resolves when so many events of that kind have happened, over all daemons. */
async function happened(count: number, ...filters: string[]): Promise<void> {
  const follower = arcbox.spawn([
    'events',
    '--since',
    '0',
    ...filters.flatMap((filter) => ['--filter', filter]),
  ]);
  let lines = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  follower.stdout?.on('data', (data: Buffer) => {
    lines += data.toString().split('\n').length - 1;
    if (lines >= count) resolve();
  });
  await promise;
  await killed(follower);
}

test('a restart policy holds over the end of the machine and of the daemon', async () => {
  const started = (count: number): Promise<void> => happened(count, 'event=start', 'container=again');
  await run(
    'run',
    '-d',
    '--restart',
    'always',
    '--name',
    'again',
    'busybox',
    'sh',
    '-c',
    'trap "exit 1" TERM; echo here; while :; do sleep 0.1; done',
  );
  const [machine = 0] = arcbox.machines();
  while ((await run('logs', 'again')) !== 'here\n');
  assert.ok(machine > 1);
  process.kill(machine, 'SIGKILL');
  await started(2);
  assert.equal((await inspect('again')).RestartCount, 1);
  await run('daemon', 'stop');
  await started(3);
  // Its output is in the log before its event is seen.
  while ((await run('logs', 'again')) !== 'here\n'.repeat(3));
  await run('stop', '-t', '0', 'again');
  assert.equal((await inspect('again')).State.Status, 'exited');
  await run('rm', 'again');
});

test('logs: the last lines, with times, as JSON; exact bytes again', async () => {
  const script = 'printf "one\\ntwo\\n"; sleep 0.3; printf "err\\n" >&2; sleep 0.3; printf "thr\\377ee"';
  await run(
    'run',
    '--name',
    'talk',
    '--log-opt',
    'max-size=1m',
    '--log-opt',
    'max-file=3',
    'busybox',
    'sh',
    '-c',
    script,
  );
  const tail = await arcbox.run(['logs', '--tail', '2', 'talk']);
  assert.equal(tail.stderr, 'err\n');
  assert.match(
    (await arcbox.run(['logs', '-t', '--tail', '4', 'talk'])).stdout,
    /^20\S+Z one\n20\S+Z two\n20\S+Z thr/,
  );
  const lines = (await run('logs', '--format', 'json', 'talk')).trimEnd().split('\n');
  const entries = lines.map(
    (line) => JSON.parse(line) as { stream: string; offset: number; text?: string; base64?: string },
  );
  const out = entries.filter(({ stream }) => stream === 'stdout');
  assert.deepEqual(
    out.slice(0, 2).map(({ text, offset }) => [text, offset]),
    [
      ['one\n', 0],
      ['two\n', 4],
    ],
  );
  const bytes = Buffer.concat(
    out.map(({ text, base64 }) =>
      text === undefined ? Buffer.from(base64 ?? '', 'base64') : Buffer.from(text),
    ),
  );
  assert.deepEqual(bytes, Buffer.from('one\ntwo\nthr\xffee', 'latin1'));
  assert.equal(await run('logs', '--since', '1h', '--until', '30m', 'talk'), '');
  await run('rm', 'talk');
});
