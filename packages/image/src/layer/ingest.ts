/**
 * Takes a layer in as it comes over the wire or out of an archive: the blob is stored as it is and hashed, unpacked,
 * hashed again, filtered, and made into a squashfs, all while it arrives. Runs in a worker thread.
 *
 * Files are made under the names given; whoever asked for them moves or removes them. Nothing is left open or running
 * when `finish` has settled or `abort` has resolved.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Duplex } from 'node:stream';
import { ImageError, messageOf } from '../errors.ts';
import { BLOB_BYTES_MAX, LAYER_LIMITS, type LayerLimits } from '../limits.ts';
import { TarReader } from '../tar/reader.ts';
import { type Compression, decompressor, detectCompression } from './compression.ts';
import { checkSpace, FileSink } from './file-sink.ts';
import { LayerFilter, SecondPass } from './filter.ts';
import { Squash } from './squash.ts';
import { syncFile } from './sync-file.ts';

export interface IngestPaths {
  /** Where the blob is stored, as it comes. Absent: it is not kept. */
  readonly blob: string;
  readonly squashfs: string;
}

export interface IngestedLayer {
  /** Of the blob. */
  readonly digest: string;
  readonly blobBytes: number;
  readonly compression: Compression;
  /** Of the uncompressed tar. */
  readonly diffId: string;
  readonly tarBytes: number;
  readonly squashfsBytes: number;
}

export class LayerIngest {
  readonly #paths: IngestPaths;
  readonly #limits: LayerLimits;
  readonly #blobHash = createHash('sha256');
  readonly #file: FileSink;
  #compression: Compression | undefined;
  #unpacker: Duplex | undefined;
  #diffHash = createHash('sha256');
  #squash: Squash | undefined;
  #reader: TarReader | undefined;
  #filter: LayerFilter | undefined;
  #secondPass = false;
  #blobBytes = 0;
  #tarBytes = 0;
  #checkedBytes = 0;
  #failed: unknown;
  /** The unpacked stream has been read to its end. */
  #unpacked: Promise<void> | undefined;

  constructor(paths: IngestPaths, limits: LayerLimits = LAYER_LIMITS) {
    this.#paths = paths;
    this.#limits = limits;
    this.#file = new FileSink(paths.blob, limits);
  }

  async open(): Promise<void> {
    await this.#file.open();
  }

  /**
   * Takes the next bytes, and resolves when there is room for more. The first call must have enough of them to tell
   * how they are packed. Throws `ERR_ARCBOX_LAYER_INVALID`, `ERR_ARCBOX_LAYER_CONVERSION`, `ERR_ARCBOX_IMAGE_LIMIT`.
   */
  async write(chunk: Buffer): Promise<void> {
    if (this.#failed !== undefined) throw this.#failed;
    this.#compression ??= this.#begin(chunk);
    this.#blobBytes += chunk.length;
    if (this.#blobBytes > BLOB_BYTES_MAX) throw tooLarge(BLOB_BYTES_MAX);
    this.#blobHash.update(chunk);
    this.#file.write(chunk);
    if (this.#unpacker === undefined) {
      this.#tar(chunk);
      await this.#squash?.room();
      await this.#checkSpace();
    } else if (!this.#unpacker.write(chunk)) {
      await roomIn(this.#unpacker);
      if (this.#failed !== undefined) throw this.#failed;
    }
    await this.#file.room();
  }

  /** The blob is complete: makes both files durable. Throws what `write` throws. */
  async finish(): Promise<IngestedLayer> {
    this.#compression ??= this.#begin(Buffer.alloc(0));
    this.#unpacker?.end();
    await this.#unpacked;
    if (this.#failed !== undefined) throw this.#failed;
    const stored = this.#file.finish();
    // Both may fail; the second failure is not lost on anybody.
    stored.catch(() => {});
    if (!this.#secondPass) {
      this.#reader?.end();
      try {
        this.#filter?.finish();
        await this.#squash?.finish();
      } catch (error) {
        if (!(error instanceof SecondPass)) throw error;
        this.#secondPass = true;
      }
    }
    await stored;
    if (this.#secondPass) await this.#again();
    const squashfsBytes = await syncFile(this.#paths.squashfs);
    const digest = `sha256:${this.#blobHash.digest('hex')}`;
    return {
      digest,
      blobBytes: this.#blobBytes,
      compression: this.#compression,
      diffId: this.#compression === 'none' ? digest : `sha256:${this.#diffHash.digest('hex')}`,
      tarBytes: this.#tarBytes,
      squashfsBytes,
    };
  }

  /** Gives everything up and removes both files. */
  async abort(): Promise<void> {
    this.#failed ??= new ImageError('ERR_ARCBOX_CANCELLED', 'the layer was given up');
    this.#unpacker?.destroy();
    await this.#unpacked;
    await this.#squash?.abort();
    await this.#file.close();
    await rm(this.#paths.blob, { force: true });
    await rm(this.#paths.squashfs, { force: true });
  }

  #begin(first: Buffer): Compression {
    const compression = detectCompression(first);
    this.#squash = new Squash(this.#paths.squashfs);
    this.#filter = LayerFilter.streaming(this.#squash, this.#limits.layerBytesMax);
    this.#reader = new TarReader(this.#filter);
    if (compression !== 'none') {
      this.#unpacker = decompressor(compression);
      this.#unpacked = this.#readUnpacked(this.#unpacker);
    }
    return compression;
  }

  /** Never rejects. */
  async #readUnpacked(unpacker: Duplex): Promise<void> {
    try {
      for await (const chunk of unpacker as AsyncIterable<Buffer>) {
        this.#diffHash.update(chunk);
        this.#tar(chunk);
        if (!this.#secondPass) await this.#squash?.room();
        await this.#checkSpace();
      }
    } catch (error) {
      this.#failed ??=
        error instanceof ImageError
          ? error
          : new ImageError('ERR_ARCBOX_LAYER_INVALID', `the layer cannot be unpacked: ${messageOf(error)}`, {
              cause: error,
            });
    }
  }

  #tar(chunk: Buffer): void {
    this.#tarBytes += chunk.length;
    if (this.#tarBytes > this.#limits.layerBytesMax) throw tooLarge(this.#limits.layerBytesMax);
    if (this.#secondPass) return;
    try {
      this.#reader?.write(chunk);
    } catch (error) {
      if (!(error instanceof SecondPass)) throw error;
      this.#secondPass = true;
    }
  }

  /** The file system that is made of a small blob can be large: a full disk would hurt more than this layer. */
  async #checkSpace(): Promise<void> {
    if (this.#tarBytes - this.#checkedBytes < this.#limits.diskCheckBytes) return;
    this.#checkedBytes = this.#tarBytes;
    await checkSpace(dirname(this.#paths.squashfs), this.#limits.diskReserveBytes);
  }

  /** What was passed on too early is thrown away; the stored blob is gone over twice. */
  async #again(): Promise<void> {
    await this.#squash?.abort();
    await rm(this.#paths.squashfs, { force: true });
    const index = LayerFilter.indexing(this.#limits.layerBytesMax);
    await this.#readBlob(new TarReader(index), undefined);
    this.#squash = new Squash(this.#paths.squashfs);
    const planned = LayerFilter.planned(this.#squash, index);
    await this.#readBlob(new TarReader(planned), this.#squash);
    planned.finish();
    await this.#squash.finish();
  }

  async #readBlob(reader: TarReader, squash: Squash | undefined): Promise<void> {
    const file = createReadStream(this.#paths.blob, { highWaterMark: 1024 * 1024 });
    const compression = this.#compression ?? 'none';
    const source: AsyncIterable<Buffer> =
      compression === 'none' ? file : file.on('error', () => {}).pipe(decompressor(compression));
    try {
      for await (const chunk of source) {
        reader.write(chunk);
        await squash?.room();
      }
      reader.end();
    } finally {
      file.destroy();
    }
  }
}

/** Resolves when the stream takes more, has failed or was destroyed. */
async function roomIn(stream: Duplex): Promise<void> {
  if (stream.destroyed) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  stream.once('drain', resolve).once('close', resolve).once('error', resolve);
  await promise;
  stream.off('drain', resolve).off('close', resolve).off('error', resolve);
}

function tooLarge(limit: number): ImageError {
  return new ImageError('ERR_ARCBOX_IMAGE_LIMIT', `the layer is larger than ${limit / 1024 ** 2} MiB`);
}
