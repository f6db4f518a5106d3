import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ContainerJson } from '@arcbox/api/client';
import { cpuPercent, humanSize, memoryUsage } from '../src/commands/stats.ts';
import { chooseColumns } from '../src/commands/top.ts';
import { attachedStreams, createRequest } from '../src/create-flags.ts';
import { dockerContainer } from '../src/docker-shape.ts';
import { environment, labels } from '../src/environment.ts';
import { filterContainers } from '../src/filters.ts';
import { limitsRequest } from '../src/limit-flags.ts';
import { networkOptions } from '../src/network-flags.ts';
import { portText } from '../src/published-ports.ts';
import { refuseFlags } from '../src/refused-flags.ts';

test('limits in docker’s units', () => {
  assert.deepEqual(
    limitsRequest({
      memory: '64m',
      memorySwap: '-1',
      cpus: '1.5',
      cpuShares: '512',
      pidsLimit: '10',
      cpusetCpus: '0-1',
      blkioWeight: '500',
    }),
    {
      memoryBytes: '67108864',
      memorySwapBytes: '-1',
      nanoCpus: '1500000000',
      cpuShares: 512,
      pidsMax: '10',
      cpusetCpus: '0-1',
      blkioWeight: 500,
    },
  );
  assert.deepEqual(limitsRequest({ memory: '0', cpus: '0', blkioWeight: '0' }), {}, 'none');
  for (const pidsLimit of ['-1', '0'])
    assert.deepEqual(limitsRequest({ pidsLimit }), { pidsMax: '-1' }, 'also where there was a limit');
  for (const [flags, message] of [
    [{ memory: 'much' }, /--memory: "much" is not a size/],
    [{ cpus: 'x' }, /--cpus/],
    [{ pidsLimit: '1.5' }, /--pids-limit/],
    [{ blkioWeight: 'heavy' }, /--blkio-weight/],
  ] as const) {
    assert.throws(() => limitsRequest(flags), message);
  }
});

test('what a container is created with', () => {
  const { host = {}, ...request } = createRequest('busybox', ['true'], {
    interactive: true,
    entrypoint: '',
    ulimit: ['nofile=1024:2048', 'core=-1'],
    tmpfs: ['/run:size=64m,exec', '/tmp'],
    sysctl: ['net.ipv4.ip_forward=1'],
    label: ['a=b=c', 'empty'],
    stopTimeout: '1.5',
  });
  assert.equal(request.stdinOnce, true);
  assert.equal(request.stopTimeoutMs, 1500);
  assert.deepEqual(request.entrypoint, { argv: [] });
  assert.deepEqual(request.labels, { a: 'b=c', empty: '' });
  assert.deepEqual(host.ulimits, [
    { name: 'nofile', soft: '1024', hard: '2048' },
    { name: 'core', soft: '-1', hard: '-1' },
  ]);
  assert.deepEqual(host.tmpfs, { '/run': 'size=64m,exec', '/tmp': '' });
  assert.deepEqual(host.sysctls, { 'net.ipv4.ip_forward': '1' });
  assert.throws(() => createRequest('x', [], { ulimit: ['nofile'] }), /NAME=SOFT/);
});

test('flags that cannot be are refused with the reason, and those that say what is the case are taken', () => {
  assert.throws(
    () => refuseFlags({ device: '/dev/kvm' }),
    /^CliError: --device is not supported: a container has/,
  );
  assert.throws(() => refuseFlags({ oomKillDisable: true }), /--oom-kill-disable .*cgroup v2/);
  assert.throws(
    () => refuseFlags({ cgroupns: 'host' }),
    /--cgroupns host is not supported.*it can be private/,
  );
  refuseFlags({ cgroupns: 'private', logDriver: 'json-file', userns: 'host', network: ['a'] });
});

test('which streams the client of a new container stays with', () => {
  assert.deepEqual([...attachedStreams({})], ['stdin', 'stdout', 'stderr']);
  assert.deepEqual([...attachedStreams({ detach: true })], []);
  assert.deepEqual([...attachedStreams({ attach: ['STDOUT'] })], ['stdout']);
  assert.throws(() => attachedStreams({ attach: ['stdout'], detach: true }), /exclude each other/);
  assert.throws(() => attachedStreams({ attach: ['out'] }), /there are stdin, stdout and stderr/);
  assert.equal(createRequest('x', [], { interactive: true, attach: ['stdout'] }).stdinOnce, false);
  assert.equal(
    createRequest('x', [], { stopTimeout: '-1' }).stopTimeoutMs,
    2 ** 31 - 1,
    'as long as it takes',
  );
});

test('networks: the first is the mode and has the address, the others are joined besides', () => {
  assert.deepEqual(
    networkOptions({ network: ['one', 'name=two,alias=web,alias=www,ip=10.1.0.9'], ip: '10.0.0.9' }),
    {
      networkMode: 'one',
      networkAliases: [],
      ipAddress: '10.0.0.9',
      ip6Address: '',
      macAddress: '',
      networks: [{ network: 'two', aliases: ['web', 'www'], address: '10.1.0.9' }],
    },
  );
  assert.equal(networkOptions({ network: ['name=one,ip6=fd00::9'] }).ip6Address, 'fd00::9');
  assert.equal(networkOptions({}).networkMode, '');
  for (const [network, message] of [
    [['host', 'one'], /--network host cannot be together/],
    [['one', 'container:x'], /--network container:x cannot be together/],
    [['one', 'two', 'name=two'], /--network two is there twice/],
    [['name=one,ip=1.2.3.4'], /--ip and --network one/],
    [['ip=1.2.3.4'], /there is no name=/],
    [['name=one,gw-priority=1'], /"gw-priority" is not known/],
    [['name=one,ip='], /ip has no value/],
  ] as const)
    assert.throws(() => networkOptions({ network, ip: '1.1.1.1' }), message);
});

test('environment and labels from files: comments, our own values, what is not set', () => {
  const directory = mkdtempSync(join(tmpdir(), 'arcbox-cli-'));
  try {
    const file = join(directory, 'env');
    writeFileSync(file, '\ufeff# comment\nA=1\r\n\n  B=two words\nPATH\nNOT_SET_ANYWHERE_AT_ALL\n');
    assert.deepEqual(environment(['C=3'], [file]), ['A=1', 'B=two words', `PATH=${process.env.PATH}`, 'C=3']);
    writeFileSync(file, 'one=1\ntwo\n');
    assert.deepEqual(labels(['one=mine'], [file]), { one: 'mine', two: '' });
    writeFileSync(file, 'A B=1\n');
    assert.throws(() => environment([], [file]), /white space/);
    assert.throws(() => environment([], [join(directory, 'nosuch')]), /cannot read/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

const containers: ContainerJson[] = [
  { id: 'aa11', name: 'web', state: 'running', image: 'busybox', createdMs: '30', labels: { tier: 'front' } },
  {
    id: 'bb22',
    name: 'db',
    state: 'exited',
    exitCode: 3,
    image: 'other',
    createdMs: '20',
    labels: { tier: 'back', x: '' },
  },
  { id: 'cc33', name: 'job', state: 'paused', image: 'busybox:latest', createdMs: '10' },
];

test('filters: alternatives of one, all of different ones', () => {
  const table: readonly [readonly string[], boolean, readonly string[]][] = [
    [[], false, ['web', 'job']],
    [[], true, ['web', 'db', 'job']],
    [['status=exited'], false, ['db']],
    [['status=exited', 'status=paused'], false, ['db', 'job']],
    [['name=^(web|db)$'], true, ['web', 'db']],
    [['label=tier'], true, ['web', 'db']],
    [['label=tier=back', 'label=x'], true, ['db']],
    [['label=tier=front', 'label=x'], true, []],
    [['ancestor=busybox'], true, ['web', 'job']],
    [['exited=3'], false, ['db']],
    [['before=web'], true, ['db', 'job']],
    [['since=cc33'], true, ['web', 'db']],
    [['id=bb'], true, ['db']],
  ];
  for (const [filters, all, names] of table) {
    assert.deepEqual(
      filterContainers(containers, filters, { all }).map(({ name }) => name),
      names,
      filters.join(' '),
    );
  }
  assert.throws(
    () => filterContainers(containers, ['size=1'], { all: true }),
    /is no filter; there are id=…/,
  );
  assert.throws(() => filterContainers(containers, ['status=dozing'], { all: true }), /is no status/);
});

test('filters of ports, networks, volumes and health; what ps shows of ports', () => {
  const one: ContainerJson = {
    name: 'one',
    state: 'running',
    image: 'docker.io/library/busybox:latest',
    health: { status: 'healthy' },
    networks: [{ name: 'own', networkId: 'abcdef' }],
    mounts: [{ type: 'volume', source: 'data', target: '/data' }],
    ports: [{ containerPort: 80, protocol: 'tcp', hostAddress: '0.0.0.0', hostPort: 8080 }],
    exposedPorts: ['53/udp', '80/tcp', '7000-7010/tcp'],
  };
  const two: ContainerJson = { name: 'two', state: 'running', host: { networkMode: 'host' } };
  const names = (...filters: string[]): string[] =>
    filterContainers([one, two], filters, { all: true }).map(({ name = '' }) => name);
  for (const filter of [
    ...['health=healthy', 'network=own', 'network=abc', 'volume=data', 'volume=/data', 'publish=8080'],
    ...['publish=8000-9000/tcp', 'expose=80', 'expose=53/udp', 'expose=7005', 'ancestor=busybox'],
  ])
    assert.deepEqual(names(filter), ['one'], filter);
  for (const filter of ['health=none', 'network=host']) assert.deepEqual(names(filter), ['two'], filter);
  for (const filter of ['publish=80', 'publish=8080/udp', 'expose=53', 'volume=dat', 'is-task=true'])
    assert.deepEqual(names(filter), [], filter);
  assert.throws(() => names('publish=http'), /is no port/);
  assert.throws(() => names('health=fine'), /there are starting, healthy/);
  assert.equal(portText(one), '0.0.0.0:8080->80/tcp, 53/udp, 7000-7010/tcp');
  assert.equal(portText({ ...one, state: 'exited', ports: [] }), '');
});

test('docker’s numbers for what a container uses', () => {
  const before = { running: true, cpuUsageNs: '1000', machineCpuNs: '10000', machineCpus: 2 };
  const now = {
    ...before,
    cpuUsageNs: '2000',
    machineCpuNs: '14000',
    memoryBytes: '3000',
    memoryInactiveFileBytes: '1000',
  };
  assert.equal(cpuPercent(now, before), 50);
  assert.equal(cpuPercent(now, undefined), 0);
  assert.equal(memoryUsage(now), 2000);
  assert.equal(humanSize(2000, 1000), '2kB');
  assert.equal(humanSize(1_992_294, 1024), '1.9MiB');
});

test('columns of top: -ef, aux and lists', () => {
  assert.equal(chooseColumns([])[0], 'uid');
  assert.equal(chooseColumns(['aux'])[0], 'user');
  assert.deepEqual(chooseColumns(['-o', 'pid,comm']), ['pid', 'comm']);
  assert.deepEqual(chooseColumns(['-eo', 'pid,args,%cpu']), ['pid', 'args', 'pcpu']);
  assert.throws(() => chooseColumns(['-o', 'pid,nosuch']), /there is no column "nosuch"/);
  assert.throws(() => chooseColumns(['--forest']), /not supported/);
});

test('inspect has docker’s shape', () => {
  const shaped = dockerContainer({
    id: 'ab',
    name: 'web',
    state: 'exited',
    argv: ['/entry', 'arg'],
    entrypointLength: 1,
    exitCode: 3,
    createdMs: '0',
    stopSignal: 15,
  });
  const { State, Config } = shaped as { State: Record<string, unknown>; Config: Record<string, unknown> };
  assert.equal(shaped.Name, '/web');
  assert.equal(shaped.Path, '/entry');
  assert.deepEqual([State.Status, State.Running, State.ExitCode], ['exited', false, 3]);
  assert.deepEqual([Config.Entrypoint, Config.Cmd, Config.StopSignal], [['/entry'], ['arg'], 'SIGTERM']);
});
