import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import { closeFd, connectLoopback } from '../src/index.ts';

for (const address of ['127.0.0.1', '::1'] as const) {
  test(`a service on ${address} is connected within the call, and a port without one refuses`, async () => {
    await using server = net.createServer((socket) => socket.end('hello')).listen(0, address);
    await once(server, 'listening');
    const { port } = server.address() as net.AddressInfo;
    const fd = connectLoopback(address, port);
    assert.ok(fd !== undefined);
    const socket = new net.Socket({ fd });
    assert.equal(String(await socket.setEncoding('utf8').toArray()), 'hello');
    const closed = once(server, 'close');
    server.close();
    await closed;
    assert.throws(() => connectLoopback(address, port), { code: 'ECONNREFUSED' });
  });
}

test('a service that takes no more leaves it open', async () => {
  // What waits to be accepted is bounded by the backlog, and a server that is not running accepts nothing.
  const listener = net.createServer();
  listener.listen({ port: 0, host: '127.0.0.1', backlog: 1 });
  await once(listener, 'listening');
  const { port } = listener.address() as net.AddressInfo;
  const fds: number[] = [];
  try {
    // Nothing is accepted while we do not let go of this thread.
    let fd = connectLoopback('127.0.0.1', port);
    for (; fd !== undefined && fds.length < 16; fd = connectLoopback('127.0.0.1', port)) fds.push(fd);
    assert.equal(fd, undefined);
    assert.ok(fds.length >= 1);
  } finally {
    for (const fd of fds) closeFd(fd);
    listener.close();
  }
});
