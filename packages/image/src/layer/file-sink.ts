/** Writes a stream to a new file, in large pieces, off the thread; syncs as it goes, so that the end does not wait long. */
import { type FileHandle, open, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ImageError } from '../errors.ts';
import { LAYER_LIMITS, type LayerLimits } from '../limits.ts';

const WRITE_BYTES = 1024 * 1024;
const QUEUE_BYTES_MAX = 8 * 1024 * 1024;
/** Data is given to the disk after so many bytes, so that the last sync finds little to do. */
const SYNC_BYTES = 32 * 1024 * 1024;

export class FileSink {
  readonly path: string;
  readonly #limits: LayerLimits;
  #handle: FileHandle | undefined;
  #queue: Buffer[] = [];
  #queuedBytes = 0;
  #writing: Promise<void> | undefined;
  #syncing: Promise<void> | undefined;
  #failed: unknown;
  #written = 0;
  #synced = 0;
  #checked = 0;

  constructor(path: string, limits: LayerLimits = LAYER_LIMITS) {
    this.path = path;
    this.#limits = limits;
  }

  async open(): Promise<void> {
    this.#handle = await open(this.path, 'wx+', 0o600);
  }

  /** Takes the bytes, which must not change any more. */
  write(bytes: Buffer): void {
    this.#queue.push(bytes);
    this.#queuedBytes += bytes.length;
    if (this.#queuedBytes >= WRITE_BYTES) this.#start();
  }

  /** Resolves when there is room for more. Throws what writing threw. */
  async room(): Promise<void> {
    while (this.#failed === undefined && this.#queuedBytes > QUEUE_BYTES_MAX) await this.#writing;
    if (this.#failed !== undefined) throw this.#failed;
  }

  /** Writes and syncs everything, and closes. */
  async finish(): Promise<void> {
    this.#start();
    while (this.#writing !== undefined) await this.#writing;
    await this.#syncing;
    if (this.#failed !== undefined) throw this.#failed;
    await this.#handle?.datasync();
    await this.close();
  }

  /** Closes without a care for what is there. */
  async close(): Promise<void> {
    this.#queue = [];
    this.#queuedBytes = 0;
    await this.#writing;
    await this.#syncing;
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }

  #start(): void {
    this.#writing ??= this.#drain().finally(() => {
      this.#writing = undefined;
    });
  }

  async #drain(): Promise<void> {
    try {
      while (this.#queue.length > 0 && this.#handle !== undefined) {
        const batch = this.#queue;
        const bytes = this.#queuedBytes;
        this.#queue = [];
        await writeAll(this.#handle, batch);
        this.#queuedBytes -= bytes;
        this.#written += bytes;
        if (this.#written - this.#checked >= this.#limits.diskCheckBytes) await this.#checkSpace();
        if (this.#written - this.#synced >= SYNC_BYTES) this.#sync();
      }
    } catch (error) {
      this.#failed = error;
      this.#queue = [];
      this.#queuedBytes = 0;
    }
  }

  #sync(): void {
    if (this.#syncing !== undefined) return;
    this.#synced = this.#written;
    // A failure is seen again by the sync at the end.
    this.#syncing = this.#handle
      ?.datasync()
      .catch(() => {})
      .finally(() => {
        this.#syncing = undefined;
      });
  }

  async #checkSpace(): Promise<void> {
    this.#checked = this.#written;
    await checkSpace(dirname(this.path), this.#limits.diskReserveBytes);
  }
}

/** Throws `ERR_ARCBOX_IMAGE_LIMIT` when the file system of `directory` has less than so many bytes left. */
export async function checkSpace(directory: string, reserveBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize >= reserveBytes) return;
  throw new ImageError(
    'ERR_ARCBOX_IMAGE_LIMIT',
    `less than ${Math.ceil(reserveBytes / 1024 ** 2)} MiB are free at ${directory}; remove images (arcbox image prune), or make room there`,
  );
}

async function writeAll(handle: FileHandle, parts: readonly Buffer[]): Promise<void> {
  const total = parts.reduce((sum, part) => sum + part.length, 0);
  const { bytesWritten } = await handle.writev(parts as Buffer[]);
  if (bytesWritten === total) return;
  let skip = bytesWritten;
  for (const part of parts) {
    if (skip >= part.length) {
      skip -= part.length;
      continue;
    }
    for (let at = skip; at < part.length; ) at += (await handle.write(part, at)).bytesWritten;
    skip = 0;
  }
}
