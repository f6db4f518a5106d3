/** A host that breaks the protocol ends its connection, and nothing else: objects stay, the agent stays. */
import assert from 'node:assert/strict';
import type net from 'node:net';
import { type AgentClient, AttachFrameSchema, HelloRequestSchema } from '@arcbox/protocol';
import { create, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { eventually } from './support/eventually.ts';
import { HostAgent, SECRET } from './support/host-agent.ts';
import { freshId, shell } from './support/run.ts';
import { test } from './support/test.ts';

/** How long the agent may take for an answer, on a machine that has much else to do. */
const ANSWER_LIMIT_MS = 60_000;
const NONCE = Buffer.alloc(16, 0x33);

function frame(
  streamId: number,
  type: number,
  flags: number,
  data: Uint8Array,
  announced = data.length,
): Buffer {
  const header = Buffer.alloc(10);
  header.writeUInt32BE(announced, 0);
  header.writeUInt32BE(streamId, 4);
  header[8] = type;
  header[9] = flags;
  return Buffer.concat([header, data]);
}

function field(number: number, bytes: Uint8Array | string): Buffer {
  const data = Buffer.from(bytes);
  const head: number[] = [(number << 3) | 2];
  for (let rest = data.length; ; rest >>>= 7) {
    head.push(rest >= 128 ? (rest & 127) | 128 : rest);
    if (rest < 128) break;
  }
  return Buffer.concat([Buffer.from(head), data]);
}

function request(method: string, payload: Uint8Array, service = 'arcbox.agent.v1.Agent'): Buffer {
  return Buffer.concat([field(1, service), field(2, method), field(3, payload)]);
}

function hello(nonce: Uint8Array = NONCE, secret: Uint8Array = SECRET, version = 1): Buffer {
  return toBinary(
    HelloRequestSchema,
    create(HelloRequestSchema, { protocolVersion: version, nonce, secret }),
  ) as Buffer;
}

function open(id: string): Buffer {
  const message = create(AttachFrameSchema, {
    frame: { case: 'open', value: { id, output: { limit: 10n }, error: { limit: 10n } } },
  });
  return Buffer.from(toBinary(AttachFrameSchema, message));
}

function attached(id: string, ...frames: Uint8Array[]): Buffer {
  return Buffer.concat([
    frame(3, 1, 2, request('Attach', open(id))),
    ...frames.map((data) => frame(3, 3, 0, data)),
  ]);
}

function chunk(offset: number, bytes: number, channel = 0): Uint8Array {
  const value = { channel, offset: BigInt(offset), data: new Uint8Array(bytes) };
  return toBinary(AttachFrameSchema, create(AttachFrameSchema, { frame: { case: 'chunk', value } }));
}

function credit(acked: bigint, limit: bigint, channel = 1): Uint8Array {
  const value = { channel, acked, limit };
  return toBinary(AttachFrameSchema, create(AttachFrameSchema, { frame: { case: 'credit', value } }));
}

/** Resolves when the agent has hung up, in order or with a reset, for what it had not read; fails when it does not. */
async function untilClosed(socket: net.Socket): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const limit = setTimeout(() => reject(new Error('it did not hang up')), ANSWER_LIMIT_MS);
  socket
    .on('error', () => {})
    .once('close', () => resolve())
    .resume();
  await promise.finally(() => clearTimeout(limit));
}

/** Resolves when what the agent has sent, from now on, is enough; every piece of it counts, also two at once. */
async function hears(socket: net.Socket, enough: (heard: Buffer) => boolean): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const limit = setTimeout(() => reject(new Error('it did not say what was waited for')), ANSWER_LIMIT_MS);
  let heard = Buffer.alloc(0);
  socket.on('data', (piece: Buffer) => {
    heard = Buffer.concat([heard, piece]);
    if (enough(heard)) resolve(heard);
  });
  return await promise.finally(() => clearTimeout(limit));
}

async function afterHello(agent: HostAgent): Promise<net.Socket> {
  const socket = await agent.socket();
  socket.on('error', () => {});
  socket.write(frame(1, 1, 0, request('Hello', hello())));
  await hears(socket, (heard) => heard.includes(NONCE));
  return socket;
}

async function withObject(agent: HostAgent): Promise<string> {
  const client = await agent.connect();
  const id = freshId();
  await client.batch([shell('exec sleep 1000', { id, stdin: true })]);
  await client.close();
  return id;
}

async function released(agent: HostAgent, id: string): Promise<void> {
  await using client: AgentClient = await agent.connect();
  await client.batch([{ case: 'release', value: { id } }]);
}

test('what breaks the framing hangs up', async () => {
  await using agent = await HostAgent.start();
  const id = await withObject(agent);
  const cases: [string, Buffer][] = [
    ['a frame too large', frame(3, 1, 0, Buffer.alloc(0), 0xffffffff)],
    ['a frame just too large', frame(3, 1, 0, Buffer.alloc(0), (4 << 20) + 1)],
    ['an unknown type', frame(3, 7, 0, Buffer.alloc(0))],
    ['unknown flags', frame(3, 1, 0x80, Buffer.alloc(0))],
    ['a response', frame(3, 2, 0, Buffer.alloc(0))],
    ['an even stream', frame(4, 1, 0, request('Wait', Buffer.alloc(0)))],
    ['a stream twice', Buffer.concat([attached(id), attached(id)])],
    ['data on a stream never opened', frame(99, 3, 0, Buffer.alloc(0))],
    [
      'data on a call',
      Buffer.concat([frame(3, 1, 0, request('Wait', field(1, id))), frame(3, 3, 0, Buffer.alloc(0))]),
    ],
    ['a request that is no message', frame(3, 1, 0, Buffer.from([0xff, 0xff]))],
    ['Attach that is no stream', frame(3, 1, 0, request('Attach', open(id)))],
    ['Batch that is a stream', frame(3, 1, 2, request('Batch', Buffer.alloc(0)))],
    ['a stream message that is none', attached(id, Buffer.from([0x12, 0x7f]))],
    ['an opening twice', attached(id, open(id))],
  ];
  for (const [what, bytes] of cases) {
    const socket = await afterHello(agent);
    socket.write(bytes);
    await untilClosed(socket).catch(() => assert.fail(`the agent did not hang up after ${what}`));
    agent.assertAlive();
  }
  await released(agent, id);
});

test('what breaks a stream ends it, with a reason, and the connection goes on', async () => {
  await using agent = await HostAgent.start();
  const id = await withObject(agent);
  const cases: [string, Uint8Array][] = [
    ['input after a gap', chunk(1, 1)],
    ['input past the limit', Buffer.concat([chunk(0, 65536)])],
    ['input on an output', chunk(0, 1, 1)],
    ['credit for the input', credit(0n, 5n, 0)],
    ['credit for no channel', credit(0n, 5n, 9)],
    ['an acknowledgement of what was not sent', credit(7n, 20n)],
    ['a number past 2^63', credit(2n ** 64n - 1n, 2n ** 64n - 1n)],
    ['a chunk too large', chunk(0, 65537)],
  ];
  for (const [what, bytes] of cases) {
    const socket = await afterHello(agent);
    const many = what === 'input past the limit' ? 40 : 1;
    const pieces: Uint8Array[] = [];
    for (let index = 0; index < many; index++) pieces.push(many === 1 ? bytes : chunk(index * 65536, 65536));
    // The empty Batch shows that the connection is as it was.
    socket.write(Buffer.concat([attached(id, ...pieces), frame(5, 1, 0, request('Batch', Buffer.alloc(0)))]));
    const ends = ['000000030200', '000000050200'].map((head) => Buffer.from(head, 'hex'));
    await hears(socket, (heard) => ends.every((end) => heard.includes(end))).catch(() =>
      assert.fail(`no end after ${what}`),
    );
    socket.destroy();
  }
  await released(agent, id);
});

test('nothing but a good Hello begins a connection', async () => {
  await using agent = await HostAgent.start();
  const cases: [string, Buffer][] = [
    ['a call', frame(1, 1, 0, request('Batch', Buffer.alloc(0)))],
    ['data', frame(1, 3, 0, Buffer.alloc(0))],
    ['another service', frame(1, 1, 0, request('Hello', hello(), 'other.Service'))],
    ['a short nonce', frame(1, 1, 0, request('Hello', hello(Buffer.alloc(15))))],
    ['a long secret', frame(1, 1, 0, request('Hello', hello(NONCE, Buffer.alloc(17))))],
    ['another version', frame(1, 1, 0, request('Hello', hello(NONCE, SECRET, 2)))],
    ['a long Hello', frame(1, 1, 0, Buffer.alloc(1000))],
    ['noise', Buffer.alloc(2000, 0x41)],
  ];
  for (const [what, bytes] of cases) {
    const socket = await agent.socket();
    socket.on('error', () => {});
    socket.write(bytes);
    await untilClosed(socket).catch(() => assert.fail(`the agent did not hang up after ${what}`));
  }
});

test('an unknown method is refused, and the connection goes on', async () => {
  await using agent = await HostAgent.start();
  const socket = await afterHello(agent);
  socket.write(
    Buffer.concat([
      frame(3, 1, 0, request('Nonesuch', Buffer.alloc(0))),
      frame(5, 1, 0, request('Batch', Buffer.alloc(0), 'other.Service')),
      frame(7, 1, 0, request('Batch', Buffer.alloc(0))),
    ]),
  );
  const last = Buffer.from('000000070200', 'hex');
  const seen = await hears(socket, (heard) => heard.includes(last));
  // google.rpc.Code.UNIMPLEMENTED, twice.
  assert.equal(seen.toString('latin1').split('\x08\x0c').length, 3);
  socket.destroy();
});

test('random bytes, before and after Hello, framed and not', async () => {
  await using agent = await HostAgent.start();
  const id = await withObject(agent);
  const piece = fc.uint8Array({ maxLength: 100 });
  const framed = fc
    .tuple(fc.constantFrom(1, 3, 5, 7), fc.constantFrom(1, 2, 3), fc.constantFrom(0, 1, 2, 4), piece)
    .map(([streamId, type, flags, data]) => frame(streamId, type, flags, data));
  const called = fc
    .tuple(fc.constantFrom('Batch', 'Wait', 'Attach', 'Hello'), fc.constantFrom(0, 2), piece)
    .map(([method, flags, data]) => frame(3, 1, flags, request(method, data)));
  const stream = fc.array(piece, { maxLength: 5 }).map((pieces) => attached(id, ...pieces));
  await fc.assert(
    fc.asyncProperty(
      fc.boolean(),
      fc.array(fc.oneof(piece, framed, called, stream), { maxLength: 6 }),
      async (greet, parts) => {
        const socket = greet ? await afterHello(agent) : await agent.socket();
        socket.on('error', () => {});
        const gone = untilClosed(socket);
        socket.end(Buffer.concat(parts));
        await gone;
        agent.assertAlive();
      },
    ),
    { seed: 20261122, numRuns: 500 },
  );
  // Random bytes can name an operation: the object may be gone.
  await using client = await agent.connect();
  await client.batch([{ case: 'release', value: { id, missingOk: true } }]);
});

test('many connections at once: the last one counts', async () => {
  await using agent = await HostAgent.start();
  const attempts = await Promise.allSettled(Array.from({ length: 100 }, () => agent.socket()));
  // Those that the listener's queue had no room for failed.
  const sockets = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
  assert.ok(sockets.length >= 8);
  for (const socket of sockets) socket.on('error', () => {});
  await using client = await eventually(() => agent.connect());
  await client.batch([{ case: 'sync', value: {} }]);
  for (const socket of sockets) socket.destroy();
});

test('calls without end are refused, not piled up', async () => {
  await using agent = await HostAgent.start();
  const id = await withObject(agent);
  const socket = await afterHello(agent);
  const calls = 1100;
  const allowed = 1024;
  const wait = request('Wait', field(1, id));
  socket.write(Buffer.concat(Array.from({ length: calls }, (_, index) => frame(3 + 2 * index, 1, 0, wait))));
  // google.rpc.Code.RESOURCE_EXHAUSTED.
  const refused = (heard: Buffer): number => heard.toString('latin1').split('\x08\x08').length - 1;
  const heard = await hears(socket, (bytes) => refused(bytes) >= calls - allowed);
  assert.equal(refused(heard), calls - allowed);
  socket.destroy();
  await released(agent, id);
});
