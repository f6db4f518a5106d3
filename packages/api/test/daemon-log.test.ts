import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isOpenAs, JsonLogger } from '../src/index.ts';

test('a daemon that lives for long keeps its log within bounds, and one generation of it', () => {
  const directory = mkdtempSync(join(tmpdir(), 'arcbox-daemon-log-'));
  const path = join(directory, 'daemon.log');
  const fd = openSync(path, 'a', 0o600);
  try {
    assert.equal(isOpenAs(fd, path), true);
    assert.equal(isOpenAs(fd, directory), false);
    const logger = new JsonLogger(fd, path, 1000);
    for (let n = 0; n < 100; n += 1) logger.info('event', { n });
    const lines = (file: string): { n: number }[] =>
      readFileSync(file, 'utf8')
        .trim()
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as { n: number });
    const kept = [...lines(`${path}.1`), ...lines(path)].map(({ n }) => n);
    assert.equal(kept.at(-1), 99);
    assert.ok(kept.length < 40, `${kept.length} lines are kept`);
    assert.deepEqual(
      kept,
      Array.from({ length: kept.length }, (_, n) => 100 - kept.length + n),
    );
  } finally {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  }
});
