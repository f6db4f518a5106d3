import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { AgentCallError, AgentOpError, errnoName, Status } from '@arcbox/protocol';
import { eventually } from './support/eventually.ts';
import { HostAgent } from './support/host-agent.ts';
import { freshId, Gathered, run, shell } from './support/run.ts';
import { test } from './support/test.ts';

test('every exit status is exact', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  for (let first = 0; first < 256; first += 64) {
    const codes = Array.from({ length: 64 }, (_, index) => first + index);
    const spawns = codes.map((code) => shell(`exit ${code}`));
    await client.batch(spawns);
    const ends = await Promise.all(spawns.map(({ value }) => client.wait(value.id ?? '')));
    assert.deepEqual(
      ends.map(({ signaled, code }) => [signaled, code]),
      codes.map((code) => [false, code]),
    );
    await client.batch(spawns.map(({ value }) => ({ case: 'release', value: { id: value.id ?? '' } })));
  }
});

test('every signal that ends a process is exact', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const harmless = new Set([17, 18, 19, 20, 21, 22, 23, 28, 32, 33]);
  const signals = Array.from({ length: 64 }, (_, index) => index + 1).filter(
    (signal) => !harmless.has(signal),
  );
  const spawns = signals.map(() => shell('ulimit -c 0; exec sleep 1000'));
  await client.batch(spawns);
  await eventually(async () => {
    // Before it has become `sleep` the shell handles some of them in its own way.
    for (const child of agent.children())
      assert.match(readFileSync(`/proc/${child}/cmdline`, 'utf8'), /^sleep/);
  });
  await client.batch(
    spawns.map(({ value }, index) => ({
      case: 'signal',
      value: { id: value.id ?? '', signal: signals[index] ?? 0 },
    })),
  );
  const ends = await Promise.all(spawns.map(({ value }) => client.wait(value.id ?? '')));
  assert.deepEqual(
    ends.map(({ signaled, code }) => [signaled, code]),
    signals.map((signal) => [true, signal]),
  );
  const again = client.batch([{ case: 'signal', value: { id: spawns[0]?.value.id ?? '', signal: 9 } }]);
  await assert.rejects(again, (error) => error instanceof AgentOpError && error.errnoName === 'ESRCH');
  await client.batch(spawns.map(({ value }) => ({ case: 'release', value: { id: value.id ?? '' } })));
});

test('a process has what it was given and nothing else', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const env = ['A=1', 'B=two words', 'PATH=/bin:/usr/bin'];
  const script =
    'pwd; id -u; id -g; id -G; echo "$A $B"; env | wc -l; ls /proc/self/fd | wc -l; cat /proc/self/status';
  const { output, code } = await run(
    client,
    shell(script, { cwd: '/usr', uid: 1001, gid: 1002, groups: [1002, 1003, 1004], env }),
  );
  assert.equal(code, 0);
  const lines = output.split('\n');
  assert.deepEqual(lines.slice(0, 5), ['/usr', '1001', '1002', '1002 1003 1004', '1 two words']);
  assert.ok(Number(lines[5]) <= 5, output);
  assert.equal(lines[6], '4', 'three descriptors, and the one of ls');
  const status = Object.fromEntries(lines.slice(7).map((line) => line.split(':\t')));
  assert.match(status.SigBlk ?? '', /^0+$/);
  assert.match(status.SigIgn ?? '', /^0+$/);
  assert.match(status.CapEff ?? '', /^0+$/);
});

test('what cannot be started says why, and leaves nothing', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const attempts: [Parameters<typeof shell>[1], string][] = [
    [{ argv: ['/no/such/program'] }, 'ENOENT'],
    [{ argv: ['no-such-program'], env: ['PATH=/bin'] }, 'ENOENT'],
    [{ argv: ['/etc/passwd'] }, 'EACCES'],
    [{ argv: [] }, 'EINVAL'],
    [{ cwd: '/no/such/directory' }, 'ENOENT'],
    [{ id: '' }, 'EINVAL'],
    [{ id: 'x'.repeat(65) }, 'EINVAL'],
    [{ consoleSocket: '/tmp/x' }, 'EINVAL'],
  ];
  for (const [more, expected] of attempts) {
    const error = await client.batch([shell('true', more)]).catch((error: unknown) => error);
    const seen = error instanceof AgentOpError ? errnoName(error.errno) : `${error}`;
    assert.equal(seen, expected, JSON.stringify(more));
  }
  const id = freshId();
  await client.batch([shell('sleep 1000', { id })]);
  await assert.rejects(client.batch([shell('true', { id })]), { errnoName: 'EEXIST' });
  await client.batch([{ case: 'release', value: { id } }]);
  await assert.rejects(
    client.wait(id),
    (error) => error instanceof AgentCallError && error.status === Status.notFound,
  );
  await assert.rejects(client.batch([{ case: 'release', value: { id } }]), { errnoName: 'ENOENT' });
  await client.batch([{ case: 'release', value: { id, missingOk: true } }]);
});

test('standard input: none, empty, and half-closed', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  assert.deepEqual(await run(client, shell('cat; readlink /proc/self/fd/0')), {
    signaled: false,
    code: 0,
    error: '',
    output: '/dev/null\n',
  });
  assert.equal((await run(client, shell('cat; echo end', { stdin: true }), Buffer.alloc(0))).output, 'end\n');
  // The input ends and the output goes on.
  const { output } = await run(
    client,
    shell('cat; sleep 0.05; echo after', { stdin: true }),
    Buffer.from('in\n'),
  );
  assert.equal(output, 'in\nafter\n');
});

test('a process that does not read its input, or closes it, can be waited for', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  for (const script of ['exec sleep 0.1', 'exec <&-; sleep 0.1']) {
    const spawn = shell(script, { stdin: true });
    const id = spawn.value.id ?? '';
    await client.batch([spawn]);
    const gathered = await Gathered.attach(client, id);
    const write = gathered.attachment.write(Buffer.alloc(4 << 20)).catch(() => {});
    assert.equal((await client.wait(id)).code, 0);
    await gathered.attachment.closed;
    await write;
    await client.batch([{ case: 'release', value: { id } }]);
  }
});

test('output that was left by a process is delivered after its end', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const spawn = shell('echo out; echo err >&2; exit 3');
  const id = spawn.value.id ?? '';
  await client.batch([spawn]);
  assert.equal((await client.wait(id)).code, 3);
  const gathered = await Gathered.attach(client, id);
  await gathered.attachment.closed;
  assert.deepEqual([gathered.output, gathered.error, gathered.ended], ['out\n', 'err\n', [true, true]]);
  assert.equal((await client.wait(id)).code, 3, 'it can be asked again');
  await client.batch([{ case: 'release', value: { id } }]);
});

test('the end of a process is told while its descendant holds its output', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const spawn = shell('sleep 1000 & echo $!');
  const id = spawn.value.id ?? '';
  await client.batch([spawn]);
  assert.equal((await client.wait(id, { timeoutMs: 60_000 })).code, 0);
  const gathered = await Gathered.attach(client, id);
  await gathered.until(({ output }) => output.endsWith('\n'));
  const pid = gathered.output.trim();
  assert.ok(existsSync(`/proc/${pid}`));
  await client.batch([{ case: 'release', value: { id } }]);
  await eventually(() => assert.ok(!isAlive(pid)));
});

function isAlive(pid: string): boolean {
  try {
    return !/^State:\t[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

test('a process group is killed as a whole', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  for (const how of ['signal', 'release'] as const) {
    const spawn = shell('sleep 1000 & echo $!; (sleep 1000 & echo $!; wait) & echo $!; wait');
    const id = spawn.value.id ?? '';
    await client.batch([spawn]);
    const gathered = await Gathered.attach(client, id);
    await gathered.until(({ output }) => output.split('\n').length === 4);
    const pids = gathered.output.trim().split('\n');
    assert.ok(pids.every(isAlive));
    if (how === 'signal') {
      await client.batch([{ case: 'signal', value: { id, signal: 9, group: true } }]);
      const end = await client.wait(id);
      assert.deepEqual([end.signaled, end.code], [true, 9]);
    }
    await client.batch([{ case: 'release', value: { id } }]);
    await eventually(() => assert.deepEqual(pids.filter(isAlive), []));
  }
});

test('a terminal: size, one output, signals from the keyboard', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const script =
    'stty size; trap "stty size; exit 7" WINCH; trap "echo INT" INT; echo ready; while :; do sleep 0.01; done';
  const spawn = shell(script, { tty: true, stdin: true, size: { rows: 33, columns: 101 } });
  const id = spawn.value.id ?? '';
  await client.batch([spawn]);
  const gathered = await Gathered.attach(client, id);
  await gathered.until(({ output }) => output.includes('ready'));
  await gathered.attachment.write(Buffer.from([3]));
  await gathered.until(({ output }) => output.includes('INT'));
  await client.batch([{ case: 'resize', value: { id, size: { rows: 44, columns: 55 } } }]);
  assert.deepEqual(await client.wait(id), { signaled: false, code: 7, error: '' });
  await gathered.attachment.closed;
  assert.match(gathered.output, /^33 101\r\nready\r\n\^CINT\r\n44 55\r\n$/);
  assert.equal(gathered.error, '');
  await client.batch([{ case: 'release', value: { id } }]);
  const plain = shell('sleep 1000');
  await client.batch([plain]);
  const resize = client.batch([
    { case: 'resize', value: { id: plain.value.id ?? '', size: { rows: 1, columns: 1 } } },
  ]);
  await assert.rejects(resize, AgentOpError);
  await client.batch([{ case: 'release', value: { id: plain.value.id ?? '' } }]);
});

test('a launcher hands over to the process that its file names', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const file = agent.path('pid');
  const script = `setsid sh -c 'echo from the adopted; sleep 0.2; exit 5' & echo $! > ${file}`;
  const id = freshId();
  const [result] = await client.batch([shell(script, { id, adoptPidFile: file })]);
  assert.ok(result?.result.case === 'process');
  assert.equal(String(result.result.value.pid), readFileSync(file, 'utf8').trim());
  const gathered = await Gathered.attach(client, id);
  assert.deepEqual(await client.wait(id), { signaled: false, code: 5, error: '' });
  await gathered.attachment.closed;
  assert.equal(gathered.output, 'from the adopted\n');
  await client.batch([{ case: 'release', value: { id } }]);

  const failing = shell('echo sorry >&2; exit 9', { adoptPidFile: agent.path('none') });
  const failed = failing.value.id ?? '';
  await assert.rejects(client.batch([failing]), { errnoName: 'ECHILD' });
  assert.equal((await client.wait(failed)).code, 9);
  const left = await Gathered.attach(client, failed);
  await left.attachment.closed;
  assert.equal(left.error, 'sorry\n');
  await client.batch([{ case: 'release', value: { id: failed } }]);
});

test('five hundred processes leave no zombie and no descriptor', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const before = agent.descriptors();
  for (let round = 0; round < 10; round++) {
    const runs = Array.from({ length: 50 }, (_, index) =>
      index % 10 === 0
        ? run(client, shell(`echo ${index}; exit ${index}`, { tty: true }))
        : run(client, shell(`cat; echo ${index}; exit ${index}`, { stdin: true }), Buffer.alloc(0)),
    );
    for (const [index, end] of (await Promise.all(runs)).entries()) {
      const output = index % 10 === 0 ? `${index}\r\n` : `${index}\n`;
      assert.deepEqual(end, { signaled: false, code: index, error: '', output });
    }
  }
  assert.deepEqual(agent.children(), []);
  assert.deepEqual(agent.descriptors(), before);
});

test('there is a limit on objects, and it is told', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const ids: string[] = [];
  const failure = await (async () => {
    for (;;) {
      const id = freshId();
      try {
        await client.batch([{ case: 'watch', value: { id, path: agent.directory, mask: 0x100 } }]);
        ids.push(id);
      } catch (error) {
        return error;
      }
    }
  })();
  assert.ok(failure instanceof AgentOpError, String(failure));
  assert.ok(['EMFILE', 'ENFILE', 'ENOSPC', 'EAGAIN'].includes(failure.errnoName), failure.message);
  assert.ok(ids.length >= 100 && ids.length <= 4096, `${ids.length} objects`);
  for (let at = 0; at < ids.length; at += 256) {
    await client.batch(ids.slice(at, at + 256).map((id) => ({ case: 'release', value: { id } })));
  }
});
