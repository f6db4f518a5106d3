/** A Debian root file system for the tests: `scripts/setup test` has made it, with everything fetched that is needed. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Arcbox } from './support.ts';

const ROOT = fileURLToPath(new URL('../build/debian/root.tar', import.meta.url));
/** Half a gigabyte of small files is hashed, filtered and packed. */
export const DEBIAN_TIMEOUT_MS = 600_000;
export const DEBIAN = 'debian:test';

/** Imports it as `DEBIAN`. */
export async function importDebian(arcbox: Arcbox): Promise<void> {
  assert.ok(existsSync(ROOT), `${ROOT} is not there: run scripts/setup test`);
  const { code, stderr } = await arcbox.run(['import', '-c', 'CMD ["bash"]', ROOT, DEBIAN]);
  assert.equal(code, 0, stderr);
}
