import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { connect } from 'node:tls';
import fc from 'fast-check';
import { seenName } from '../src/policy/index.ts';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

const http = (text: string) => seenName(Buffer.from(text, 'latin1'));

/** A ClientHello as a TLS library sends it. */
async function clientHello(servername: string): Promise<Buffer> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const client = connect({ host: '127.0.0.1', port: address.port, servername, ALPNProtocols: ['h2'] });
  client.on('error', () => {});
  const [socket] = await once(server, 'connection');
  const [hello] = await once(socket, 'data');
  client.destroy();
  socket.destroy();
  server.close();
  return hello as Buffer;
}

test('the server name of a real ClientHello, however it is cut', async () => {
  const hello = await clientHello('Www.Example.test');
  assert.deepEqual(seenName(hello), { kind: 'name', name: 'www.example.test' });
  for (let length = 0; length < hello.length; length++) {
    assert.deepEqual(seenName(hello.subarray(0, length)), { kind: 'more' }, `${length} bytes`);
  }
  assert.deepEqual(seenName(Buffer.concat([hello, hello])), { kind: 'name', name: 'www.example.test' });
  // The same handshake in records of a few bytes.
  const body = hello.subarray(5);
  const records: Buffer[] = [];
  for (let at = 0; at < body.length; at += 7) {
    const part = body.subarray(at, at + 7);
    records.push(Buffer.of(22, 3, 1, 0, part.length), part);
  }
  assert.deepEqual(seenName(Buffer.concat(records)), { kind: 'name', name: 'www.example.test' });
  assert.deepEqual(seenName(await clientHello('')), { kind: 'none' });
});

test('HTTP: the host, the target before it, and what is refused', () => {
  const name = (text: string): unknown => {
    const seen = http(text);
    return seen.kind === 'name' ? seen.name : seen.kind;
  };
  assert.equal(name('GET / HTTP/1.1\r\nHost: Example.test:8080\r\n\r\n'), 'example.test');
  assert.equal(name('POST /a HTTP/1.0\r\nA: b\r\nHOST:  example.test. \r\n\r\nbody'), 'example.test');
  assert.equal(name('GET http://other.test/x HTTP/1.1\r\nHost: example.test\r\n\r\n'), 'other.test');
  assert.equal(name('CONNECT other.test:443 HTTP/1.1\r\nHost: example.test\r\n\r\n'), 'other.test');
  assert.equal(name('GET / HTTP/1.0\r\n\r\n'), 'none');
  assert.equal(name('GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n'), 'ambiguous');
  assert.equal(name('GET / HTTP/1.1\nHost: bare.test\n\n'), 'bare.test');
  assert.equal(name('GET / HTTP/1.1\nHost: a.test\r\nHost: b.test\n\r\n'), 'ambiguous');
  const spaces = ' '.repeat(15_000);
  // The best of some: what else the machine does is not in all of them.
  const timesMs = Array.from({ length: 20 }, () => {
    const startedMs = performance.now();
    assert.equal(name(`GET / HTTP/1.1\r\nHost: a${spaces}b\r\n\r\n`), 'unknown');
    return performance.now() - startedMs;
  });
  assert.ok(Math.min(...timesMs) < 100, 'a long line takes no long time');
  assert.equal(name('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), 'unknown');
  assert.equal(name('SSH-2.0-OpenSSH\r\n'), 'unknown');
  assert.equal(name('EHLO mail.example.test\r\n'), 'unknown');
  assert.equal(name('\x00\x01'), 'unknown');
  for (const part of ['G', 'GET', 'GET ', 'GET /x', 'GET /x HTTP/1.1', 'GET / HTTP/1.1\r\nHost: exa']) {
    assert.equal(name(part), 'more', part);
  }
  assert.equal(name(`GET / HTTP/1.1\r\n${'A: b\r\n'.repeat(3000)}`), 'ambiguous', 'one waits only so long');
});

test('arbitrary and damaged bytes: an answer, at once, never an exception', async () => {
  const hello = await clientHello('www.example.test');
  const damaged = fc
    .tuple(fc.array(fc.tuple(fc.nat(hello.length - 1), fc.nat(255)), { maxLength: 5 }), fc.nat(hello.length))
    .map(([flips, length]) => {
      const bytes = Buffer.from(hello);
      for (const [at, value] of flips) bytes[at] = value;
      return bytes.subarray(0, length);
    });
  const text = fc
    .string({ maxLength: 300 })
    .map((tail) => Buffer.from(`GET / HTTP/1.1\r\nHost: ${tail}`, 'latin1'));
  fc.assert(
    fc.property(fc.oneof(damaged, text, fc.uint8Array({ maxLength: 400 })), (bytes) => {
      const seen = seenName(bytes);
      if (seen.kind === 'name') assert.match(seen.name, /^[a-z0-9_.:[\]-]{1,253}$/);
    }),
    { seed: SEED, numRuns: 5000 },
  );
});
