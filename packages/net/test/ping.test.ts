/** Echoes through the host, in a network namespace of the test's own: by ping sockets, by raw sockets, and not at all. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const PROGRAM = fileURLToPath(new URL('./support/ping-program.ts', import.meta.url));
const EVERYBODY = '0 2147483647';
/** Debian's default. */
const NOBODY = '1 0';
/** Each flow hears its own reply, and none of the others'. */
const EACH_ITS_OWN = '0: 7 pong 0\n1: 7 pong 1\n2: 7 pong 2\n';
const WITHOUT_RAW = ['setpriv', '--inh-caps=-net_raw', '--bounding-set=-net_raw'];

async function inNamespace(
  groups: string,
  address: string,
  wrapper: readonly string[] = [],
): Promise<string> {
  const { stdout } = await promisify(execFile)('unshare', [
    ...['--net', 'sh', '-c'],
    'ip link set lo up && echo "$1" > /proc/sys/net/ipv4/ping_group_range && shift && exec "$@"',
    ...['sh', groups, ...wrapper],
    ...[process.execPath, '--disable-warning=ExperimentalWarning', PROGRAM, address],
  ]);
  return stdout;
}

for (const address of ['127.0.0.1', '::1']) {
  test(`an echo goes out and comes back where ping sockets are allowed: ${address}`, async () => {
    assert.equal(await inNamespace(EVERYBODY, address, WITHOUT_RAW), EACH_ITS_OWN);
  });

  test(`and where only raw sockets are: ${address}`, async () => {
    assert.equal(await inNamespace(NOBODY, address), EACH_ITS_OWN);
  });
}

test('a host that allows neither says so', async () => {
  assert.equal(await inNamespace(NOBODY, '127.0.0.1', WITHOUT_RAW), 'not allowed\n');
});
