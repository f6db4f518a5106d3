/** Networks with IPv6 beside IPv4: addresses, names, neighbours, the host, and what is kept over a crash. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { Arcbox } from './support.ts';

const SUBNET = 'fd00:a::/64';
const LISTEN_LIMIT_MS = 60_000;
const WEB = ['busybox', 'sh', '-c', 'hostname >/tmp/index.html; exec httpd -f -p 80 -h /tmp'];

let arcbox: Arcbox;
before(async () => {
  arcbox = new Arcbox();
  await ok('network', 'create', '--ipv6', '--subnet', SUBNET, '--subnet', '10.66.0.0/24', 'six');
  const place = ['--network', 'six', '--ip6', 'fd00:a::99', '--network-alias', 'site'];
  await ok('run', '-d', '--name', 'web', '-h', 'web', '-p', '80', ...place, ...WEB);
});
after(async () => {
  await arcbox.run(['rm', '-f', 'web', 'late']);
  await arcbox[Symbol.asyncDispose]();
});

async function ok(...args: string[]): Promise<string> {
  const { stdout, stderr, code } = await arcbox.run(args);
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
  return stdout;
}

const inSix = (script: string): Promise<string> =>
  ok('run', '--rm', '--network', 'six', 'busybox', 'sh', '-c', script);

const inspect = async (container: string, field: string): Promise<string> =>
  (await ok('inspect', '--format', `{{.NetworkSettings.Networks.${field}}}`, container)).trim();

test('a container has one address of its own, a route, names for others, and reaches them', async () => {
  // A server that has just been started may not listen yet.
  const output = await inSix(`
    ip -6 addr show eth0 scope global; ip -6 route; grep fd00 /etc/hosts
    nslookup -type=aaaa web; nslookup -type=a site; nslookup fd00:a::99
    ping6 -c 2 -W 20 web; ping6 -c 2 -W 20 gateway
    for wait in 0.1 0.2 0.5 1 2 5 10 20; do wget -q -O - http://[fd00:a::99]/ && break; sleep $wait; done`);
  assert.deepEqual(output.match(/inet6 \S+ scope global/g), ['inet6 fd00:a::2/64 scope global']);
  assert.match(output, /^default via fd00:a::1 dev eth0/m);
  assert.match(output, /^fd00:a::2\t[0-9a-f]{12}$/m);
  assert.match(output, /Name:\s+web\nAddress: fd00:a::99\n/);
  assert.match(output, /Name:\s+site\nAddress: 10\.66\.0\.2\n/);
  assert.match(output, /name = web\.six\n/);
  assert.equal(output.match(/ 2 packets received/g)?.length, 2, output);
  assert.match(output, /^web$/m);
});

/** Servers on one port of both loopback addresses: what the system gives for one need not be free for the other. */
async function inBothFamilies(
  sixSays: string,
  fourSays: string,
): Promise<{ six: Server; four: Server; port: number }> {
  for (;;) {
    const [six, four] = [sixSays, fourSays].map((text) =>
      createServer((_request, response) => response.end(text)),
    ) as [Server, Server];
    six.listen(0, '::1');
    await once(six, 'listening');
    const { port } = six.address() as AddressInfo;
    try {
      four.listen(port, '127.0.0.1');
      await once(four, 'listening');
      return { six, four, port };
    } catch (error) {
      six.close();
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    }
  }
}

test('the host’s loopback is behind the gateway in both families; the host’s name is IPv4', async () => {
  const { six, four, port } = await inBothFamilies('over six\n', 'over four\n');
  try {
    const output = await inSix(
      `wget -q -O - http://[fd00:a::1]:${port}/; wget -q -O - http://host.docker.internal:${port}/`,
    );
    assert.equal(output, 'over six\nover four\n');
  } finally {
    six.close();
    four.close();
  }
});

test('a published port of such a container is reached in both families', async () => {
  const port = (await ok('port', 'web', '80')).split('\n')[0]?.split(':').at(-1);
  const endMs = performance.now() + LISTEN_LIMIT_MS;
  for (const host of ['127.0.0.1', '[::1]']) {
    for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 500)) {
      try {
        assert.equal(await (await fetch(`http://${host}:${port}/`)).text(), 'web\n');
        break;
      } catch (error) {
        if (performance.now() > endMs) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }
});

test('inspect says it as docker does', async () => {
  assert.equal(await inspect('web', 'six.GlobalIPv6Address'), 'fd00:a::99');
  assert.equal(await inspect('web', 'six.GlobalIPv6PrefixLen'), '64');
  assert.equal(await inspect('web', 'six.IPv6Gateway'), 'fd00:a::1');
  const [network] = JSON.parse(await ok('network', 'inspect', 'six')) as {
    EnableIPv6: boolean;
    IPAM: { Config: unknown };
    Containers: Record<string, { IPv6Address: string }>;
  }[];
  assert.equal(network?.EnableIPv6, true);
  assert.deepEqual(network.IPAM.Config, [
    { Subnet: '10.66.0.0/24', Gateway: '10.66.0.1' },
    { Subnet: SUBNET, Gateway: 'fd00:a::1' },
  ]);
  assert.deepEqual(
    Object.values(network.Containers).map(({ IPv6Address }) => IPv6Address),
    ['fd00:a::99/64'],
  );
});

test('a container that runs joins it, and has its default route over it; its addresses are kept over a crash', async () => {
  await ok('run', '-d', '--name', 'late', 'busybox', 'sleep', '1000');
  await ok('network', 'connect', '--ip6', 'fd00:a::77', 'six', 'late');
  assert.match(await ok('exec', 'late', 'ip', '-6', 'route'), /^default via fd00:a::1 dev eth1/m);
  assert.match(await ok('exec', 'late', 'ping6', '-c', '1', '-W', '20', 'web'), / 1 packets received/);
  await arcbox.crashDaemon();
  assert.equal(await inspect('late', 'six.GlobalIPv6Address'), 'fd00:a::77');
  assert.match(await ok('exec', 'late', 'ping6', '-c', '1', '-W', '20', 'fd00:a::1'), / 1 packets received/);
  const taken = await arcbox.run(['create', '--network', 'six', '--ip6', 'fd00:a::77', 'busybox', 'true']);
  assert.match(taken.stderr, /fd00:a::77 is leased to/);
  await ok('network', 'disconnect', 'six', 'late');
  await ok('network', 'connect', '--ip6', 'fd00:a::77', 'six', 'late');
});

test('a policy counts for IPv6 as well', async () => {
  const server = createServer((_request, response) => response.end('over six\n'));
  server.listen(0, '::1');
  await once(server, 'listening');
  try {
    const { port } = server.address() as AddressInfo;
    const fetch = () => arcbox.run(['exec', 'late', 'wget', '-q', '-O', '-', `http://[fd00:a::1]:${port}/`]);
    await ok('network', 'policy', '--default', 'deny', 'late');
    assert.equal((await fetch()).code, 1);
    await ok('network', 'policy', '--default', 'deny', '--allow', `[fd00:a::1]:${port}/tcp`, 'late');
    assert.equal((await fetch()).stdout, 'over six\n');
    await ok('network', 'policy', '--clear', 'late');
    assert.equal((await fetch()).stdout, 'over six\n');
  } finally {
    server.close();
  }
});

test('what cannot be is refused', async () => {
  const refused = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await arcbox.run(args);
    assert.notEqual(code, 0);
    return stderr;
  };
  const create = (...args: string[]) => refused('network', 'create', ...args, 'other');
  assert.match(await create('--subnet', 'fd00:b::/64'), /made with --ipv6/);
  assert.match(await create('--ipv6', '--subnet', 'fd00:a::/80'), /overlaps fd00:a::\/64 of the network six/);
  assert.match(await create('--ipv6', '--subnet', 'fd00:b::/64', '--gateway', 'fd00:c::1'), /not in subnet/);
  assert.match(await create('--ipv6', '--subnet', 'fd00:b::/64', '--subnet', 'fd00:c::/64'), /are more/);
  assert.match(await refused('create', '--ip6', 'fd00:a::5', 'busybox', 'true'), /has no IPv6/);
});

test('without a subnet it gets a private one of its own', async () => {
  await ok('network', 'create', '--ipv6', 'own');
  const config = await ok('network', 'inspect', '--format', '{{json .IPAM.Config}}', 'own');
  assert.match(config, /"Subnet":"fd[0-9a-f]{2}:[0-9a-f]{1,4}:[0-9a-f]{1,4}::\/64"/);
  await ok('network', 'rm', 'own');
});
