import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { type AgentClient, AgentOpError, type OpInput } from '@arcbox/protocol';
import { eventually } from './support/eventually.ts';
import { HostAgent } from './support/host-agent.ts';
import { freshId, Gathered, resultOf, run, shell } from './support/run.ts';
import { test } from './support/test.ts';

type ExecIn = OpInput & { case: 'execIn' };

interface Target extends AsyncDisposable {
  readonly pid: number;
}

/** A process in namespaces of its own, with a root of its own that knows where it is. */
async function target(client: AgentClient, agent: HostAgent): Promise<Target> {
  const id = freshId();
  const root = agent.path(`root-${id}`);
  const script = `
    mkdir ${root}
    mount --bind ${root} ${root}
    cd ${root}
    mkdir old proc tmp marker-${id} bin usr lib lib64 dev
    for directory in bin usr lib lib64 dev; do mount --rbind /$directory $directory; done
    mount -t proc proc proc
    hostname inside-${id}
    pivot_root . old
    umount -l /old
    echo ready
    exec sleep 1000`;
  const spawn = shell(`exec unshare --mount --uts --ipc --net --pid --fork --kill-child sh -c '${script}'`, {
    id,
  });
  const [result] = await client.batch([spawn]);
  const launcher = resultOf([result ?? assert.fail()], 0, 'process').pid;
  const gathered = await Gathered.attach(client, id);
  await gathered.until(({ output }) => output.includes('ready'));
  const { output } = await run(
    client,
    shell(`p=$(cat /proc/${launcher}/task/${launcher}/children)
      while [ "$(cat /proc/$(echo $p)/comm)" != sleep ]; do sleep 0.01; done; echo $p`),
  );
  return {
    pid: Number(output),
    async [Symbol.asyncDispose]() {
      await client.batch([{ case: 'release', value: { id } }]);
      await gathered.attachment.closed.catch(() => {});
    },
  };
}

function inside(pid: number, script: string, more: Partial<ExecIn['value']> = {}): ExecIn {
  const { value } = shell(script, { env: ['PATH=/bin:/usr/bin'], ...more.spawn });
  return { case: 'execIn', value: { targetPid: pid, keepAllCapabilities: true, ...more, spawn: value } };
}

test('a process runs in all the namespaces of another', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  await using other = await target(client, agent);
  const names = 'mnt uts ipc net pid';
  const { output, error, code } = await run(
    client,
    inside(
      other.pid,
      `ls -d /marker*; uname -n; for n in ${names}; do readlink /proc/self/ns/$n; done; ls /proc | grep -c '^[0-9]'`,
    ),
  );
  assert.deepEqual([code, error], [0, '']);
  const lines = output.trim().split('\n');
  assert.match(lines[0] ?? '', /^\/marker-t/);
  assert.match(lines[1] ?? '', /^inside-t/);
  const outside = await run(client, shell(`for n in ${names}; do readlink /proc/${other.pid}/ns/$n; done`));
  assert.deepEqual(lines.slice(2, 7), outside.output.trim().split('\n'));
  assert.ok(Number(lines[7]) <= 8, 'it sees the processes of its own namespace only');
});

test('its pid is the one that the agent sees; signals, input and the exit are as of any process', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  await using other = await target(client, agent);
  const operation = inside(other.pid, 'exec sleep 1000');
  const id = operation.value.spawn?.id ?? '';
  const results = await client.batch([operation]);
  const { pid } = resultOf(results, 0, 'process');
  // The shell is that process first, until it has become the program.
  await eventually(async () => {
    const { output } = await run(client, shell(`tr '\\0' ' ' < /proc/${pid}/cmdline`));
    assert.equal(output, 'sleep 1000 ');
  });
  await client.batch([{ case: 'signal', value: { id, signal: 15 } }]);
  assert.deepEqual(await client.wait(id), { signaled: true, code: 15, error: '' });
  await client.batch([{ case: 'release', value: { id } }]);
  const echoed = await run(
    client,
    inside(other.pid, 'cat; exit 42', { spawn: { stdin: true } }),
    Buffer.from('through'),
  );
  assert.deepEqual([echoed.code, echoed.output], [42, 'through']);
});

test('who it is and what it may: user, groups, capabilities, limits', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  await using other = await target(client, agent);
  const script = 'id -u; id -g; id -G; pwd; ulimit -n; cat /proc/self/status';
  const status = async (more: Partial<ExecIn['value']>): Promise<[string[], Record<string, string>]> => {
    const { output, error, code } = await run(client, inside(other.pid, script, more));
    assert.deepEqual([code, error], [0, '']);
    const lines = output.split('\n');
    return [lines.slice(0, 5), Object.fromEntries(lines.slice(5).map((line) => line.split(':\t')))];
  };
  const [lines, none] = await status({
    spawn: { uid: 7, gid: 8, groups: [8, 9], cwd: '/tmp' },
    keepAllCapabilities: false,
    noNewPrivs: true,
    rlimits: [{ resource: 7, soft: 123, hard: 456 }],
  });
  assert.deepEqual(lines, ['7', '8', '8 9', '/tmp', '123']);
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'])
    assert.match(none[set] ?? '', /^0+$/, set);
  assert.equal(none.NoNewPrivs, '1');
  // CAP_CHOWN and CAP_NET_BIND_SERVICE.
  const two = (1n << 0n) | (1n << 10n);
  const [, some] = await status({ keepAllCapabilities: false, capabilities: two });
  for (const set of ['CapPrm', 'CapEff', 'CapBnd']) assert.equal(BigInt(`0x${some[set]}`), two, set);
  assert.equal(some.NoNewPrivs, '0');
  const [, all] = await status({});
  assert.match(all.CapEff ?? '', /^0*1?[1-9a-f]/);
});

test('a filter of system calls is applied', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  await using other = await target(client, agent);
  // ld [nr]; jeq uname → errno 42; allow. The numbers are those of x86-64 and arm64.
  const uname = process.arch === 'x64' ? 63 : 160;
  const filter = Buffer.alloc(4 * 8);
  const instruction = (index: number, code: number, jt: number, jf: number, k: number): void => {
    filter.writeUInt16LE(code, index * 8);
    filter[index * 8 + 2] = jt;
    filter[index * 8 + 3] = jf;
    filter.writeUInt32LE(k, index * 8 + 4);
  };
  instruction(0, 0x20, 0, 0, 0);
  instruction(1, 0x15, 0, 1, uname);
  instruction(2, 0x06, 0, 0, 0x00050000 | 42);
  instruction(3, 0x06, 0, 0, 0x7fff0000);
  const path = agent.path('filter');
  await client.batch([{ case: 'write', value: { path, data: filter, create: true } }]);
  const { code, output } = await run(
    client,
    inside(other.pid, 'uname || echo refused', { seccompBpf: path }),
  );
  assert.deepEqual([code, output], [0, 'refused\n']);
  for (const data of [Buffer.alloc(0), Buffer.alloc(7), Buffer.alloc(8, 0xff)]) {
    await client.batch([{ case: 'write', value: { path, data, truncate: true } }]);
    await assert.rejects(client.batch([inside(other.pid, 'true', { seccompBpf: path })]), AgentOpError);
  }
});

test('a terminal inside', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  await using other = await target(client, agent);
  const operation = inside(other.pid, 'stty size; test -t 0 && test -t 1 && test -t 2 && echo terminal', {
    spawn: { tty: true, size: { rows: 12, columns: 34 } },
  });
  const { output, code } = await run(client, operation);
  assert.deepEqual([code, output], [0, '12 34\r\nterminal\r\n']);
});

test('until it is its program, it can be traced by nobody and holds nothing of the agent', {
  skip: !existsSync('/dev/fuse'),
}, async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  // A namespace whose processes would see it, in the agent's own mounts; and a program that nobody serves.
  const holder = freshId();
  const [launched] = await client.batch([shell('exec unshare --pid --fork sleep 1000', { id: holder })]);
  const launcher = resultOf([launched ?? assert.fail()], 0, 'process').pid;
  const children = `/proc/${launcher}/task/${launcher}/children`;
  const pid = await eventually(() => {
    const [child] = readFileSync(children, 'utf8').split(' ').filter(Boolean);
    return Number(child ?? assert.fail('it has not forked yet'));
  });
  const stall = freshId();
  const target = agent.path('stall');
  await client.batch([{ case: 'fuseRelay', value: { id: stall, target, mkdirTarget: true } }]);
  const known = new Set(agent.children());
  const start = client.batch([
    inside(pid, '', { keepAllCapabilities: false, spawn: { argv: [`${target}/program`] } }),
  ]);
  start.catch(() => {});
  const caught = await eventually(() => {
    for (const child of agent.children()) {
      if (known.has(child)) continue;
      // The last thing before exec is that it gives up what it may do.
      if (/^CapPrm:\t0+$/m.test(readFileSync(`/proc/${child}/status`, 'utf8'))) return child;
    }
    return assert.fail('it has not come that far yet');
  });
  const powerless = ['--bounding-set', '-all', '--inh-caps', '-all', '--ambient-caps', '-all'];
  for (const file of ['fd/0', 'exe', 'cwd']) {
    const seen = spawnSync('setpriv', [...powerless, 'readlink', `/proc/${caught}/${file}`]);
    assert.equal(seen.stdout.toString(), '', `${file} can be reached`);
  }
  const descriptors = readdirSync(`/proc/${caught}/fd`)
    .map((fd) => readlinkSync(`/proc/${caught}/fd/${fd}`).replace(/:.*/, ''))
    .sort();
  assert.deepEqual(
    [...new Set(descriptors)],
    ['/dev/null', 'pipe', 'socket'],
    'those of its program only, ...',
  );
  assert.equal(
    descriptors.filter((kind) => kind === 'socket').length,
    1,
    '... and one to tell that it failed',
  );
  await client.batch([{ case: 'release', value: { id: stall } }]);
  await assert.rejects(start, AgentOpError);
  await client.batch([{ case: 'release', value: { id: holder } }]);
});

test('what cannot be entered or started says why', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  await using other = await target(client, agent);
  const attempts: [ExecIn, string][] = [
    [inside(0x3ffffff, 'true'), 'ESRCH'],
    [inside(0, 'true'), 'EINVAL'],
    [inside(other.pid, 'true', { spawn: { argv: ['/no/such'] } }), 'ENOENT'],
    [inside(other.pid, 'true', { spawn: { cwd: '/no/such' } }), 'ENOENT'],
    [inside(other.pid, 'true', { cgroup: '/sys/fs/cgroup/no/such' }), 'ENOENT'],
    [inside(other.pid, 'true', { cgroup: '/etc' }), 'EINVAL'],
    [inside(other.pid, 'true', { spawn: { adoptPidFile: '/x' } }), 'EINVAL'],
    [inside(other.pid, 'true', { seccompBpf: '/no/such' }), 'ENOENT'],
  ];
  for (const [operation, expected] of attempts) {
    const error = await client.batch([operation]).catch((error: unknown) => error);
    assert.ok(
      error instanceof AgentOpError,
      JSON.stringify(operation, (_, value) => (typeof value === 'bigint' ? `${value}` : value)),
    );
    assert.equal(error.errnoName, expected, error.message);
  }
});
