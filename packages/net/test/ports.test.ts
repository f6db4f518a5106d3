import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { NetError } from '../src/errors.ts';
import { type Inside, PublishedPorts, type PublishOptions, parsePortSpec } from '../src/ports/index.ts';

/** The "inside" of these tests is another port of loopback. */
const loopback: Inside = {
  async dial(target, _from, signal) {
    const socket = connect({ host: '127.0.0.1', port: target.port, allowHalfOpen: true, signal });
    await once(socket, 'connect');
    return socket;
  },
  datagrams(target, _from, onMessage) {
    const socket = dgram.createSocket('udp4');
    socket.on('message', onMessage);
    return { send: (payload) => socket.send(payload, target.port, '127.0.0.1'), close: () => socket.close() };
  },
};

async function serving(onSocket: (socket: Socket) => void): Promise<{ port: number } & AsyncDisposable> {
  const sockets: Socket[] = [];
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    onSocket(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  return {
    port: address.port,
    async [Symbol.asyncDispose]() {
      server.close();
      for (const socket of sockets) socket.destroy();
      await once(server, 'close');
    },
  };
}

function publish(spec: string, fields: Partial<PublishOptions> = {}): Promise<PublishedPorts> {
  return PublishedPorts.publish({
    mappings: parsePortSpec(spec),
    address: '10.1.0.2',
    inside: loopback,
    defaultAddresses: ['127.0.0.1', '::1'],
    ...fields,
  });
}

const hostPort = (published: PublishedPorts, index = 0): number => published.ports[index]?.hostPort ?? -1;
const code = (expected: string) => (error: unknown) => error instanceof NetError && error.code === expected;

test('specifications as docker takes them', () => {
  const one = { containerPort: 80, protocol: 'tcp' };
  const at = (first: number, last = first) => ({ hostPorts: { first, last } });
  for (const [text, expected] of [
    ['80', [one]],
    ['8080:80', [{ ...one, ...at(8080) }]],
    [':80', [one]],
    ['0:80', [one]],
    ['8080:80/udp', [{ ...one, ...at(8080), protocol: 'udp' }]],
    ['127.0.0.1:8080:80', [{ ...one, ...at(8080), hostAddress: '127.0.0.1' }]],
    ['127.0.0.1::80/udp', [{ ...one, hostAddress: '127.0.0.1', protocol: 'udp' }]],
    ['[::1]:8080:80', [{ ...one, ...at(8080), hostAddress: '::1' }]],
    ['[::]::80', [{ ...one, hostAddress: '::' }]],
    ['8000-8010:80', [{ ...one, ...at(8000, 8010) }]],
    [
      '8080-8081:80-81',
      [
        { ...one, ...at(8080) },
        { ...one, ...at(8081), containerPort: 81 },
      ],
    ],
    ['80-81', [one, { ...one, containerPort: 81 }]],
  ] as const) {
    assert.deepEqual(parsePortSpec(text), expected, text);
  }
  for (const text of [
    '',
    'x',
    '80:',
    '0',
    '65536',
    '8080:65536',
    '80/sctp',
    '90-80',
    '8000-8001:80-82',
    '127.0.0.1:80',
    '::1:8080:80',
    'localhost:8080:80',
    '1:2:3:4',
    '1-9999:1-9999',
    '8080:80 ',
  ]) {
    assert.throws(() => parsePortSpec(text), code('ERR_ARCBOX_NET_PORT_SPEC'), text);
  }
});

test('a connection over IPv4 and IPv6; the end of each direction passes on its own', async () => {
  await using server = await serving((socket) => {
    let heard = 0;
    socket.on('data', (chunk) => {
      heard += chunk.length;
    });
    // Answers after the client has finished speaking.
    socket.once('end', () => socket.end(`heard ${heard}`));
  });
  await using published = await publish(`${server.port}`);
  assert.deepEqual(
    published.ports.map((port) => port.hostAddress),
    ['127.0.0.1', '::1'],
  );
  assert.equal(hostPort(published, 0), hostPort(published, 1));
  for (const host of ['127.0.0.1', '::1']) {
    const client = connect({ host, port: hostPort(published), allowHalfOpen: true });
    client.end(Buffer.alloc(1_000_000));
    assert.equal((await buffer(client)).toString(), 'heard 1000000');
  }
  assert.equal(published.ports[0]?.counters.bytesIn, 1_000_000);
  assert.equal(published.ports[1]?.counters.bytesOut, 13);
});

/** The code of what ended a socket. */
function ending(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'failed'));
    socket.once('close', () => resolve('closed'));
  });
}

test('nothing listens inside: the client is reset at once', async () => {
  const gone = await serving(() => {});
  await gone[Symbol.asyncDispose]();
  await using published = await publish(`127.0.0.1::${gone.port}`);
  const began = performance.now();
  const client = connect({ host: '127.0.0.1', port: hostPort(published) });
  client.resume();
  assert.equal(await ending(client), 'ECONNRESET');
  assert.ok(performance.now() - began < 1000);
  assert.equal(published.ports[0]?.counters.refused, 1);
});

test('resets pass through in both directions, and closing the port resets its connections', async () => {
  const inner: Socket[] = [];
  let arrived: () => void = () => {};
  await using server = await serving((socket) => {
    inner.push(socket);
    socket.resume();
    arrived();
  });
  const published = await publish(`127.0.0.1::${server.port}`);
  const open = async (): Promise<[Socket, Socket]> => {
    const next = new Promise<void>((resolve) => {
      arrived = resolve;
    });
    const client = connect({ host: '127.0.0.1', port: hostPort(published) });
    client.on('error', () => {});
    client.resume();
    await next;
    const socket = inner.at(-1);
    assert.ok(socket);
    return [client, socket];
  };
  const [first, firstInner] = await open();
  const firstEnd = ending(first);
  firstInner.resetAndDestroy();
  assert.equal(await firstEnd, 'ECONNRESET');
  const [second, secondInner] = await open();
  const secondEnd = ending(secondInner);
  second.resetAndDestroy();
  await secondEnd;
  const [third, thirdInner] = await open();
  const ends = [ending(third), ending(thirdInner)];
  await published[Symbol.asyncDispose]();
  assert.equal(await ends[0], 'ECONNRESET');
  await ends[1];
});

test('UDP: each client has its own answers', async () => {
  const server = dgram.createSocket('udp4');
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  server.on('message', (message, remote) => server.send(`<${message}>`, remote.port, remote.address));
  const published = await publish(`${server.address().port}/udp`);
  const clients = ['udp4', 'udp6', 'udp4'].map((type) => dgram.createSocket(type as 'udp4'));
  try {
    const answers = clients.map(async (client, index) => {
      client.send(`hello ${index}`, hostPort(published), index === 1 ? '::1' : '127.0.0.1');
      const [answer] = (await once(client, 'message')) as [Buffer];
      return answer.toString();
    });
    assert.deepEqual(await Promise.all(answers), ['<hello 0>', '<hello 1>', '<hello 2>']);
    assert.equal(published.ports[0]?.counters.connections, 2);
  } finally {
    for (const client of clients) client.close();
    await published[Symbol.asyncDispose]();
    server.close();
  }
});

test('a taken port is a clear error that names it, and nothing stays bound', async () => {
  await using other = await serving(() => {});
  await using free = await serving(() => {});
  const sockets = (): number =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
      } catch {
        return false; // the one that lists them
      }
    }).length;
  const before = sockets();
  const mappings = [...parsePortSpec('127.0.0.1::80'), ...parsePortSpec(`127.0.0.1:${other.port}:80`)];
  await assert.rejects(publish('80', { mappings }), (error) => {
    assert.ok(error instanceof NetError);
    assert.equal(error.code, 'ERR_ARCBOX_NET_PORT_TAKEN');
    assert.match(error.message, new RegExp(`port ${other.port}/tcp on 127\\.0\\.0\\.1: it is in use`));
    return true;
  });
  await assert.rejects(publish('192.0.2.1:8080:80'), /this host has no such address/);
  // A range passes over what is taken.
  const [low, high] = [Math.min(other.port, free.port), Math.max(other.port, free.port)];
  if (high - low < 1000) {
    await using published = await publish(`127.0.0.1:${low}-${high + 1}:80`);
    assert.ok(![other.port, free.port].includes(hostPort(published)));
  }
  assert.equal(sockets(), before);
});

test('after a crash the same ports are bound again, connections of before or not', async () => {
  await using server = await serving((socket) => socket.resume());
  const child = fork(path.join(import.meta.dirname, 'support', 'publish-program.ts'), [String(server.port)]);
  const exit = once(child, 'exit');
  const [fixed] = (await once(child, 'message')) as [PublishOptions['mappings']];
  const port = fixed[0]?.hostPorts?.first ?? 0;
  const client = connect({ host: '127.0.0.1', port });
  client.on('error', () => {});
  await once(client, 'connect');
  client.write('x');
  child.kill('SIGKILL');
  await exit;
  await using published = await publish('80', { mappings: fixed });
  assert.deepEqual(published.fixed(), fixed);
  assert.equal(hostPort(published), port);
  client.destroy();
});
