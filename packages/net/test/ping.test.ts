/** Ping sockets, in a network namespace of the test's own where they are allowed. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const PROGRAM = fileURLToPath(new URL('./support/ping-program.ts', import.meta.url));

async function inNamespace(groups: string, address: string): Promise<string> {
  const { stdout } = await promisify(execFile)('unshare', [
    ...['--net', 'sh', '-c'],
    'ip link set lo up && echo "$1" > /proc/sys/net/ipv4/ping_group_range && shift && exec "$@"',
    ...['sh', groups, process.execPath, '--disable-warning=ExperimentalWarning', PROGRAM, address],
  ]);
  return stdout;
}

test('an echo goes out and comes back, in both families', async () => {
  assert.equal(await inNamespace('0 2147483647', '127.0.0.1'), '7 pong\n');
  assert.equal(await inNamespace('0 2147483647', '::1'), '7 pong\n');
});

test('a host that does not allow it says so', async () => {
  assert.equal(await inNamespace('1 0', '127.0.0.1'), 'not allowed\n');
});
