/** What is in a squashfs, for comparison. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type IngestedLayer, LayerIngest } from '../../src/layer/ingest.ts';

/** `unsquashfs -lln`: one line for each name, below the root; times left out. */
export function listing(path: string): string[] {
  const text = execFileSync('unsquashfs', ['-q', '-lln', path], { encoding: 'latin1' });
  return text
    .split('\n')
    .filter((line) => line.includes('squashfs-root'))
    .map((line) =>
      line
        .replace(/ +/g, ' ')
        .replace(/ \d{4}-\d\d-\d\d \d\d:\d\d squashfs-root/, ' ')
        .replace(/(\d), (\d)/, '$1,$2'),
    );
}

export function content(path: string, name: string): string {
  return execFileSync('unsquashfs', ['-cat', path, name], { encoding: 'latin1', maxBuffer: 16 * 1024 ** 2 });
}

/** Turns a blob into a squashfs the way the store does, in chunks of the size given. */
export async function convert(
  blob: Buffer,
  use: (squashfs: string, layer: IngestedLayer) => void | Promise<void>,
  chunkBytes = 64 * 1024,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'arcbox-layer-'));
  try {
    const paths = { blob: join(directory, 'blob'), squashfs: join(directory, 'layer') };
    const ingest = new LayerIngest(paths);
    await ingest.open();
    try {
      for (let at = 0; at < blob.length; at += chunkBytes)
        await ingest.write(blob.subarray(at, at + chunkBytes));
      await use(paths.squashfs, await ingest.finish());
    } catch (error) {
      await ingest.abort();
      throw error;
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
}
