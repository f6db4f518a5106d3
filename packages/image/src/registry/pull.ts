/** The job of `pull`: from a reference to an image with its layers in the workspace. */
import { join } from 'node:path';
import { faultPoint } from '@arcbox/sys/fault-point';
import { checkLayers } from '../archive/layout.ts';
import { startingWith } from '../archive/packing.ts';
import { shortDigest } from '../digest.ts';
import { ImageError } from '../errors.ts';
import { parseImageConfig } from '../image-config.ts';
import { DETECT_BYTES } from '../layer/compression.ts';
import { LayerIngest } from '../layer/ingest.ts';
import {
  BLOB_BYTES_MAX,
  IMAGE_CONFIG_BYTES_MAX,
  type LayerLimits,
  PROGRESS_INTERVAL_MS,
  TRANSFERS_MAX,
} from '../limits.ts';
import {
  type Descriptor,
  formatPlatform,
  hostPlatform,
  type Manifest,
  type Platform,
  parseManifest,
  selectPlatform,
} from '../manifest.ts';
import { canonicalName, familiarName, type Reference } from '../reference.ts';
import type { FreshLayer, NewImage } from '../store/new-image.ts';
import type { JobContext } from '../worker/context.ts';
import { type FetchedManifest, mismatch, Repository } from './client.ts';
import { type Credentials, credentialsFor } from './credentials.ts';
import { endpointsOf, type RegistryConfig } from './endpoints.ts';
import { Transport } from './transport.ts';

export interface PullJob {
  readonly kind: 'pull';
  readonly workspace: string;
  readonly limits: LayerLimits;
  readonly reference: Reference;
  /** Absent: this host's. */
  readonly platform: Platform | undefined;
  /** Absent: what Docker's configuration has. */
  readonly credentials: Credentials | undefined;
  readonly registries: RegistryConfig;
}

export interface PulledImage {
  readonly image: NewImage;
  readonly fresh: readonly FreshLayer[];
  /** Of what the reference names: the index, when there is one. */
  readonly digest: string;
}

export async function pull(job: PullJob, context: JobContext): Promise<PulledImage> {
  using transport = new Transport();
  const { reference } = job;
  const endpoints = endpointsOf(reference.domain, job.registries);
  let failure: unknown;
  for (const endpoint of endpoints) {
    const repository = new Repository({
      transport,
      endpoint,
      path: reference.path,
      push: false,
      signal: context.signal,
      credentials: async () =>
        (endpoint.mirror ? undefined : job.credentials) ?? credentialsFor(endpoint.host),
    });
    try {
      return await repository.translated(() => new Pull(job, context, repository).run());
    } catch (error) {
      context.signal.throwIfAborted();
      // A mirror that cannot help is passed over; what is said in the end is what the registry said.
      failure = error;
      if (endpoint.mirror) context.progress({ id: '', status: `The mirror ${endpoint.host} cannot help` });
    }
  }
  throw failure;
}

class Pull {
  readonly #job: PullJob;
  readonly #context: JobContext;
  readonly #repository: Repository;

  constructor(job: PullJob, context: JobContext, repository: Repository) {
    this.#job = job;
    this.#context = context;
    this.#repository = repository;
  }

  async run(): Promise<PulledImage> {
    const { reference } = this.#job;
    const top = await this.#repository.manifest(reference.digest ?? reference.tag ?? '');
    const { fetched, manifest } = await this.#select(top);
    const config = await this.#repository.document(
      manifest.config.digest,
      manifest.config.size,
      IMAGE_CONFIG_BYTES_MAX,
    );
    this.#checkConfig(config, manifest);
    const { layers, fresh } = await this.#layers(manifest.layers);
    checkLayers(config, layers, manifest.config.digest);
    const name = reference.digest === undefined ? [canonicalName(reference)] : [];
    const digests = [`${reference.domain}/${reference.path}@${top.digest}`];
    return {
      image: {
        config,
        manifest: fetched.bytes,
        manifestType: manifest.mediaType,
        layers,
        names: name,
        digests,
      },
      fresh,
      digest: top.digest,
    };
  }

  async #select(top: FetchedManifest): Promise<{ fetched: FetchedManifest; manifest: Manifest }> {
    const source = familiarName(this.#job.reference);
    let fetched = top;
    let parsed = parseManifest(top.bytes, top.mediaType, source);
    if (parsed.kind === 'index') {
      const chosen = selectPlatform(parsed, this.#job.platform ?? hostPlatform(), source);
      fetched = await this.#repository.manifest(chosen.digest);
      parsed = parseManifest(fetched.bytes, fetched.mediaType ?? chosen.mediaType, source);
    }
    if (parsed.kind === 'manifest') return { fetched, manifest: parsed };
    throw new ImageError('ERR_ARCBOX_IMAGE_CORRUPT', `${source} is an index of indexes`);
  }

  /** Before anything large is fetched. */
  #checkConfig(bytes: Buffer, manifest: Manifest): void {
    const source = familiarName(this.#job.reference);
    const config = parseImageConfig(bytes.toString('utf8'), source);
    if (config.diffIds.length !== manifest.layers.length) {
      throw new ImageError(
        'ERR_ARCBOX_IMAGE_CORRUPT',
        `the manifest of ${source} has ${manifest.layers.length} layers, its configuration ${config.diffIds.length}`,
      );
    }
    const { platform } = this.#job;
    if (platform === undefined) return;
    if (config.os !== platform.os || config.architecture !== platform.architecture) {
      throw new ImageError(
        'ERR_ARCBOX_IMAGE_PLATFORM',
        `${source} is for ${config.os}/${config.architecture} only, not for ${formatPlatform(platform)}`,
      );
    }
  }

  async #layers(
    descriptors: readonly Descriptor[],
  ): Promise<{ layers: { diffId: string; digest: string }[]; fresh: FreshLayer[] }> {
    const unique = new Map(descriptors.map((descriptor) => [descriptor.digest, descriptor]));
    const known = new Map(
      (await this.#context.which([...unique.keys()])).map(({ digest, diffId }) => [digest, diffId]),
    );
    const missing: Descriptor[] = [];
    for (const descriptor of unique.values()) {
      const id = shortDigest(descriptor.digest);
      const here = known.has(descriptor.digest);
      if (!here) missing.push(descriptor);
      this.#context.progress({ id, status: here ? 'Already exists' : 'Pulling fs layer' });
    }
    const fresh = await inParallel(missing, TRANSFERS_MAX, (descriptor, index) =>
      this.#download(descriptor, index),
    );
    for (const { layer } of fresh) known.set(layer.digest, layer.diffId);
    return { layers: descriptors.map(({ digest }) => ({ digest, diffId: known.get(digest) ?? '' })), fresh };
  }

  async #download({ digest, size }: Descriptor, index: number): Promise<FreshLayer> {
    if (size > BLOB_BYTES_MAX) {
      throw new ImageError(
        'ERR_ARCBOX_IMAGE_LIMIT',
        `the layer ${digest} has ${size} bytes; the limit is ${BLOB_BYTES_MAX}`,
      );
    }
    const id = shortDigest(digest);
    const blobPath = join(this.#job.workspace, `${index}.blob`);
    const squashfsPath = join(this.#job.workspace, `${index}.squashfs`);
    faultPoint('image.pull.download');
    const ingest = new LayerIngest({ blob: blobPath, squashfs: squashfsPath }, this.#job.limits);
    try {
      await ingest.open();
      let current = 0;
      let toldMs = 0;
      for await (const chunk of startingWith(this.#repository.blob(digest, size), DETECT_BYTES)) {
        await ingest.write(chunk);
        this.#context.signal.throwIfAborted();
        current += chunk.length;
        if (Date.now() - toldMs >= PROGRESS_INTERVAL_MS || current === size) {
          toldMs = Date.now();
          this.#context.progress({ id, status: 'Downloading', current, total: size });
        }
      }
      this.#context.progress({ id, status: 'Extracting', current: size, total: size });
      faultPoint('image.pull.extract');
      const layer = await ingest.finish();
      if (layer.digest !== digest) throw mismatch(this.#repository.host, digest, layer.digest);
      this.#context.progress({ id, status: 'Pull complete' });
      return { layer, blobPath, squashfsPath };
    } catch (error) {
      await ingest.abort();
      throw error;
    }
  }
}

/** At most so many at a time; the first failure lets those that run end, begins no more, and is thrown. */
export async function inParallel<T, R>(
  items: readonly T[],
  limit: number,
  work: (item: T, index: number) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  let failed = false;
  const lane = async (): Promise<void> => {
    for (;;) {
      const index = next;
      const item = items[index];
      if (failed || item === undefined) return;
      next += 1;
      try {
        results[index] = await work(item, index);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: limit }, lane));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
  return results;
}
