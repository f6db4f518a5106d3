import assert from 'node:assert/strict';
import { test } from 'node:test';
import { capabilityBits, capabilitySet, DEFAULT_CAPABILITIES } from '../src/container/capabilities.ts';
import { checkHostOptions, type HostOptions, splitHost } from '../src/container/host-options.ts';
import { ociMounts } from '../src/container/oci-mounts.ts';
import { ociLimits, ociResources } from '../src/container/oci-resources.ts';
import { limitFiles, mergeLimits } from '../src/container/running-cgroup.ts';
import { parseUsage } from '../src/container/stats.ts';
import { parseProcess } from '../src/container/top.ts';
import { containerPaths } from '../src/machine/guest-layout.ts';

test('capabilities are added and dropped as docker does', () => {
  assert.deepEqual(capabilitySet([], []), DEFAULT_CAPABILITIES);
  assert.deepEqual(capabilitySet(['net_admin'], ['ALL']), ['CAP_NET_ADMIN']);
  assert.deepEqual(capabilitySet([], ['all']), []);
  assert.ok(!capabilitySet(['ALL'], ['CAP_SYS_ADMIN']).includes('CAP_SYS_ADMIN'));
  assert.ok(capabilitySet(['ALL'], []).includes('CAP_BPF'));
  assert.throws(() => capabilitySet(['fly'], []), { code: 'ERR_ARCBOX_INVALID_ARGUMENT' });
  assert.equal(capabilityBits(['CAP_CHOWN', 'CAP_SYS_ADMIN']), 0x200001n);
  assert.equal(capabilityBits(DEFAULT_CAPABILITIES), 0xa80425fbn, 'as docker’s containers show in /proc');
});

test('what cannot be is refused, with what can', () => {
  const table: readonly [Partial<HostOptions>, RegExp][] = [
    [{ limits: { memoryBytes: 1024 } }, /below the least/],
    [{ limits: { memorySwapBytes: 10 ** 9 } }, /needs a memory limit/],
    [{ limits: { memoryBytes: 2 ** 30, memorySwapBytes: 2 ** 29 } }, /below the memory limit/],
    [{ limits: { nanoCpus: 10 ** 9, cpuQuotaUs: 1000 } }, /twice/],
    [{ limits: { cpuShares: 1 } }, /from 2 to 262144/],
    [{ limits: { blkioWeight: 1001 } }, /from 10 to 1000/],
    [{ limits: { cpusetCpus: '0-' } }, /no list/],
    [{ limits: { pidsMax: -3 } }, /limit of processes/],
    [{ securityOpt: ['seccomp=/my.json'] }, /seccomp=unconfined/],
    [{ tmpfs: { relative: '' } }, /no path/],
    [{ tmpfs: { '/x': 'size=64m,lowerdir=/' } }, /no mount option/],
    [{ ulimits: [{ name: 'files', soft: 1, hard: 1 }] }, /there are cpu, fsize/],
    [{ ulimits: [{ name: 'nofile', soft: 3, hard: 2 }] }, /above the hard one/],
    [{ sysctls: { 'kernel.panic': '1' } }, /not separate/],
    [{ sysctls: { 'kernel.shmmax': '1' }, ipcMode: 'host' }, /IPC namespace/],
    [{ pidMode: 'private' }, /--pid/],
    [{ ipcMode: 'container:' }, /--ipc/],
    [{ networkMode: 'none', networkAliases: ['web'] }, /in none/],
    [{ extraHosts: ['here'] }, /NAME:ADDRESS/],
    [{ dns: ['dns.example'] }, /name server/],
    [{ dnsSearch: ['a b'] }, /resolv.conf/],
    [{ oomScoreAdj: 1001 }, /-1000 and 1000/],
  ];
  for (const [options, message] of table) {
    assert.throws(
      () => checkHostOptions(options),
      (error) => error instanceof Error && message.test(error.message),
      JSON.stringify(options),
    );
  }
  checkHostOptions({ sysctls: { 'net.ipv4.ip_forward': '1', 'kernel.shmmax': '1' }, extraHosts: ['x:::1'] });
  assert.deepEqual(splitHost('db:[fe80::1]'), ['db', 'fe80::1']);
});

test('limits as the runtime and as the kernel take them', () => {
  const limits = {
    memoryBytes: 2 ** 26,
    memorySwapBytes: 2 ** 27,
    nanoCpus: 1.5e9,
    cpuShares: 1024,
    pidsMax: 10,
    blkioWeight: 500,
  };
  assert.deepEqual(ociLimits(limits), {
    memory: { limit: 2 ** 26, swap: 2 ** 27 },
    cpu: { shares: 1024, quota: 150_000, period: 100_000 },
    pids: { limit: 10 },
    blockIO: { weight: 500 },
  });
  assert.deepEqual(limitFiles(limits), [
    ['memory.swap.max', String(2 ** 26)],
    ['memory.max', String(2 ** 26)],
    ['cpu.max', '150000 100000'],
    ['cpu.weight', '39'],
    ['pids.max', '10'],
    ['io.bfq.weight', '500'],
  ]);
  assert.deepEqual(ociLimits({}), {});
  assert.deepEqual(limitFiles(mergeLimits({ pidsMax: 5 }, { pidsMax: -1 })), [['pids.max', 'max']]);
  assert.deepEqual(ociLimits({ pidsMax: -1 }), {});
  assert.deepEqual(mergeLimits({ nanoCpus: 1e9, pidsMax: 5 }, { cpuQuotaUs: 5000 }), {
    cpuQuotaUs: 5000,
    pidsMax: 5,
  });
  assert.deepEqual(mergeLimits({ memoryBytes: 2 ** 26 }, { memoryBytes: 2 ** 27 }), { memoryBytes: 2 ** 27 });
  const { devices } = ociResources(checkHostOptions({ privileged: true })) as { devices: unknown[] };
  assert.deepEqual(devices, [{ allow: true, access: 'rwm' }]);
});

test('a tmpfs of the user’s takes the place of ours, with docker’s defaults', () => {
  const mounts = ociMounts(
    checkHostOptions({ tmpfs: { '/dev/shm': 'size=1m', '/run': 'exec' } }),
    containerPaths('x'),
  );
  const at = (path: string) => mounts.filter(({ destination }) => destination === path);
  assert.deepEqual(
    at('/dev/shm').map(({ options }) => options),
    [['nosuid', 'nodev', 'noexec', 'size=1m']],
  );
  assert.deepEqual(at('/run')[0]?.options, ['nosuid', 'nodev', 'exec']);
});

test('a process whose name is meant to confuse is read right', () => {
  const stat = `7 (a) R 9 (b)) S 1 7 7 34816 7 4194560 1 2 3 4 150 50 0 0 20 0 1 0 1000 1 2`;
  const info = parseProcess(
    7,
    { stat, status: 'Name:\tx\nUid:\t0\t33\t0\t0\nVmRSS:\t    12 kB\n', commandLine: '' },
    { uptimeS: 20, bootS: 100 },
  );
  assert.deepEqual(info, {
    pid: 7,
    parentPid: 1,
    uid: 33,
    terminal: 'pts/0',
    startedMs: 110_000,
    cpuMs: 2000,
    cpuPercent: 20,
    memoryBytes: 12_288,
    state: 'S',
    command: '[a) R 9 (b)]',
    name: 'a) R 9 (b)',
  });
});

test('what a container uses, from its cgroup’s files', () => {
  const usage = parseUsage(
    [
      'usage_usec 1000\nuser_usec 600\nsystem_usec 400\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\n',
      '5000\n',
      'anon 1000\nfile 3000\ninactive_file 2000\n',
      'max\n',
      '6000\n',
      'low 0\noom_kill 1\n',
      '3\n',
      '100\n',
      '253:0 rbytes=10 wbytes=20 rios=1\n8:0 rbytes=5 wbytes=6\n',
      'cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n',
      'MemTotal:   100 kB\n',
      [
        'Inter-|   Receive                                                |  Transmit',
        ' face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed',
        '    lo:     900       9    0    0    0     0          0         0      900       9    0    0    0     0       0          0',
        '  eth0:1234567890      12    1    2    0     0          0         0   3456      34    3    4    0     0       0          0',
        '',
      ].join('\n'),
    ],
    7n,
  );
  assert.deepEqual(usage, {
    readUnixNs: 7n,
    cpuUsageNs: 1e6,
    cpuUserNs: 6e5,
    cpuSystemNs: 4e5,
    machineCpuNs: 3.6e8,
    machineCpus: 1,
    cpuPeriods: 5,
    cpuThrottledPeriods: 2,
    cpuThrottledNs: 7000,
    memoryBytes: 5000,
    memoryInactiveFileBytes: 2000,
    memoryAnonBytes: 1000,
    memoryFileBytes: 3000,
    memoryLimitBytes: 102_400,
    memoryPeakBytes: 6000,
    oomKills: 1,
    pids: 3,
    pidsLimit: 100,
    blockReadBytes: 15,
    blockWriteBytes: 26,
    interfaces: [
      {
        name: 'eth0',
        rxBytes: 1_234_567_890,
        rxPackets: 12,
        rxErrors: 1,
        rxDropped: 2,
        txBytes: 3456,
        txPackets: 34,
        txErrors: 3,
        txDropped: 4,
      },
    ],
  });
});
