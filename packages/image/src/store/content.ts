/**
 * The files of the store: blobs as they were pulled (`sha256/<hex>`), layers as squashfs (`layers/<hex>`), and what is
 * being made (`tmp/`). A file gets its name by a rename when it is complete and durable; the tables are
 * written after that, and cleared before a file goes. So what a crash leaves is a file that no table knows, and
 * `sweep` removes it.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { faultPoint } from '@arcbox/sys/fault-point';
import { hexOf } from '../digest.ts';

export class Content {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  blob(digest: string): string {
    return join(this.directory, 'sha256', hexOf(digest));
  }

  layer(diffId: string): string {
    return join(this.directory, 'layers', hexOf(diffId));
  }

  /** A directory for one piece of work; whoever asked for it removes it. */
  async workspace(): Promise<string> {
    const path = join(this.directory, 'tmp', randomBytes(8).toString('hex'));
    await mkdir(path, { recursive: true, mode: 0o700 });
    return path;
  }

  /** Makes the directories, and removes what a crash left: everything that the tables do not know. */
  async open(known: { blobs: readonly string[]; layers: readonly string[] }): Promise<void> {
    await rm(join(this.directory, 'tmp'), { recursive: true, force: true });
    for (const name of ['sha256', 'layers', 'tmp']) {
      await mkdir(join(this.directory, name), { recursive: true, mode: 0o700 });
    }
    await this.#sweep('sha256', known.blobs);
    await this.#sweep('layers', known.layers);
  }

  async addBlob(from: string, digest: string): Promise<void> {
    await rename(from, this.blob(digest));
  }

  async addLayer(from: string, diffId: string): Promise<void> {
    await rename(from, this.layer(diffId));
  }

  /** After renames: makes the names durable. */
  async syncNames(): Promise<void> {
    for (const name of ['sha256', 'layers']) {
      const handle = await open(join(this.directory, name), 'r');
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    }
  }

  async remove(files: { blobs: readonly string[]; layers: readonly string[] }): Promise<void> {
    for (const digest of files.blobs) {
      faultPoint('image.collect.blob');
      await rm(this.blob(digest), { force: true });
    }
    for (const diffId of files.layers) {
      faultPoint('image.collect.layer');
      await rm(this.layer(diffId), { force: true });
    }
  }

  async #sweep(name: string, known: readonly string[]): Promise<void> {
    const keep = new Set(known.map(hexOf));
    for (const file of await readdir(join(this.directory, name))) {
      if (!keep.has(file)) await rm(join(this.directory, name, file), { recursive: true, force: true });
    }
  }
}
