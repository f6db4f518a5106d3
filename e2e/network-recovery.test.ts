/** Published ports in both families, and what a daemon's crash makes of ports, addresses and connections. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { Arcbox } from './support.ts';

const LISTEN_LIMIT_MS = 60_000;
/** A web server that says which container it is. */
const WEB = ['busybox', 'sh', '-c', 'hostname >/tmp/index.html; exec httpd -f -p 80 -h /tmp'];

let arcbox: Arcbox;
before(async () => {
  arcbox = new Arcbox();
  await ok('run', '-d', '--name', 'web', '-h', 'web', '-p', '80', ...WEB);
});
after(async () => {
  await arcbox.run(['rm', '-f', 'web', 'late', 'waiting']);
  await arcbox[Symbol.asyncDispose]();
});

async function ok(...args: string[]): Promise<string> {
  const { stdout, stderr, code } = await arcbox.run(args);
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** Ends that `arcbox port` tells, such as `0.0.0.0:32768`. */
async function ends(container: string): Promise<string[]> {
  return (await ok('port', container, '80')).trim().split('\n');
}

const portOf = (end: string): number => Number(end.slice(end.lastIndexOf(':') + 1));

/** The page at a port; asks again until somebody listens inside. */
async function page(host: string, port: number): Promise<string> {
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${port}/`;
  const endMs = performance.now() + LISTEN_LIMIT_MS;
  for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 500)) {
    try {
      return await (await fetch(url, { headers: { connection: 'close' } })).text();
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

/** Takes a port of the host, as soon as it is free: what a killed process had is let go of a moment later. */
async function take(host: string, port: number): Promise<net.Server> {
  const endMs = performance.now() + LISTEN_LIMIT_MS;
  for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 500)) {
    const server = net.createServer((socket) => socket.destroy());
    server.listen({ host, port, ipv6Only: host.includes(':') });
    try {
      await once(server, 'listening');
      return server;
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

test('a port without an address is bound in both families, with one number', async () => {
  const [four = '', six = ''] = await ends('web');
  assert.match(four, /^0\.0\.0\.0:\d+$/);
  assert.equal(six, `[::]:${portOf(four)}`);
  assert.equal(await page('127.0.0.1', portOf(four)), 'web\n');
  assert.equal(await page('::1', portOf(four)), 'web\n');
});

test('a port of the IPv6 loopback only', async () => {
  await ok('run', '-d', '--name', 'late', '-h', 'late', '-p', '[::1]:0:80', ...WEB);
  const [six = '', ...more] = await ends('late');
  assert.match(six, /^\[::1\]:\d+$/);
  assert.deepEqual(more, []);
  assert.equal(await page('::1', portOf(six)), 'late\n');
  const taken = await take('127.0.0.1', portOf(six));
  taken.close();
  await ok('rm', '-f', 'late');
});

test('a port that is taken in IPv6 only keeps the container from starting, and is not kept in IPv4', async () => {
  const taken = await take('::', 0);
  const { port } = taken.address() as AddressInfo;
  try {
    const { code, stderr } = await arcbox.run(['run', '-d', '--name', 'late', '-p', `${port}:80`, ...WEB]);
    assert.equal(code, 125);
    assert.match(stderr, new RegExp(`\\[::\\]:${port}/tcp is in use`));
    assert.equal(await ok('ps', '-q', '--filter', 'name=^late$'), '');
    (await take('127.0.0.1', port)).close();
  } finally {
    taken.close();
  }
  await ok('rm', '-f', 'late');
});

test('an address that the host does not have is refused', async () => {
  const { code, stderr } = await arcbox.run(['run', '--rm', '-p', '[2001:db8::1]::80', 'busybox', 'true']);
  assert.equal(code, 125);
  assert.match(stderr, /2001:db8::1 is no address of this host/);
});

test('after a crash: connections of before end on both sides, ports and addresses are as they were', async () => {
  // A server on the host that begins an answer and does not go on; the container says nothing while it waits.
  const begun = Promise.withResolvers<void>();
  const slow = createServer((_request, response) => {
    response.writeHead(200, { 'content-length': 1000 });
    response.write('begun\n', () => begun.resolve());
  });
  slow.listen(0, '127.0.0.1');
  await once(slow, 'listening');
  try {
    const { port } = slow.address() as AddressInfo;
    const script = `wget -O - http://host.docker.internal:${port}/ || echo ended`;
    await ok('run', '-d', '--name', 'waiting', 'busybox', 'sh', '-c', script);
    await begun.promise;
    const before = await ends('web');
    const client = net.connect({ host: '127.0.0.1', port: portOf(before[0] ?? '') });
    // Inside it is connected when the server has answered.
    client.write('GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n');
    await once(client, 'data');
    client.on('error', () => {});
    const address = await ok('inspect', '--format', '{{.NetworkSettings.IPAddress}}', 'web');
    await arcbox.crashDaemon();
    if (!client.destroyed) await once(client.resume(), 'close');
    assert.equal((await ok('wait', 'waiting')).trim(), '0');
    assert.match(await ok('logs', 'waiting'), /begun\n[\s\S]*ended\n/);
    assert.deepEqual(await ends('web'), before);
    for (const [index, host] of ['127.0.0.1', '::1'].entries())
      assert.equal(await page(host, portOf(before[index] ?? '')), 'web\n');
    assert.equal(await ok('inspect', '--format', '{{.NetworkSettings.IPAddress}}', 'web'), address);
    const refused = await arcbox.run(['create', '--ip', address.trim(), 'busybox', 'true']);
    assert.match(refused.stderr, /is leased to/);
  } finally {
    slow.closeAllConnections();
    slow.close();
  }
});

test('a port that was taken between a crash and the next daemon is told of, and the container goes on without', async () => {
  const free = await take('0.0.0.0', 0);
  const { port } = free.address() as AddressInfo;
  free.close();
  await ok('run', '-d', '--name', 'late', '-h', 'late', '-p', `${port}:80`, ...WEB);
  await arcbox.crashDaemon();
  const taken = await take('0.0.0.0', port);
  try {
    assert.equal(await ok('port', 'late'), '');
    assert.equal(await ok('exec', 'late', 'hostname'), 'late\n');
    const events = await ok('events', '--since', '0', '--until', '0s', '--filter', 'event=ports_lost');
    assert.match(events, new RegExp(`0\\.0\\.0\\.0:${port}/tcp is in use`));
    assert.match(arcbox.daemonLog(), /container\.ports_lost/);
  } finally {
    taken.close();
  }
  await ok('restart', '-t', '0', 'late');
  assert.deepEqual((await ends('late')).map(portOf), [port, port]);
  assert.equal(await page('127.0.0.1', port), 'late\n');
});
