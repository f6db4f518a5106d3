/** Routed mode: containers' packets through the NAT engine and a TUN device, in a network namespace of the test. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Namespace, Program } from '../packages/net/test/support/namespace.ts';
import { Arcbox, type Outcome } from './support.ts';

/** Somebody in the world: an address of the namespace that the daemon is in. */
const WORLD = '198.41.0.4';
const UDP = path.join(import.meta.dirname, '..', 'packages', 'net', 'test', 'support', 'udp-program.ts');
let host: Namespace;
let arcbox: Arcbox;
let server: Program;

before(async () => {
  host = await Namespace.create();
  await host.ip(`addr add ${WORLD}/32 dev lo`);
  arcbox = new Arcbox({ ARCBOX_NETWORK_MODE: 'tap', ARCBOX_NETWORK_UPLINK: '192.0.2.0/30' }, host.wrapper);
  const files = path.join(arcbox.home, 'www');
  mkdirSync(files);
  writeFileSync(path.join(files, 'large'), Buffer.alloc(5_000_000, 'a'));
  server = new Program(host.spawn('busybox', 'httpd', '-f', '-p', '8080', '-h', files), 'signal');
  const { code, stderr } = await arcbox.run(['run', '-d', '--name', 'agent', 'busybox', 'sleep', '1000']);
  assert.equal(code, 0, stderr);
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await arcbox.run(['rm', '-f', 'agent']);
  await arcbox[Symbol.asyncDispose]();
  const links = await host.ip('-br link');
  await host[Symbol.asyncDispose]();
  assert.doesNotMatch(links, /arcbox/, 'the device goes with the daemon');
});

function inside(...command: string[]): Promise<Outcome> {
  return arcbox.run(['exec', 'agent', ...command]);
}

test('ping, small and in fragments, and what a router says', async () => {
  assert.match(await host.ip('-br addr show arcbox0'), /192\.0\.2\.1 peer 192\.0\.2\.2\/32/);
  const small = await inside('ping', '-c', '2', '-W', '20', WORLD);
  assert.match(small.stdout, /2 packets received/);
  const large = await inside('ping', '-c', '1', '-s', '3000', '-W', '20', WORLD);
  assert.match(large.stdout, /1 packets received/);
  const short = await inside('ping', '-c', '1', '-t', '1', '-W', '2', WORLD);
  assert.match(short.stdout, /0 packets received/);
});

test('TCP: five megabytes, and a port where nobody listens', async () => {
  const { stdout, stderr } = await inside('sh', '-c', `wget -q -O - http://${WORLD}:8080/large | md5sum`);
  const expected = await host.run('sh', '-c', "head -c 5000000 /dev/zero | tr '\\0' a | md5sum");
  assert.equal(stdout, expected, stderr);
  const refused = await inside('wget', '-q', '-O', '-', `http://${WORLD}:8081/`);
  assert.match(refused.stderr, /refused/);
});

test('UDP, from the address outside; nothing was lost on the way', async () => {
  await using echo = await host.program(UDP, 'echo', WORLD, '53');
  // What comes back is no answer of a name server, but it comes.
  const asked = await inside('nslookup', '-type=a', 'x.test', WORLD);
  assert.notEqual(asked.code, 0);
  await echo.until('from 192.0.2.2\n');
  const { stdout } = await arcbox.run(['network', 'stats', '--format', '{{.Kind}}: {{.Counters}}']);
  assert.match(stdout, /^router: .*forwardedOut \d{2,}, forwardedIn \d{2,}/m);
  assert.doesNotMatch(stdout, /^router: .*(untranslatable|dropped|exhausted)/m);
});

test('the host’s loopback and policies are as in the other mode', async () => {
  await arcbox.run(['network', 'policy', '--default', 'deny', '--allow', `${WORLD}:8080/tcp`, 'agent']);
  const denied = await inside('ping', '-c', '1', '-W', '2', WORLD);
  assert.match(denied.stdout, /0 packets received/);
  const allowed = await inside('sh', '-c', `wget -q -O - http://${WORLD}:8080/large | wc -c`);
  assert.equal(allowed.stdout, '5000000\n', allowed.stderr);
  await arcbox.run(['network', 'policy', '--clear', 'agent']);
  const gateway = await inside('ping', '-c', '1', '-W', '20', 'gateway');
  assert.match(gateway.stdout, /1 packets received/);
});

test('after a crash of the daemon the device is there again', async () => {
  await arcbox.crashDaemon();
  const again = await inside('ping', '-c', '1', '-W', '20', WORLD);
  assert.match(again.stdout, /1 packets received/, again.stderr);
});
