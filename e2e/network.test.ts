/** Containers on networks: of one machine among each other. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Arcbox } from './support.ts';

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
    'ip -4 addr show eth0; ip route; cat /etc/resolv.conf; grep "$(hostname)" /etc/hosts; ping -c 1 -W 5 172.20.3.4',
  );
  assert.match(output, /inet 172\.20\.0\.\d+\/16/);
  assert.match(output, /default via 172\.20\.0\.1 dev eth0/);
  assert.match(output, /nameserver 172\.20\.0\.1/);
  assert.match(output, /172\.20\.0\.\d+\t[0-9a-f]{12}\n/);
  assert.match(output, /1 packets received/);
});

test('none, the machine’s network, and another container’s', async () => {
  assert.equal(await inside(['--network', 'none'], 'ls /sys/class/net; cat /etc/resolv.conf'), 'lo\n');
  assert.match(
    await inside(['--network', 'container:server'], 'ip -4 addr show eth0'),
    /inet 172\.20\.3\.4\/16/,
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

test('the network of a container that runs survives the daemon', async () => {
  await arcbox.crashDaemon();
  assert.match(await inside([], 'ping -c 1 -W 5 172.20.3.4'), /1 packets received/);
});
