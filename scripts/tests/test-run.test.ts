/** `npm test` ends with `N passed, N failed`, whatever happens: scripts/test with stand-ins for what it calls. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** As the runner does: writes the counts where it was told to. */
const RUNNER = `
for word; do
  case $word in --test-reporter-destination=build/*) printf '%s\n' "$COUNTS" >"\${word#*=}" ;; esac
done
exit "\${RUNNER_STATUS:-0}"`;

let checkout: string;
before(() => {
  checkout = mkdtempSync(join(tmpdir(), 'arcbox-test-run-'));
  for (const directory of ['scripts', 'build', 'packages', 'e2e', 'bench/test', 'guest/agent', 'bin'])
    mkdirSync(join(checkout, directory), { recursive: true });
  for (const file of ['.ci/run', 'scripts/test', 'package.json'])
    cpSync(join(root, file), join(checkout, file));
  writeFileSync(join(checkout, 'scripts', 'setup'), `echo "what set-up says" >&2\nexit \${SETUP_STATUS:-0}`);
  writeFileSync(
    join(checkout, 'scripts', 'check'),
    `echo "what the checks say" >&2\nexit \${CHECK_STATUS:-0}`,
  );
  writeFileSync(join(checkout, 'scripts', 'node'), RUNNER);
  writeFileSync(join(checkout, 'bin', 'make'), `#!/bin/sh\nexit "\${MAKE_STATUS:-0}"\n`);
  chmodSync(join(checkout, 'bin', 'make'), 0o755);
});
after(() => rmSync(checkout, { recursive: true }));

/** Exit code, lines of standard output, and standard error of `.ci/run`. */
async function outcome(
  environment: Readonly<Record<string, string>>,
): Promise<{ code: unknown; lines: string[]; stderr: string }> {
  const env = { ...process.env, PATH: `${join(checkout, 'bin')}:${process.env.PATH}`, ...environment };
  return new Promise((resolve) => {
    execFile('sh', [join(checkout, '.ci', 'run')], { env }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : error.code, lines: stdout.trim().split('\n'), stderr }),
    );
  });
}

test('the counts of all runs are added up', async () => {
  const { code, lines } = await outcome({ COUNTS: '5 0 0' });
  assert.deepEqual([code, lines.at(-1)], [0, '15 passed, 0 failed']);
});

test('a test that failed, and one that was not run', async () => {
  const { code, lines } = await outcome({
    COUNTS: '✖ name (file:1)\n  Error: why\n5 1 1',
    RUNNER_STATUS: '1',
  });
  assert.deepEqual([code, lines.at(-1)], [1, '15 passed, 3 failed']);
  assert.match(lines.at(-2) ?? '', /^3 skipped/);
  assert.deepEqual(lines.slice(-8, -2), Array(3).fill(['✖ name (file:1)', '  Error: why']).flat());
});

test('set-up that fails counts as one that failed, and its reason stands above', async () => {
  const { code, lines, stderr } = await outcome({ COUNTS: '5 0 0', SETUP_STATUS: '1' });
  assert.deepEqual([code, lines], [1, ['0 passed, 1 failed']]);
  assert.match(stderr, /what set-up says\nnpm test: set-up failed/);
});

test('checks that fail count as one that failed, and their reason stands above', async () => {
  const { code, lines, stderr } = await outcome({ COUNTS: '5 0 0', CHECK_STATUS: '2' });
  assert.deepEqual([code, lines], [1, ['0 passed, 1 failed']]);
  assert.match(stderr, /what the checks say\nnpm test: the checks failed/);
});

test('so does a step between the tests, and a runner that ends without a word', async () => {
  const make = await outcome({ COUNTS: '5 0 0', MAKE_STATUS: '2' });
  assert.deepEqual([make.code, make.lines.at(-1)], [1, '5 passed, 1 failed']);
  const runner = await outcome({ COUNTS: '0 0 0', RUNNER_STATUS: '134' });
  assert.deepEqual([runner.code, runner.lines.at(-1)], [1, '0 passed, 1 failed']);
  const halfway = await outcome({ COUNTS: '✖ name (file:1)\n  5 and no more', RUNNER_STATUS: '134' });
  assert.deepEqual(halfway.lines.slice(-2), ['  5 and no more', '0 passed, 1 failed']);
});
