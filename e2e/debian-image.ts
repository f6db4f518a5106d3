/** A Debian root file system for the tests, made by debootstrap once for each machine and kept in the cache. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Arcbox } from './support.ts';

const SCRIPT = fileURLToPath(new URL('./debian-root.sh', import.meta.url));
/** debootstrap fetches and unpacks some two hundred packages; once for each machine. */
export const DEBIAN_TIMEOUT_MS = 600_000;
export const DEBIAN = 'debian:test';

/** The root file system as a tar, from the cache when it has been made before. */
function debianRoot(): string {
  const cache =
    process.env.ARCBOX_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'arcbox');
  const hash = createHash('sha256').update(readFileSync(SCRIPT)).digest('hex').slice(0, 16);
  const path = join(cache, 'debian', `${hash}.tar`);
  if (!existsSync(path)) {
    mkdirSync(join(cache, 'debian'), { recursive: true });
    execFileSync(SCRIPT, [path], { stdio: 'inherit', timeout: DEBIAN_TIMEOUT_MS });
  }
  return path;
}

/** Imports it as `DEBIAN`. */
export async function importDebian(arcbox: Arcbox): Promise<void> {
  const { code, stderr } = await arcbox.run(['import', '-c', 'CMD ["bash"]', debianRoot(), DEBIAN]);
  assert.equal(code, 0, stderr);
}
