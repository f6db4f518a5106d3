/** What a container may reach, and what one can see of it: policies, counters, events, captures. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import net, { type AddressInfo, type Socket } from 'node:net';
import { after, before, test } from 'node:test';
import { NetworkCapture } from './capture.ts';
import { Arcbox, type Outcome } from './support.ts';

const GATEWAY = '172.20.0.1';
let arcbox: Arcbox;
let server: Server;
let port: number;

before(async () => {
  server = createServer((_request, response) => response.end('from the host\n'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  ({ port } = server.address() as AddressInfo);
  arcbox = new Arcbox();
  await ok('run', '-d', '--name', 'agent', 'busybox', 'sleep', '1000');
  await ok('run', '-d', '--name', 'free', 'busybox', 'sleep', '1000');
});
after(async () => {
  await arcbox.run(['rm', '-f', 'agent', 'free']);
  await arcbox[Symbol.asyncDispose]();
  server.close();
});

async function ok(...args: string[]): Promise<string> {
  const { stdout, stderr, code } = await arcbox.run(args);
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
  return stdout;
}

function wget(container: string, host: string, ...options: string[]): Promise<Outcome> {
  return arcbox.run(['exec', container, 'wget', '-q', '-O', '-', ...options, `http://${host}:${port}/`]);
}

async function reaches(container: string, host: string): Promise<void> {
  const { stdout, stderr } = await wget(container, host);
  assert.equal(stdout, 'from the host\n', stderr);
}

async function fails(container: string, host: string, ...options: string[]): Promise<void> {
  const { stdout, code } = await wget(container, host, ...options);
  assert.equal(stdout, '');
  assert.equal(code, 1);
}

test('denied everything but one name: that is reached, and nothing else', async () => {
  await reaches('agent', GATEWAY);
  await ok('network', 'policy', '--default', 'deny', '--allow', 'host.docker.internal/tcp', 'agent');
  await fails('agent', GATEWAY);
  await reaches('agent', 'host.docker.internal');
  await fails('agent', 'host.docker.internal', '--header', 'Host: other.test');
  const ping = await arcbox.run(['exec', 'agent', 'ping', '-c', '1', '-W', '2', '192.0.2.1']);
  assert.notEqual(ping.code, 0);
  const other = await arcbox.run(['exec', 'agent', 'nslookup', '-type=a', 'other.test']);
  assert.match(other.stdout + other.stderr, /REFUSED/);
  await reaches('free', GATEWAY);
});

test('what was denied is an event, and counted', async () => {
  const events = await ok(
    'events',
    '--since',
    '0',
    '--until',
    '0s',
    '--filter',
    'event=network_deny',
    '--format',
    'json',
  );
  const denied = events
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { Actor: { Attributes: Record<string, string> } }).Actor.Attributes);
  const [direct] = denied;
  assert.equal(direct?.destination, GATEWAY);
  assert.equal(direct?.port, String(port));
  assert.equal(direct?.reason, 'no rule allows it');
  assert.ok(
    denied.some(({ names }) => names === 'other.test'),
    events,
  );
  assert.ok(
    denied.some(({ protocol }) => protocol === 'icmp'),
    events,
  );
  const stats = await ok('network', 'stats');
  assert.match(stats, /policy of container +agent +allowed 1, denied ([3-9]|\d{2,})\b/);
  assert.match(stats, /names .*refused [1-9]/);
  assert.match(stats, /machine +default +receivedFrames \d+/);
});

test('each flow is seen: whose it is, where to, and what it has carried', async () => {
  const sockets: Socket[] = [];
  const server = net.createServer((socket) => {
    sockets.push(socket);
    socket.once('data', () => socket.write('x'.repeat(1000)));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port: own } = server.address() as AddressInfo;
  // It says so once it has everything, and holds the connection.
  const client = `{ echo hello; sleep 1000; } | nc host.docker.internal ${own}`;
  const script = `${client} | { head -c 1000 >/dev/null; echo >/tmp/got; cat; }`;
  try {
    await ok('exec', 'free', 'mkfifo', '/tmp/got');
    await ok('exec', '-d', 'free', 'sh', '-c', script);
    await ok('exec', 'free', 'cat', '/tmp/got');
    const lines = (await ok('network', 'stats', '--flows', '--format', 'json')).trim().split('\n');
    const flows = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    const flow = flows.find(({ Destination }) => Destination === `${GATEWAY}:${own}`);
    assert.ok(flow !== undefined, lines.join('\n'));
    const { Protocol, Whose, Machine, Network, State, SentBytes, ReceivedBytes, AgeMs } = flow;
    assert.deepEqual(
      { Protocol, Whose, Machine, Network, State, SentBytes, ReceivedBytes },
      {
        ...{ Protocol: 'tcp', Whose: 'free', Machine: 'default', Network: 'bridge' },
        ...{ State: 'established', SentBytes: 6, ReceivedBytes: 1000 },
      },
    );
    assert.match(String(flow.Source), /^172\.20\.\d+\.\d+:\d+$/);
    assert.ok(Number(AgeMs) >= 0);
    assert.match(await ok('network', 'stats', '--flows'), /tcp +free .* established +6B +1kB/);
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
});

test('a policy is read back, survives the daemon, and is lifted while the container runs', async () => {
  const policy = JSON.parse(await ok('network', 'policy', 'agent')) as unknown;
  const rules = [{ action: 'allow', domains: ['host.docker.internal'], protocol: 'tcp' }];
  assert.deepEqual(policy, { default: 'deny', rules });
  await arcbox.crashDaemon();
  await fails('agent', GATEWAY);
  await reaches('agent', 'host.docker.internal');
  await ok('network', 'policy', '--clear', 'agent');
  await reaches('agent', GATEWAY);
  assert.equal(await ok('network', 'policy', 'agent'), 'null\n');
});

test('a machine’s policy is for the containers that have none', async () => {
  await ok('network', 'policy', '--default', 'public-only');
  await ok('network', 'policy', '--default', 'allow', 'free');
  await fails('agent', GATEWAY);
  await reaches('free', GATEWAY);
  await ok('network', 'policy', '--clear');
  await reaches('agent', GATEWAY);
});

test('a policy that means nothing is refused', async () => {
  for (const [args, message] of [
    [['--default', 'maybe', 'agent'], /the default is "maybe"/],
    [['--default', 'deny', '--allow', 'a b', 'agent'], /the domain "a b"/],
    [['--allow', 'a.test', 'agent'], /--default is missing/],
    [['--default', 'deny', 'nobody'], /no such container/i],
  ] as const) {
    const { code, stderr } = await arcbox.run(['network', 'policy', ...args]);
    assert.equal(code, 1, stderr);
    assert.match(stderr, message);
  }
});

test('a capture of one container is what tshark reads: no malformed packet, no bad checksum', async () => {
  const capture = await NetworkCapture.start(arcbox, 'agent', 'agent');
  await reaches('agent', 'host.docker.internal');
  await reaches('free', 'host.docker.internal');
  await ok('exec', 'agent', 'ping', '-c', '2', GATEWAY);
  await capture.stop('agent');
  assert.equal((await capture.read('http.request')).length, 1, 'of one container only');
  assert.equal((await capture.read('icmp')).length, 4);
  assert.ok((await capture.read('dns')).length >= 2);
  assert.deepEqual(await capture.broken(), []);
});
