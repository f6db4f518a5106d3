import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { AcceptedSchema, AgentOpError, type OpInput } from '@arcbox/protocol';
import { fromBinary } from '@bufbuild/protobuf';
import { eventually } from './support/eventually.ts';
import { HostAgent } from './support/host-agent.ts';
import { freshId, Gathered, resultOf } from './support/run.ts';
import { test } from './support/test.ts';

interface Server extends AsyncDisposable {
  readonly server: net.Server;
  readonly port: number;
}

async function listening(handle: (socket: net.Socket) => void, path?: string): Promise<Server> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    handle(socket);
  });
  server.listen(path ?? { host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  const address = server.address();
  return {
    server,
    port: address !== null && typeof address === 'object' ? address.port : 0,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

const tcp = (port: number, host = '127.0.0.1') => ({ case: 'tcp', value: { host, port } }) as const;

test('connections out, TCP and Unix: bytes both ways, each side ends for itself', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const path = agent.path('server');
  const digest = (socket: net.Socket): void => {
    const hash = createHash('sha256');
    socket.on('data', (data) => hash.update(data));
    // The answer comes after the end of what it answers: half of the connection is closed by then.
    socket.on('end', () => socket.end(hash.digest('hex')));
  };
  await using overTcp = await listening(digest);
  await using _overUnix = await listening(digest, path);
  const bytes = randomBytes(3_000_000);
  for (const address of [tcp(overTcp.port), { case: 'unixPath', value: path } as const]) {
    const id = freshId();
    await client.batch([{ case: 'connect', value: { id, address } }]);
    const gathered = await Gathered.attach(client, id);
    await gathered.attachment.write(bytes, { eof: true });
    assert.equal((await client.wait(id)).code, 0);
    await gathered.attachment.closed;
    assert.equal(gathered.output, createHash('sha256').update(bytes).digest('hex'));
    await client.batch([{ case: 'release', value: { id } }]);
  }
});

test('a connection that fails says why; one that breaks ends with an errno', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const closed = await listening(() => {});
  await closed[Symbol.asyncDispose]();
  const attempts: [OpInput & { case: 'connect' }, string][] = [
    [{ case: 'connect', value: { id: 'a', address: tcp(closed.port) } }, 'ECONNREFUSED'],
    [{ case: 'connect', value: { id: 'a', address: tcp(1, 'localhost') } }, 'EINVAL'],
    [{ case: 'connect', value: { id: 'a', address: tcp(70_000) } }, 'EINVAL'],
    [{ case: 'connect', value: { id: 'a', address: { case: 'unixPath', value: '/no/such' } } }, 'ENOENT'],
    [
      { case: 'connect', value: { id: 'a', address: { case: 'unixPath', value: `/${'x'.repeat(200)}` } } },
      'ENAMETOOLONG',
    ],
    [{ case: 'connect', value: { id: 'a' } }, 'EDESTADDRREQ'],
  ];
  for (const [op, errnoName] of attempts) {
    await assert.rejects(client.batch([op]), (error) => {
      assert.ok(error instanceof AgentOpError);
      assert.equal(error.errnoName, errnoName, JSON.stringify(op));
      return true;
    });
  }
  const accepted = Promise.withResolvers<net.Socket>();
  await using server = await listening(accepted.resolve);
  await client.batch([{ case: 'connect', value: { id: 'b', address: tcp(server.port) } }]);
  const gathered = await Gathered.attach(client, 'b');
  await gathered.attachment.write(Buffer.from('x'));
  const socket = await accepted.promise;
  await once(socket, 'data');
  socket.resetAndDestroy();
  const end = await client.wait('b');
  assert.deepEqual([end.signaled, end.code], [false, 104]);
  assert.notEqual(end.error, '');
  await gathered.attachment.closed;
  await client.batch([{ case: 'release', value: { id: 'b' } }]);
});

test('a release resets what is connected', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const accepted = Promise.withResolvers<net.Socket>();
  await using server = await listening(accepted.resolve);
  await client.batch([{ case: 'connect', value: { id: 'c', address: tcp(server.port) } }]);
  const socket = await accepted.promise;
  socket.resume();
  const gone = new Promise((resolve) => {
    for (const event of ['end', 'close']) socket.once(event, resolve);
  });
  await client.batch([{ case: 'release', value: { id: 'c' } }]);
  await gone;
});

test('connections in, TCP and Unix', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const path = agent.path('listener');
  const overTcp = resultOf(
    await client.batch([{ case: 'listen', value: { id: 'tcp', address: tcp(0), backlog: 10 } }]),
    0,
    'listen',
  );
  await client.batch([{ case: 'listen', value: { id: 'unix', address: { case: 'unixPath', value: path } } }]);
  assert.ok(overTcp.port > 0);
  for (const [id, where] of [
    ['tcp', { host: '127.0.0.1', port: overTcp.port }],
    ['unix', { path }],
  ] as const) {
    const listener = await Gathered.attach(client, id);
    for (const n of [1, 2, 3]) {
      const socket = net.connect({ ...where, allowHalfOpen: true });
      const announced = (): Buffer => listener.bytes(1);
      let expected = 0;
      await listener.until(() => {
        // One byte of length: the messages are short.
        let at = 0;
        for (expected = 0; at < announced().length; expected++) at += 1 + (announced()[at] ?? 0);
        return expected === n;
      });
      const last = announced().subarray(announced().lastIndexOf(Buffer.from(`${id}/${n}`)) - 2);
      const accepted = fromBinary(AcceptedSchema, last);
      assert.equal(accepted.id, `${id}/${n}`);
      if (id === 'tcp') assert.equal(accepted.peer, `127.0.0.1:${socket.localPort}`);
      const inside = await Gathered.attach(client, accepted.id);
      socket.end('from outside');
      await inside.until(({ ended }) => ended[0]);
      assert.equal(inside.output, 'from outside');
      await inside.attachment.write(Buffer.from('from inside'), { eof: true });
      const pieces: Buffer[] = [];
      for await (const piece of socket) pieces.push(piece);
      assert.equal(Buffer.concat(pieces).toString(), 'from inside');
      assert.equal((await client.wait(accepted.id)).code, 0);
      await client.batch([{ case: 'release', value: { id: accepted.id } }]);
    }
    await assert.rejects(client.batch([{ case: 'listen', value: { id, address: tcp(0) } }]), {
      errnoName: 'EEXIST',
    });
    await client.batch([{ case: 'release', value: { id } }]);
    await eventually(async () => {
      const socket = net.connect(where);
      const [error] = await Promise.race([
        once(socket, 'error'),
        once(socket, 'connect').then(() => [undefined]),
      ]);
      socket.destroy();
      assert.ok(error !== undefined, 'nobody listens any more');
    });
  }
  const used = await listening(() => {});
  const taken = client.batch([{ case: 'listen', value: { id: 'x', address: tcp(used.port) } }]);
  await assert.rejects(taken, { errnoName: 'EADDRINUSE' });
  await used[Symbol.asyncDispose]();
});
