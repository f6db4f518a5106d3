import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Arcbox, outcome, untilOutput } from './support.ts';

/** Two readers of one disk are compared for so long. */
const WEIGHED_MS = 4000;
const WEIGHED_ROUNDS = 5;

let arcbox: Arcbox;
before(() => {
  arcbox = new Arcbox();
});
after(() => arcbox[Symbol.asyncDispose]());

async function ok(...args: string[]): Promise<string> {
  const { stdout, stderr, code } = await arcbox.run(args);
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** What a script prints in a container with these options. */
async function inside(options: readonly string[], script: string): Promise<string> {
  const { stdout, stderr, code } = await arcbox.run([
    ...['run', '--rm', ...options, 'busybox', 'sh', '-c'],
    script,
  ]);
  assert.deepEqual({ stderr, code }, { stderr: '', code: 0 }, `${options.join(' ')}: ${script}: ${stdout}`);
  return stdout;
}

test('limits are those of its cgroup', async () => {
  const options = ['-m', '64m', '--memory-swap', '96m', '--memory-reservation', '32m', '--cpus', '0.5'];
  const files = 'memory.max memory.swap.max memory.low cpu.max pids.max cpu.weight cpuset.cpus';
  const out = await inside(
    [...options, '--pids-limit', '20', '-c', '512', '--cpuset-cpus', '0'],
    `cd /sys/fs/cgroup; for f in ${files}; do cat $f; done`,
  );
  assert.equal(out, '67108864\n33554432\n33554432\n50000 100000\n20\n20\n0\n');
});

test('a limit of memory is felt: what goes past it is killed, and inspect says with what', async () => {
  const { code } = await arcbox.run([
    ...['run', '--name', 'fat', '-m', '16m', 'busybox', 'sh', '-c'],
    'dd if=/dev/zero of=/dev/null bs=64M count=1',
  ]);
  assert.equal(code, 137);
  const { stdout } = await arcbox.run(['inspect', '-f', '{{.State.ExitCode}} {{.HostConfig.Memory}}', 'fat']);
  assert.equal(stdout, '137 16777216\n');
  await arcbox.run(['rm', 'fat']);
});

test('a weight of block I/O is felt: of two that keep one disk busy, the heavier gets more of it', async () => {
  const weight = 'cat /sys/fs/cgroup/io.bfq.weight';
  const reads = `dd if=/dev/zero of=/data bs=1M count=64 2>/dev/null; sync; echo ready
    for i in 1 2 3 4 5 6 7 8; do
      (while dd if=/data of=/dev/null bs=1M iflag=direct 2>/dev/null; do :; done) &
    done; wait`;
  const [heavy, light] = ['heavy', 'light'] as const;
  for (const [name, number] of [
    [heavy, '1000'],
    [light, '10'],
  ] as const)
    await ok('run', '-d', '--name', name, '--blkio-weight', number, 'busybox', 'sh', '-c', reads);
  for (const name of [heavy, light]) {
    const following = arcbox.spawn(['logs', '-f', name], { input: '' });
    const followed = outcome(following);
    await untilOutput(following, 'ready\n');
    following.kill('SIGINT');
    await followed;
  }
  assert.equal(await ok('exec', light, 'sh', '-c', weight), 'default 10\n');
  assert.match(await ok('exec', light, 'sh', '-c', 'cat /sys/block/vd*/queue/scheduler'), /\[bfq\]/);
  const read = async (name: string): Promise<number> => {
    const lines = (await ok('exec', name, 'cat', '/sys/fs/cgroup/io.stat')).matchAll(/ rbytes=(\d+)/g);
    return [...lines].reduce((sum, [, bytes]) => sum + Number(bytes), 0);
  };
  // It has been nine times as much and more. A host that lets the machine stand still for longer than the scheduler waits
  // for the next request of the heavier (8 ms) gives the lighter its turn: then it is looked at again.
  const seen: string[] = [];
  for (let felt = false; !felt; ) {
    assert.ok(seen.length < WEIGHED_ROUNDS, seen.join('; '));
    const before = [await read(heavy), await read(light)] as const;
    await sleep(WEIGHED_MS);
    const [more, less] = [(await read(heavy)) - before[0], (await read(light)) - before[1]] as const;
    felt = more > 3 * less;
    seen.push(`${more} bytes with the weight 1000, ${less} with 10`);
  }
  await ok('update', '--blkio-weight', '700', light);
  assert.equal(await ok('exec', light, 'sh', '-c', weight), 'default 700\n');
  await ok('rm', '-f', heavy, light);
});

test('read-only root, tmpfs, shm, ulimits, sysctls, groups, OOM score', async () => {
  const out = await inside(
    [
      ...[
        '--read-only',
        '--tmpfs',
        '/scratch:size=1m,mode=700',
        '--shm-size',
        '1m',
        '--ulimit',
        'nofile=64:128',
      ],
      ...['--sysctl', 'net.ipv4.ip_forward=1', '--group-add', '77', '-u', '5:6', '--oom-score-adj', '500'],
    ],
    [
      'touch /x 2>/dev/null || echo read-only',
      'grep " /scratch " /proc/mounts | grep -o "size=1024k,mode=700"',
      'df -k /dev/shm | tail -1 | awk "{print \\$2}"',
      'ulimit -n; ulimit -Hn',
      'cat /proc/sys/net/ipv4/ip_forward',
      'id -G',
      'cat /proc/self/oom_score_adj',
    ].join('; '),
  );
  assert.equal(out, 'read-only\nsize=1024k,mode=700\n1024\n64\n128\n1\n6 77\n500\n');
});

test('capabilities, privileged, seccomp, no-new-privileges', async () => {
  const caps = 'grep -E "^(CapEff|Seccomp|NoNewPrivs):" /proc/self/status | tr "\\t" " "';
  assert.equal(await inside([], caps), 'CapEff: 00000000a80425fb\nNoNewPrivs: 0\nSeccomp: 2\n');
  assert.equal(
    await inside(
      ['--cap-drop', 'ALL', '--cap-add', 'NET_ADMIN', '--security-opt', 'no-new-privileges'],
      caps,
    ),
    'CapEff: 0000000000001000\nNoNewPrivs: 1\nSeccomp: 2\n',
  );
  assert.equal(
    await inside(['--security-opt', 'seccomp=unconfined'], caps),
    'CapEff: 00000000a80425fb\nNoNewPrivs: 0\nSeccomp: 0\n',
  );
  assert.equal(
    await inside(['--privileged'], `${caps}; mount -t tmpfs none /tmp && echo mounted`),
    'CapEff: 000001ffffffffff\nNoNewPrivs: 0\nSeccomp: 0\nmounted\n',
  );
});

test('the runtime’s program is where it need not copy itself for every container, and cannot be written to', async () => {
  const machine = ['--privileged', '--pid', 'host'];
  const look = 'stat -f -c %T /bin/crun; (echo >>/bin/crun) 2>&1 | grep -o "Read-only file system"';
  assert.equal(
    await inside(machine, `nsenter -t 1 -m /bin/busybox sh -c '${look}'`),
    'ramfs\nRead-only file system\n',
  );
});

test('names: host, domain, hosts, resolver', async () => {
  const out = await inside(
    [
      ...[
        '-h',
        'box',
        '--domainname',
        'example.test',
        '--add-host',
        'db:10.0.0.7',
        '--dns',
        '9.9.9.9',
        '--ip',
        '172.20.7.7',
      ],
      ...['--dns-search', 'example.test', '--dns-option', 'ndots:2'],
    ],
    'hostname; cat /proc/sys/kernel/domainname; grep -E "box|db" /etc/hosts; cat /etc/resolv.conf',
  );
  assert.equal(
    out,
    'box\nexample.test\n172.20.7.7\tbox.example.test box\n10.0.0.7\tdb\nnameserver 9.9.9.9\nsearch example.test\noptions ndots:2\n',
  );
});

test('--init is process 1, and reaps', async () => {
  const out = await inside(
    ['--init'],
    // The orphan ends at once. Whoever does not reap it has it in /proc for ever.
    'cat /proc/1/cmdline | tr "\\0" " "; echo; orphan=$(sh -c "true >/dev/null & echo \\$!"); while [ -e /proc/$orphan ]; do sleep 0.01; done; echo reaped',
  );
  assert.match(out, /^\/sbin\/docker-init -- sh -c .*\nreaped\n$/);
});

test('namespaces of the machine and of another container', async () => {
  const { code } = await arcbox.run([
    ...['run', '-d', '--name', 'other', '--ipc', 'shareable', 'busybox', 'sh', '-c'],
    'echo here > /dev/shm/note; exec sleep 10000',
  ]);
  assert.equal(code, 0);
  const joined = await inside(
    ['--pid', 'container:other', '--ipc', 'container:other'],
    'until [ "$(cat /proc/1/comm)" = sleep ]; do sleep 0.01; done; cat /proc/1/cmdline | tr "\\0" " "; echo; cat /dev/shm/note',
  );
  assert.equal(joined, 'sleep 10000 \nhere\n');
  const host = await inside(['--pid', 'host'], 'cat /proc/1/comm; sleep 7654 >/dev/null 2>&1 &');
  assert.equal(host, 'init\n');
  const { stdout } = await arcbox.run(['run', '--rm', '--pid', 'host', 'busybox', 'ps', '-o', 'args']);
  assert.doesNotMatch(stdout, /7654/, 'what it left in the machine’s process namespace went with it');
  const refused = await arcbox.run(['run', '--rm', '--ipc', 'container:nosuch', 'busybox', 'true']);
  assert.equal(refused.code, 125);
  await arcbox.run(['rm', '-f', 'other']);
});

test('files of variables and labels, an ID file, its stop signal and time, its platform', async () => {
  const cidfile = join(arcbox.home, 'cid');
  const created = await arcbox.run([
    ...[
      'create',
      '--name',
      'made',
      '--cidfile',
      cidfile,
      '-l',
      'a=b',
      '--stop-signal',
      'USR1',
      '--stop-timeout',
      '3',
    ],
    ...['--platform', process.arch === 'x64' ? 'linux/amd64' : 'linux/arm64', '-it', 'busybox', 'cat'],
  ]);
  assert.equal(readFileSync(cidfile, 'utf8'), created.stdout.trim());
  const { stdout } = await arcbox.run([
    'inspect',
    '--format',
    '{{.State.Status}} {{.Config.StopSignal}} {{.Config.StopTimeout}} {{.Config.Labels.a}} {{.Config.Tty}} {{.HostConfig.NetworkMode}}',
    'made',
  ]);
  assert.equal(stdout, 'created SIGUSR1 3 b true bridge\n');
  const again = await arcbox.run(['create', '--cidfile', cidfile, 'busybox']);
  assert.equal(again.code, 125);
  assert.equal((await arcbox.run(['run', '--platform', 'linux/s390x', 'busybox'])).code, 125);
  assert.equal((await arcbox.run(['run', '--network', 'web', 'busybox'])).code, 125);
  await arcbox.run(['rm', 'made']);
});
