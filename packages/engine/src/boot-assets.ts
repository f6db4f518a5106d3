/** What a machine boots from: built by set-up, found here. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Architecture } from '@arcbox/vm';
import { EngineError, messageOf } from './errors.ts';

export interface BootAssets {
  readonly directory: string;
  /** Names this set of assets; changes whenever one of them does. */
  readonly hash: string;
  readonly architecture: Architecture;
  readonly kernel: string;
  readonly initramfs: string;
  /** A compiled seccomp filter (`struct sock_filter[]`), base64: what crun takes in an annotation. */
  readonly seccompBase64: string;
}

const MANIFEST = 'manifest.json';

/** `ARCBOX_BOOT_DIR`, or the first of the usual places that has them; when none has: the first. */
export function bootDirectory(environment: NodeJS.ProcessEnv): string {
  const given = environment.ARCBOX_BOOT_DIR;
  if (given) return resolve(given);
  const places = [
    // Of this checkout.
    fileURLToPath(new URL('../../../build/boot', import.meta.url)),
    join(environment.XDG_DATA_HOME || join(homedir(), '.local', 'share'), 'arcbox', 'boot'),
    '/usr/lib/arcbox/boot',
  ];
  return places.find((place) => existsSync(join(place, MANIFEST))) ?? places[0] ?? '';
}

/** Throws `EngineError` `ERR_ARCBOX_BOOT_ASSETS` with what to do about it. */
export async function loadBootAssets(directory: string): Promise<BootAssets> {
  try {
    const manifest: unknown = JSON.parse(await readFile(join(directory, MANIFEST), 'utf8'));
    const { hash, architecture } = manifest as { hash?: unknown; architecture?: unknown };
    if (typeof hash !== 'string' || (architecture !== 'x86_64' && architecture !== 'aarch64')) {
      throw new Error('manifest.json has no hash or no known architecture');
    }
    return {
      directory,
      hash,
      architecture,
      kernel: join(directory, 'vmlinux'),
      initramfs: join(directory, 'initramfs'),
      seccompBase64: (await readFile(join(directory, 'seccomp.bpf'))).toString('base64'),
    };
  } catch (error) {
    throw new EngineError(
      'ERR_ARCBOX_BOOT_ASSETS',
      `the boot assets in ${directory} are not usable (${messageOf(error)}); run scripts/setup, or set ARCBOX_BOOT_DIR`,
      { cause: error },
    );
  }
}
