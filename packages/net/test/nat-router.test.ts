/**
 * The NAT engine on a real datapath: two network namespaces with a router of ours between them. One is the machine
 * (10.7.0.2), the other the world (198.41.0.4), with a second router of the kernel's in it.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { NetError } from '../src/errors.ts';
import { NatRouter, type RouterCounters } from '../src/nat/index.ts';
import { connect, Namespace, Program } from './support/namespace.ts';

const ROUTER = new URL('./support/router-program.ts', import.meta.url).pathname;
const UDP = new URL('./support/udp-program.ts', import.meta.url).pathname;
const WORLD = '198.41.0.4';
const FAR = '203.0.113.7';

async function counters(router: Program): Promise<RouterCounters> {
  const before = router.output.length;
  router.tell('counters');
  await router.until('}\n', before);
  return JSON.parse(router.output.slice(before)) as RouterCounters;
}

/** Starts a server of one connection, a pipe of shell commands, and waits until it listens. */
async function listening(where: Namespace, port: number, ...command: string[]): Promise<Program> {
  const program = new Program(where.spawn(...command), 'signal');
  for (let waitMs = 1; ; waitMs *= 2) {
    if ((await where.run('ss', '-lntuH', `sport = :${port}`)).trim() !== '') return program;
    assert.ok(waitMs < 20_000, `${command.join(' ')} does not listen`);
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

test('ping, TCP, UDP and errors between two namespaces', async (t) => {
  await using machine = await Namespace.create();
  await using world = await Namespace.create();
  await using far = await Namespace.create();
  await using router = await machine.program(ROUTER);
  await machine.ip('route add default dev in0');
  await machine.ip(`link set out0 netns ${world.pid}`);
  await world.ip('addr add 192.0.2.254 peer 192.0.2.1 dev out0');
  await world.ip('link set out0 up');
  await world.ip(`addr add ${WORLD}/32 dev lo`);
  // Behind the world's own router.
  await connect(world, 'w0', far, 'f0');
  await world.ip('addr add 203.0.113.1/24 dev w0');
  await far.ip(`addr add ${FAR}/24 dev f0`);
  await far.ip('route add default via 203.0.113.1');
  await world.run('sysctl', '-qw', 'net.ipv4.ip_forward=1');

  await t.test('ping, small and in fragments', async () => {
    assert.match(await machine.run('busybox', 'ping', '-c', '2', '-i', '0.1', WORLD), /2 packets received/);
    assert.match(await machine.run('busybox', 'ping', '-c', '1', '-s', '4000', WORLD), /1 packets received/);
    assert.match(await machine.run('busybox', 'ping', '-c', '1', '10.7.0.1'), /1 packets received/);
    assert.match(await machine.run('busybox', 'ping', '-c', '1', FAR), /1 packets received/);
    assert.match(await world.run('busybox', 'ping', '-c', '1', '192.0.2.1'), /1 packets received/);
  });

  await t.test('TCP out: a megabyte each way, from our address', async () => {
    await using server = await listening(
      world,
      7000,
      ...['busybox', 'nc', '-l', '-p', '7000', '-e', 'sh', '-c'],
      'head -c 1000000 | sha256sum; head -c 1000000 /dev/zero',
    );
    const sent = Buffer.alloc(1_000_000, 0x61);
    const received = await machine.run(
      ...[
        'sh',
        '-c',
        `head -c 1000000 /dev/zero | tr '\\0' a | busybox nc ${WORLD} 7000 | head -c 1000067 | tail -c +1`,
      ],
    );
    assert.equal(received.slice(0, 64), createHash('sha256').update(sent).digest('hex'));
    assert.equal(received.length, 1_000_000 + 68 - 1);
    assert.equal(server.output, '');
  });

  await t.test('TCP in, by a published port', async () => {
    await using server = await listening(
      machine,
      80,
      'busybox',
      'nc',
      '-l',
      '-p',
      '80',
      '-e',
      'echo',
      'from inside',
    );
    assert.equal(await world.run('busybox', 'nc', '192.0.2.1', '8080'), 'from inside\n');
    assert.equal(server.output, '');
    const refused = await world.attempt('busybox', 'nc', '192.0.2.1', '8081');
    assert.match(refused.output, /refused/);
  });

  await t.test('UDP, and a port where nobody listens', async () => {
    await using server = await world.program(UDP, 'echo', WORLD, '7001');
    assert.equal(await machine.run(process.execPath, UDP, 'ask', WORLD, '7001'), '<hello>\n');
    assert.equal(server.output, 'ready\nfrom 192.0.2.1\n');
    // The error quotes a packet that was translated, and reaches the socket that sent it.
    assert.equal(await machine.run(process.execPath, UDP, 'ask', WORLD, '7002'), 'ECONNREFUSED\n');
  });

  await t.test('traceroute sees every hop: us, the world, what is behind it', async () => {
    const hops = await machine.run('busybox', 'traceroute', '-n', '-q', '1', '-w', '20', '-m', '5', FAR);
    const seen = hops.split('\n').flatMap((line) => /^ *\d+ +([0-9.]+)/.exec(line)?.[1] ?? []);
    assert.deepEqual(seen, ['10.7.0.1', '192.0.2.254', FAR]);
  });

  await t.test('what passed was counted, and nothing was malformed but IPv6', async () => {
    const { nat, connections, dropped } = await counters(router);
    assert.ok(nat.forwardedOut > 700 && nat.forwardedIn > 700, JSON.stringify(nat));
    assert.ok(nat.fast > nat.forwardedOut, 'most took the fast path');
    assert.ok(connections > 0);
    assert.equal(nat.untranslatable, 0);
    assert.equal(dropped, 0);
  });

  await t.test('its devices go with it', async () => {
    await router[Symbol.asyncDispose]();
    assert.doesNotMatch(await machine.ip('-br link'), /in0/);
    assert.doesNotMatch(await world.ip('-br link'), /out0/);
  });
});

test('a router that cannot start says why, and leaves nothing', async () => {
  const nat = { inside: ['10.7.0.0/24'], gateway: '10.7.0.1', outside: '192.0.2.1' };
  await assert.rejects(
    NatRouter.start({ inside: { name: 'a-name-that-is-too-long' }, outside: { name: 'x' }, nat }),
    (error) =>
      error instanceof NetError && error.code === 'ERR_ARCBOX_NET_HOST' && /TUN|tun/.test(error.message),
  );
});
