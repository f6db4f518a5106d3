/** `npm start` on a machine that is set up: what a stranger sees. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const START = fileURLToPath(new URL('../scripts/start', import.meta.url));
const STEPS = [
  'set-up',
  'daemon started',
  'microVM booted, agent answered',
  'first container, create to exit',
  'second container, create to exit',
  'microVM stopped',
];

test('npm start boots a microVM, runs containers in it, says how long that took, and leaves nothing', async () => {
  // Its data directory is a temporary one.
  const temporary = mkdtempSync(join(tmpdir(), 'arcbox-start-test-'));
  try {
    const env = { ...process.env, TMPDIR: temporary };
    const { stdout, stderr } = await run('sh', [START], { env });
    assert.equal(stderr, '');
    assert.doesNotMatch(stdout, / $/m);
    const steps = Array.from(stdout.matchAll(/^ {2}(\S.*?) +([\d.]+ m?s)(?: {3}.*)?$/gm), ([, name]) => name);
    assert.deepEqual(steps, STEPS);

    // What the container printed, of a kernel that is not this one.
    const [, booted] = /agent answered .*, Linux (\S+)$/m.exec(stdout) ?? [];
    const [, kernel] = /^ {4}kernel +Linux (\S+)$/m.exec(stdout) ?? [];
    assert.ok(kernel !== undefined && kernel === booted && kernel !== release(), stdout);
    assert.match(stdout, /^ {4}PID 1 +sh$/m);
    assert.match(stdout, /^ {4}hostname +[0-9a-f]{12}$/m);
    assert.match(stdout, /^ {4}user +root\n {4}processes +1$/m);
    assert.deepEqual(readdirSync(temporary), []);
  } finally {
    rmSync(temporary, { recursive: true });
  }
});
