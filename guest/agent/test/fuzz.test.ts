/** The agent's decoders and calls under libFuzzer with both sanitizers: a bounded run with a fixed seed. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ROOT = path.join(import.meta.dirname, '..', '..', '..');
const OUT = path.join(ROOT, 'build', 'agent');
const RUNS = 50_000;
const SEED = 1;
/** Of one input, in seconds. */
const INPUT_LIMIT_S = 60;

test(`${RUNS} inputs from seed ${SEED} crash nothing`, async () => {
  await run('make', ['-s', '-C', path.join(ROOT, 'guest', 'agent'), `OUT=${OUT}`, 'fuzz']);
  // The fuzzer adds to its corpus; the seeds stay as they were made.
  const corpus = await mkdtemp(path.join(os.tmpdir(), 'arcbox-fuzz-'));
  try {
    await cp(path.join(OUT, 'corpus'), corpus, { recursive: true });
    const { stderr } = await run(
      path.join(OUT, 'agent-fuzz'),
      [`-runs=${RUNS}`, `-seed=${SEED}`, `-timeout=${INPUT_LIMIT_S}`, '-print_final_stats=1', corpus],
      { maxBuffer: 2 ** 24, cwd: corpus },
    );
    assert.match(stderr, new RegExp(`stat::number_of_executed_units:\\s+${RUNS}`));
  } finally {
    await rm(corpus, { recursive: true, force: true });
  }
});
