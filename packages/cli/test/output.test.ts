import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { VERSION } from '@arcbox/api/client';
import { Output } from '../src/output.ts';

const ARCBOX = join(import.meta.dirname, '../../../arcbox');

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function arcbox(args: readonly string[], hangUp = false): Promise<Ended> {
  const child = spawn(ARCBOX, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data) => {
    stdout += data;
  });
  child.stderr.on('data', (data) => {
    stderr += data;
  });
  if (hangUp) child.stdout.destroy();
  await once(child, 'close');
  return { code: child.exitCode, stdout, stderr };
}

test('the version is what the flags and the command say', async () => {
  for (const flag of ['--version', '-v']) {
    assert.deepEqual(await arcbox([flag]), { code: 0, stdout: `arcbox ${VERSION}\n`, stderr: '' });
  }
});

test('a reader that has gone ends the command without a word, as SIGPIPE would', async () => {
  assert.deepEqual(await arcbox(['--help'], true), { code: 141, stdout: '', stderr: '' });
});

test('output that cannot be written is an error for whoever writes next and for whoever waits, and no crash', async () => {
  const fd = openSync('/dev/full', 'w');
  try {
    const output = new Output(fd);
    assert.equal(output.write(Buffer.from('x')), undefined);
    await assert.rejects(output.flushed(), /cannot be written: ENOSPC/);
    await assert.rejects(async () => output.write(Buffer.from('y')), /ENOSPC/);
  } finally {
    closeSync(fd);
  }
});
