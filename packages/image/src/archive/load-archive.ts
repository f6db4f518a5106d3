/**
 * The job of `load`: takes a docker-archive or an oci-layout apart while it arrives.
 *
 * What is a layer is said by a file that may come last (`manifest.json`, `index.json`), so every file that looks like one
 * is taken in as a layer; what nobody names in the end is thrown away with the workspace.
 */
import { join, posix } from 'node:path';
import { faultPoint } from '@arcbox/sys/fault-point';
import { sha256, shortDigest } from '../digest.ts';
import { ImageError } from '../errors.ts';
import { type Compression, DETECT_BYTES, detectCompression, looksLikeTar } from '../layer/compression.ts';
import { type IngestedLayer, LayerIngest } from '../layer/ingest.ts';
import { cleanPath } from '../layer/tree.ts';
import {
  ARCHIVE_DOCUMENT_BYTES_MAX,
  ARCHIVE_ENTRIES_MAX,
  IMAGE_CONFIG_BYTES_MAX,
  PROGRESS_INTERVAL_MS,
} from '../limits.ts';
import type { FreshLayer, NewImage } from '../store/new-image.ts';
import { tarEvents } from '../tar/events.ts';
import type { TarEntry } from '../tar/header.ts';
import type { JobContext } from '../worker/context.ts';
import type { KnownBlob, LoadJob } from '../worker/protocol.ts';
import { type ArchiveFiles, imagesOf } from './layout.ts';
import { unpacked } from './packing.ts';

export interface LoadedArchive {
  readonly images: readonly NewImage[];
  readonly fresh: readonly FreshLayer[];
}

/** Layers whose file systems are being finished while the next ones arrive. */
const FINISHING_MAX = 2;
const BLOB_NAME = /^blobs\/sha256\/([0-9a-f]{64})$/;

export async function loadArchive(job: LoadJob, context: JobContext): Promise<LoadedArchive> {
  const collector = new Collector(job, context);
  try {
    for await (const event of tarEvents(unpacked(context.input), ARCHIVE_ENTRIES_MAX)) {
      context.signal.throwIfAborted();
      if (event.type === 'entry') await collector.begin(event.entry);
      else if (event.type === 'data') await collector.data(event.data);
      else await collector.end();
    }
    await collector.finished();
    const images = await imagesOf(collector);
    return { images, fresh: await collector.fresh(images) };
  } catch (error) {
    await collector.abort();
    if (error instanceof ImageError && error.code === 'ERR_ARCBOX_LAYER_INVALID') {
      throw new ImageError(
        'ERR_ARCBOX_ARCHIVE_INVALID',
        `the image archive cannot be loaded: ${error.message}`,
        {
          cause: error,
        },
      );
    }
    throw error;
  }
}

/** What became of one file of the archive. */
type Kept =
  | { readonly kind: 'json'; readonly bytes: Buffer }
  | { readonly kind: 'layer'; readonly number: number; readonly done: Promise<IngestedLayer> }
  | { readonly kind: 'known'; readonly blob: KnownBlob }
  | { readonly kind: 'link'; readonly target: string };

class Collector implements ArchiveFiles {
  readonly #job: LoadJob;
  readonly #context: JobContext;
  readonly #files = new Map<string, Kept>();
  readonly #ingests = new Set<LayerIngest>();
  readonly #finishing = new Set<Promise<unknown>>();
  #layers = 0;
  #name = '';
  #sizeBytes = 0;
  /** The beginning of the file that comes now, until it is known what it is. */
  #head: Buffer[] | undefined;
  #headBytes = 0;
  #decided = false;
  /** Of all documents that are kept. */
  #documentBytes = 0;
  #ingest: LayerIngest | undefined;
  #ingestFailed: unknown;
  #number = 0;
  #doneBytes = 0;
  #toldMs = 0;

  constructor(job: LoadJob, context: JobContext) {
    this.#job = job;
    this.#context = context;
  }

  async begin(entry: TarEntry): Promise<void> {
    this.#head = undefined;
    this.#ingest = undefined;
    this.#ingestFailed = undefined;
    this.#doneBytes = 0;
    this.#name = cleanPath(entry.name).join('/');
    this.#sizeBytes = entry.sizeBytes;
    if (entry.type === 'symlink' || entry.type === 'link') {
      const base = entry.type === 'link' ? '.' : posix.dirname(this.#name);
      const target = cleanPath(posix.join(base, entry.linkName)).join('/');
      this.#files.set(this.#name, { kind: 'link', target });
    }
    if (entry.type !== 'file') return;
    const digest = digestOfName(this.#name);
    if (digest !== undefined) {
      const [known] = await this.#context.which([digest]);
      if (known !== undefined) {
        this.#files.set(this.#name, { kind: 'known', blob: known });
        this.#tell('Already exists');
        return;
      }
    }
    this.#head = [];
    this.#headBytes = 0;
    this.#decided = false;
  }

  async data(data: Buffer): Promise<void> {
    if (this.#head !== undefined) {
      this.#head.push(data);
      this.#headBytes += data.length;
      if (!this.#decided && this.#headBytes >= DETECT_BYTES) await this.#decide();
      // Nothing that an image needs besides its layers is as large.
      if (this.#headBytes > IMAGE_CONFIG_BYTES_MAX) this.#head = undefined;
      return;
    }
    if (this.#ingest !== undefined) await this.#write(data);
  }

  async end(): Promise<void> {
    // A file of a few bytes that is packed can be a layer too: an empty one.
    if (this.#head !== undefined && !this.#decided) await this.#decide();
    if (this.#head !== undefined) {
      this.#documentBytes += this.#headBytes;
      if (this.#documentBytes > ARCHIVE_DOCUMENT_BYTES_MAX) {
        throw new ImageError(
          'ERR_ARCBOX_IMAGE_LIMIT',
          `the archive has more than ${ARCHIVE_DOCUMENT_BYTES_MAX} bytes of files that are no layers`,
        );
      }
      this.#files.set(this.#name, { kind: 'json', bytes: Buffer.concat(this.#head) });
      return;
    }
    const ingest = this.#ingest;
    if (ingest === undefined) return;
    this.#tell('Extracting');
    const name = this.#name;
    const failed = this.#ingestFailed;
    const done = failed === undefined ? ingest.finish() : Promise.reject(failed);
    this.#files.set(name, { kind: 'layer', number: this.#number, done });
    const settled = done
      .catch(() => ingest.abort())
      .finally(() => {
        this.#finishing.delete(settled);
        this.#ingests.delete(ingest);
      });
    this.#finishing.add(settled);
    this.#ingest = undefined;
    while (this.#finishing.size >= FINISHING_MAX) await Promise.race(this.#finishing);
  }

  async finished(): Promise<void> {
    await Promise.all(this.#finishing);
  }

  async abort(): Promise<void> {
    await this.finished();
    await Promise.all([...this.#ingests].map((ingest) => ingest.abort()));
  }

  // --- What the archive's documents are looked up in ------------------------------------------------

  json(name: string): Buffer | undefined {
    const file = this.#find(name);
    return file?.kind === 'json' ? file.bytes : undefined;
  }

  async layer(
    name: string,
  ): Promise<{ diffId: string; digest: string; bytes: number; compression: Compression }> {
    const file = this.#find(name);
    if (file?.kind === 'known') return file.blob;
    if (file?.kind === 'layer') {
      const { diffId, digest, blobBytes, compression } = await file.done;
      const wanted = digestOfName(name);
      if (wanted !== undefined && wanted !== digest) {
        throw new ImageError(
          'ERR_ARCBOX_DIGEST_MISMATCH',
          `the archive's file ${name} has the digest ${digest}`,
        );
      }
      return { diffId, digest, bytes: blobBytes, compression };
    }
    const why = file === undefined ? 'is not in it' : 'is not a layer';
    throw new ImageError(
      'ERR_ARCBOX_ARCHIVE_INVALID',
      `the image archive names the layer ${name}, which ${why}`,
    );
  }

  /** The new layers that the images need. */
  async fresh(images: readonly NewImage[]): Promise<FreshLayer[]> {
    const needed = new Set(images.flatMap(({ layers }) => layers.map(({ digest }) => digest)));
    const fresh = new Map<string, FreshLayer>();
    for (const file of this.#files.values()) {
      if (file.kind !== 'layer') continue;
      const layer = await file.done.catch(() => undefined);
      if (layer === undefined || !needed.has(layer.digest) || fresh.has(layer.digest)) continue;
      fresh.set(layer.digest, { layer, ...this.#paths(file.number) });
    }
    return [...fresh.values()];
  }

  #find(name: string): Kept | undefined {
    let file = this.#files.get(name);
    for (let hops = 0; file?.kind === 'link' && hops < 8; hops += 1) file = this.#files.get(file.target);
    return file;
  }

  #paths(number: number): { blobPath: string; squashfsPath: string } {
    const base = join(this.#job.workspace, String(number));
    return { blobPath: `${base}.blob`, squashfsPath: `${base}.squashfs` };
  }

  /** From the first bytes: a layer, or something small to keep. */
  async #decide(): Promise<void> {
    this.#decided = true;
    const head = Buffer.concat(this.#head ?? []);
    this.#head = [head];
    const packed = head[0] === 0x1f || head[0] === 0x28;
    if (!(packed && detectCompression(head) !== 'none') && !looksLikeTar(head)) return;
    this.#number = this.#layers;
    this.#layers += 1;
    const { blobPath, squashfsPath } = this.#paths(this.#number);
    faultPoint('image.load.ingest');
    const ingest = new LayerIngest({ blob: blobPath, squashfs: squashfsPath }, this.#job.limits);
    await ingest.open();
    this.#ingests.add(ingest);
    this.#ingest = ingest;
    this.#head = undefined;
    await this.#write(head);
  }

  /** A file that is no valid layer matters only when somebody names it as one. */
  async #write(data: Buffer): Promise<void> {
    if (this.#ingestFailed !== undefined) return;
    try {
      await this.#ingest?.write(data);
    } catch (error) {
      this.#ingestFailed = error;
    }
    this.#doneBytes += data.length;
    if (Date.now() - this.#toldMs >= PROGRESS_INTERVAL_MS) {
      this.#toldMs = Date.now();
      this.#tell('Loading layer');
    }
  }

  #tell(status: string): void {
    const id = shortDigest(digestOfName(this.#name) ?? sha256(this.#name));
    this.#context.progress({ id, status, current: this.#doneBytes, total: this.#sizeBytes });
  }
}

function digestOfName(name: string): string | undefined {
  const hex = BLOB_NAME.exec(name)?.[1];
  return hex === undefined ? undefined : `sha256:${hex}`;
}
