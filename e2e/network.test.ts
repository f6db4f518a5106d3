/** Containers on networks: of one machine among each other. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { after, before, test } from 'node:test';
import { Arcbox, answerOf, freePorts, untilAnswered } from './support.ts';

let arcbox: Arcbox;
before(async () => {
  arcbox = new Arcbox();
  const server = await arcbox.run([
    'run',
    '-d',
    '--name',
    'server',
    '--ip',
    '172.20.3.4',
    'busybox',
    'sleep',
    '1000',
  ]);
  assert.equal(server.code, 0, server.stderr);
});
after(async () => {
  await arcbox.run(['rm', '-f', 'server']);
  await arcbox[Symbol.asyncDispose]();
});

async function inside(network: readonly string[], script: string): Promise<string> {
  const { stdout, stderr, code } = await arcbox.run([
    'run',
    '--rm',
    ...network,
    'busybox',
    'sh',
    '-c',
    script,
  ]);
  assert.equal(stderr, '');
  assert.equal(code, 0, stdout);
  return stdout;
}

test('a container has an address of its own, and reaches the others of its network', async () => {
  const output = await inside(
    [],
    'ip -4 addr show eth0; ip route; cat /etc/resolv.conf; grep "$(hostname)" /etc/hosts; ping -c 1 -W 20 172.20.3.4',
  );
  assert.match(output, /inet 172\.20\.0\.\d+\/16/);
  assert.match(output, /default via 172\.20\.0\.1 dev eth0/);
  assert.match(output, /nameserver 172\.20\.0\.1/);
  assert.match(output, /172\.20\.0\.\d+\t[0-9a-f]{12}\n/);
  assert.match(output, /1 packets received/);
  assert.equal(await inside([], 'ip -6 addr show eth0'), '', 'its network has no IPv6, and so has it');
});

test('none, the machine’s network, and another container’s', async () => {
  assert.equal(await inside(['--network', 'none'], 'ls /sys/class/net; cat /etc/resolv.conf'), 'lo\n');
  assert.match(
    await inside(['--network', 'container:server'], 'ip -4 addr show eth0'),
    /inet 172\.20\.3\.4\/16/,
  );
  assert.match(
    await inside(['--network', 'host'], 'ping -c 1 -W 20 host.docker.internal; ip route'),
    /1 packets received[\s\S]*default via 169\.254\.100\.1/,
  );
  // The cables of the machine's containers end there.
  assert.match(await inside(['--network', 'host'], 'ls /sys/class/net'), /^b1$/m);
});

test('an address that is taken, a network that is not there, an alias nowhere: refused, and nothing is left', async () => {
  const refused = async (...options: string[]): Promise<string> => {
    const { code, stderr } = await arcbox.run(['create', ...options, 'busybox', 'true']);
    assert.equal(code, 125);
    return stderr;
  };
  assert.match(await refused('--ip', '172.20.3.4'), /172\.20\.3\.4 is leased to/);
  assert.match(await refused('--ip', '10.0.0.1'), /10\.0\.0\.1 is not in subnet 172\.20\.0\.0\/16/);
  assert.match(await refused('--network', 'nosuch'), /no such network: nosuch/);
  assert.match(await refused('--network', 'none', '--network-alias', 'web'), /in none/);
  const { stdout } = await arcbox.run(['ps', '-aq']);
  assert.equal(stdout.trim().split('\n').length, 1, stdout);
});

test('networks of one’s own: made, joined and left while a container runs, removed', async () => {
  const run = async (...args: string[]): Promise<string> => {
    const { stdout, stderr, code } = await arcbox.run(args);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  const id = (await run('network', 'create', '--subnet', '10.77.0.0/24', '--label', 'a=b', 'own')).trim();
  assert.match(id, /^[0-9a-f]{64}$/);
  await run('network', 'connect', '--ip', '10.77.0.9', '--alias', 'db', 'own', 'server');
  assert.match(
    await inside(
      ['--network', 'own', '--network', 'bridge', '-a', 'stdout', '-a', 'stderr'],
      'ip route; ip -4 addr show eth1; ping -c 1 -W 20 10.77.0.9 && ping -c 1 -W 20 172.20.3.4',
    ),
    /^default via 10\.77\.0\.1 dev eth0 [\s\S]*inet 172\.20\.0\.\d+\/16[\s\S]*1 packets received[\s\S]*1 packets received/,
  );
  const isolated = await arcbox.run(['run', '--rm', 'busybox', 'ping', '-c', '1', '-W', '1', '10.77.0.9']);
  assert.match(isolated.stdout, /0 packets received/);
  const format = '{{.NetworkSettings.Networks.own.IPAddress}} {{.NetworkSettings.IPAddress}}';
  assert.equal(await run('inspect', '--format', format, 'server'), '10.77.0.9 172.20.3.4\n');
  assert.match(await run('network', 'inspect', 'own'), /"IPv4Address": "10\.77\.0\.9\/24"/);
  const table = await run('network', 'ls');
  assert.match(table, /^NETWORK ID +NAME +DRIVER +SUBNET +CONTAINERS\n/);
  assert.match(table, new RegExp(`^${id.slice(0, 12)} +own +bridge +10\\.77\\.0\\.0/24 +1$`, 'm'));
  const busy = await arcbox.run(['network', 'rm', 'own']);
  assert.equal(busy.code, 1);
  assert.match(busy.stderr, /has 1 containers/);
  await run('network', 'disconnect', 'own', 'server');
  assert.equal(await run('exec', 'server', 'ls', '/sys/class/net'), 'eth0\nlo\n');
  await run('network', 'create', 'other');
  assert.deepEqual((await run('network', 'prune', '-f')).split('\n').sort(), ['', 'other', 'own']);
  assert.deepEqual((await run('network', 'ls', '--format', '{{.Name}}')).trim().split('\n'), [
    'bridge',
    'host',
    'none',
  ]);
  assert.doesNotMatch(await inside(['--network', 'host'], 'ls /sys/class/net'), /^[bv]2$/m);
});

test('the network of a container that runs survives the daemon', async () => {
  await arcbox.crashDaemon();
  assert.match(await inside([], 'ping -c 1 -W 20 172.20.3.4'), /1 packets received/);
});

test('the host’s loopback is reached by name, and so are other containers', async () => {
  const server = createServer((_request, response) => response.end('from the host'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    const { port } = server.address() as AddressInfo;
    const output = await inside(
      [],
      `wget -q -O - http://host.docker.internal:${port}/; ping -c 1 -W 20 gateway; ping -c 1 -W 20 server; nslookup server.bridge.arcbox.local`,
    );
    assert.match(output, /from the host/);
    assert.equal(output.match(/1 packets received/g)?.length, 2, output);
    assert.match(output, /Address.*172\.20\.3\.4/);
  } finally {
    server.close();
  }
});

test('a published port: from the host, refused when taken, bound again after a crash, free at the end', async () => {
  const web = 'while true; do nc -l -p 80 -e sh -c "read line; echo got \\$line"; done';
  const run = await arcbox.run([
    'run',
    '-d',
    '--name',
    'web',
    '-p',
    '127.0.0.1::80',
    '-P',
    '--expose',
    '81',
    'busybox',
    'sh',
    '-c',
    web,
  ]);
  assert.equal(run.code, 0, run.stderr);
  const hostPort = async (): Promise<number> => {
    const { stdout } = await arcbox.run(['port', 'web', '80']);
    assert.match(stdout, /^127\.0\.0\.1:\d+\n$/);
    return Number(stdout.trim().split(':')[1]);
  };
  const port = await hostPort();
  assert.match((await arcbox.run(['port', 'web', '81'])).stdout, /^0\.0\.0\.0:\d+$/m, 'by -P');
  assert.equal(await untilAnswered(port, 'this\n'), 'got this\n');
  const taken = await arcbox.run(['run', '--rm', '-p', `127.0.0.1:${port}:1`, 'busybox', 'true']);
  assert.equal(taken.code, 125);
  assert.match(taken.stderr, /is in use/);
  assert.match((await arcbox.run(['ps'])).stdout, new RegExp(`127\\.0\\.0\\.1:${port}->80/tcp`));
  await arcbox.crashDaemon();
  assert.equal(await hostPort(), port);
  assert.equal(await untilAnswered(port, 'this\n'), 'got this\n');
  await arcbox.run(['rm', '-f', 'web']);
  assert.equal(await answerOf(port, 'this\n'), '');
});

test('a range of ports is published one to one, and a range with one taken port not at all', async () => {
  const first = await freePorts(3);
  const echo = `for p in 8000 8001 8002; do
      export p; while true; do nc -l -p $p -e sh -c 'read line; echo $p $line'; done &
    done; wait`;
  const range = `127.0.0.1:${first}-${first + 2}:8000-8002`;
  const run = await arcbox.run(['run', '-d', '--name', 'row', '-p', range, 'busybox', 'sh', '-c', echo]);
  assert.equal(run.code, 0, run.stderr);
  for (const index of [0, 1, 2]) {
    assert.equal(await untilAnswered(first + index, 'hello\n'), `${8000 + index} hello\n`);
  }
  const { stdout } = await arcbox.run(['port', 'row']);
  const lines = [0, 1, 2].map((index) => `${8000 + index}/tcp -> 127.0.0.1:${first + index}`);
  assert.deepEqual(stdout.trim().split('\n').sort(), lines);
  const find = 'nslookup row.arcbox.local; true';
  assert.match(await inside([], find), /Address: 172\.20\./);
  await arcbox.run(['rm', '-f', 'row']);
  assert.match(await inside([], find), /NXDOMAIN/, 'its name goes with it');
  const holder = createTcpServer().listen(first + 2, '127.0.0.1');
  await once(holder, 'listening');
  try {
    const taken = await arcbox.run(['run', '--rm', '-p', range, 'busybox', 'true']);
    assert.equal(taken.code, 125);
    assert.match(taken.stderr, new RegExp(`${first + 2}/tcp is in use`));
    assert.equal(await answerOf(first, 'hello\n'), '', 'the others are free again');
  } finally {
    holder.close();
  }
});
