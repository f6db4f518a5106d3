/** The stack over Node's sockets, on loopback: dialling, streams, datagrams, published ports, memory. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { StackRunner } from '@arcbox/net/worker';
import type { Link, LinkReceiver } from '../src/link/link.ts';
import type { TcpConnection, TcpEnd, TcpUser } from '../src/tcp/connection.ts';
import { ipBytes } from '../src/wire/address.ts';
import { PublishedPorts } from '../src/worker/published-ports.ts';
import { GATEWAY_MAC, GUEST_MAC } from './support/lab.ts';

/** What is on its way has come in this time, and what was closed is gone. */
const SETTLE_MS_MAX = 20_000;

/** Two links, one in each runner, joined by a task queue. */
class Cable implements Link {
  readonly name: string;
  other: Cable | undefined;
  #receiver: LinkReceiver | undefined;
  constructor(name: string) {
    this.name = name;
  }
  start(receiver: LinkReceiver): void {
    this.#receiver = receiver;
  }
  send(frames: Uint8Array): boolean {
    // As a socket that is busy: the bytes are needed a while longer.
    setImmediate(() => {
      this.other?.take(frames);
      this.#receiver?.sent();
    });
    return false;
  }
  take(frames: Uint8Array): void {
    for (let at = 0; at < frames.length; ) {
      const space = this.#receiver?.space();
      if (space === undefined) return;
      const part = frames.subarray(at, at + space.length);
      space.set(part);
      at += part.length;
      this.#receiver?.received(part.length);
    }
  }
  close(): void {
    this.#receiver = undefined;
  }
}

/** A program of the machine: collects, or sends. */
class Client implements TcpUser {
  connection: TcpConnection | undefined;
  readonly digest = createHash('sha256');
  received = 0;
  readonly done = Promise.withResolvers<TcpEnd>();
  #send: Uint8Array;
  #open = false;
  constructor(send: Uint8Array) {
    this.#send = send;
  }
  opened(): void {
    this.#open = true;
    this.writable();
  }
  readable(): void {
    const c = this.connection;
    if (c === undefined) return;
    for (let bytes = c.receiving.peek(0); bytes.length > 0; bytes = c.receiving.peek(0)) {
      this.digest.update(bytes);
      this.received += bytes.length;
      c.consume(bytes.length);
    }
  }
  writable(): void {
    const c = this.connection;
    if (c === undefined || !this.#open) return;
    while (this.#send.length > 0 && c.sendSpace >= 65_536) {
      const part = this.#send.subarray(0, 65_536);
      if (!c.write(part)) {
        // No memory: nothing may be on its way that would call us again.
        setImmediate(() => this.writable());
        return;
      }
      this.#send = this.#send.subarray(part.length);
    }
    if (this.#send.length === 0) c.finish();
  }
  closed(end: TcpEnd): void {
    this.done.resolve(end);
  }
}

/** Sockets of this process, by their numbers. */
const sockets = (): Set<string> =>
  new Set(
    readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        const target = readlinkSync(`/proc/self/fd/${fd}`);
        return target.startsWith('socket:') ? [target] : [];
      } catch {
        return [];
      }
    }),
  );

let gateway: StackRunner;
let machine: StackRunner;
let socketsBefore: Set<string>;

before(() => {
  socketsBefore = sockets();
  gateway = new StackRunner({ ports: 2, chunks: 1024 });
  machine = new StackRunner({ ports: 2, chunks: 1024 });
  const ends = [new Cable('gateway'), new Cable('machine')] as const;
  ends[0].other = ends[1];
  ends[1].other = ends[0];
  gateway.switch.addNetwork({
    name: 'n',
    mac: GATEWAY_MAC,
    mtu: 9000,
    gateways: [{ address: '10.0.0.1', prefixLength: 24 }],
    hostAddresses: ['10.0.0.1'],
  });
  machine.switch.addNetwork({
    name: 'm',
    mac: GUEST_MAC,
    mtu: 9000,
    gateways: [{ address: '10.0.0.2', prefixLength: 24 }],
    hostAddresses: ['10.0.0.2'],
  });
  gateway.switch.attach(
    gateway.switch.plug(ends[0], () => {}),
    0,
    'n',
  );
  machine.switch.attach(
    machine.switch.plug(ends[1], () => {}),
    0,
    'm',
  );
});

after(async () => {
  gateway[Symbol.dispose]();
  machine[Symbol.dispose]();
  for (let waitMs = 1; sockets().difference(socketsBefore).size > 0 && waitMs < SETTLE_MS_MAX; waitMs *= 2) {
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
  assert.deepEqual([...sockets().difference(socketsBefore)], []);
});

function connect(port: number, send: Uint8Array): Client {
  const client = new Client(send);
  const stack = machine.switch.network('m');
  const [link] = [...machine.switch.ports];
  if (stack === undefined || link === undefined) throw new Error('no machine');
  const hop = { port: link, vlan: 0, mac: GATEWAY_MAC };
  client.connection = stack.tcp.connect(hop, 4, ipBytes('10.0.0.2'), ipBytes('10.0.0.1'), port, client);
  return client;
}

async function listen(onSocket: (socket: net.Socket) => void): Promise<net.Server & AsyncDisposable> {
  const server = net.createServer({ allowHalfOpen: true }, onSocket);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

const portOf = (server: net.Server): number => (server.address() as AddressInfo).port;

test('both directions at once, byte for byte', async () => {
  const down = randomBytes(8_000_000);
  const up = randomBytes(8_000_000);
  const heard = createHash('sha256');
  await using server = await listen((socket) => {
    socket.on('data', (data) => heard.update(data));
    socket.end(down);
  });
  const client = connect(portOf(server), up);
  assert.equal(await client.done.promise, 'closed');
  assert.equal(client.received, down.length);
  assert.equal(client.digest.digest('hex'), createHash('sha256').update(down).digest('hex'));
  assert.equal(heard.digest('hex'), createHash('sha256').update(up).digest('hex'));
});

test('refused, and reset', async () => {
  const closed = await listen(() => {});
  const port = portOf(closed);
  await closed[Symbol.asyncDispose]();
  assert.equal(await connect(port, Buffer.from('x')).done.promise, 'reset');
  await using rude = await listen((socket) => socket.once('data', () => socket.resetAndDestroy()));
  assert.equal(await connect(portOf(rude), Buffer.from('x')).done.promise, 'reset');
});

test('a connection whose other end is gone is reset, and one of our own is not', async () => {
  const accepted = Promise.withResolvers<net.Socket>();
  await using server = await listen((socket) => {
    socket.on('error', () => {});
    socket.resume().once('end', () => accepted.resolve(socket));
  });
  const client = connect(portOf(server), Buffer.from('x'));
  // The machine has said all that it will say, and waits for the answer.
  const socket = await accepted.promise;
  const stack = gateway.switch.network('n');
  const ours = [...(stack?.tcp.connections() ?? [])].find((c) => c.localPort === portOf(server));
  if (stack === undefined || ours === undefined) throw new Error('no connection');
  const ends = { address: '10.0.0.2', port: ours.remotePort, peer: '10.0.0.1', peerPort: ours.localPort };
  stack.resetHalfOpen(ends);
  socket.write('answer');
  while (client.received === 0) await new Promise(setImmediate);
  stack.tcp.release(ours, 'unplugged');
  stack.resetHalfOpen(ends);
  assert.equal(await client.done.promise, 'reset');
  // Half-closed as it is, it hears nothing of that.
  socket.destroy();
});

test('many connections at once share the memory there is, and all arrive', async () => {
  const COUNT = 200;
  const block = randomBytes(250_000);
  const expected = createHash('sha256').update(block).digest('hex');
  await using server = await listen((socket) => {
    socket.on('error', () => {});
    socket.resume();
    socket.end(block);
  });
  const clients = Array.from({ length: COUNT }, () => connect(portOf(server), block));
  const ends = await Promise.all(clients.map((client) => client.done.promise));
  assert.deepEqual(new Set(ends), new Set(['closed']));
  for (const client of clients) assert.equal(client.digest.digest('hex'), expected);
  const { arena } = gateway.switch.environment;
  // The last acknowledgements are on their way.
  for (let waitMs = 1; arena.freeChunks < arena.chunksTotal && waitMs < SETTLE_MS_MAX; waitMs *= 2) {
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
  assert.equal(arena.freeChunks, arena.chunksTotal, 'given back');
});

test('UDP, and a port where nobody listens', async () => {
  const echo = createSocket('udp4');
  echo.on('message', (message, { port, address }) => echo.send(message, port, address));
  echo.bind(0, '127.0.0.1');
  await once(echo, 'listening');
  const stack = machine.switch.network('m');
  const [link] = [...machine.switch.ports];
  assert.ok(stack !== undefined && link !== undefined);
  const hop = { port: link, vlan: 0, mac: GATEWAY_MAC };
  const ask = (port: number, payload: Uint8Array): Promise<string> =>
    new Promise((resolve) => {
      const flow = stack.udp.connect(hop, 4, ipBytes('10.0.0.2'), ipBytes('10.0.0.1'), port);
      flow?.open(() => ({ send: (answer) => resolve(Buffer.from(answer).toString()), close: () => {} }));
      flow?.datagram(payload);
    });
  assert.equal(await ask(echo.address().port, Buffer.from('echo')), 'echo');
  const large = Buffer.alloc(30_000, 'l');
  assert.equal(await ask(echo.address().port, large), large.toString());
  echo.close();
});

test('a published port: answers, half-closes, resets, and is free again', async () => {
  const ports = new PublishedPorts(gateway.switch);
  await using inner = await listen((socket) => {
    socket.on('error', () => {});
    let text = '';
    socket.on('data', (data) => {
      text += String(data);
    });
    socket.on('end', () => socket.end(text.toUpperCase()));
  });
  // The machine's address is its own loopback there.
  const publication = {
    id: 'p',
    network: 'n',
    protocol: 'tcp',
    hostAddress: '127.0.0.1',
    hostPort: 0,
    address: '10.0.0.2',
    port: portOf(inner),
  } as const;
  const port = await ports.open(publication);
  const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  socket.end('hello');
  let answer = '';
  for await (const data of socket) answer += String(data);
  assert.equal(answer, 'HELLO');
  await assert.rejects(ports.open({ ...publication, id: 'q', hostPort: port }), {
    code: 'ERR_ARCBOX_NET_PORT_TAKEN',
  });
  const nobody = await ports.open({ ...publication, id: 'r', port: 1 });
  const refused = net.connect({ port: nobody, host: '127.0.0.1' });
  const [error] = (await once(refused, 'error')) as [NodeJS.ErrnoException];
  assert.equal(error.code, 'ECONNRESET');
  ports.closeAll();
  const gone = net.connect({ port, host: '127.0.0.1' });
  const [late] = (await once(gone, 'error')) as [NodeJS.ErrnoException];
  assert.equal(late.code, 'ECONNREFUSED');
});
