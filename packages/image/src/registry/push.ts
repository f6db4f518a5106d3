/**
 * The job of `push`: blobs first, then the configuration, then the manifest that names them.
 *
 * An image that was pulled goes out as it came in, byte for byte. One that was made here has plain tars for layers; those
 * are packed now, and the store keeps the packed ones, so that the next push sends the same.
 */

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { faultPoint } from '@arcbox/sys/fault-point';
import { sha256, shortDigest } from '../digest.ts';
import { FileSink } from '../layer/file-sink.ts';
import type { IngestedLayer } from '../layer/ingest.ts';
import { PROGRESS_INTERVAL_MS, TRANSFERS_MAX } from '../limits.ts';
import { type Descriptor, MEDIA_TYPES, makeManifest, ociLayerType } from '../manifest.ts';
import type { Reference } from '../reference.ts';
import type { JobContext } from '../worker/context.ts';
import { Repository } from './client.ts';
import { type Credentials, credentialsFor } from './credentials.ts';
import { endpointsOf, type RegistryConfig } from './endpoints.ts';
import { inParallel } from './pull.ts';
import { Transport } from './transport.ts';

export interface PushLayer {
  readonly descriptor: Descriptor;
  readonly layer: IngestedLayer;
  readonly path: string;
}

export interface PushJob {
  readonly kind: 'push';
  readonly workspace: string;
  readonly reference: Reference;
  readonly config: Uint8Array;
  readonly manifest: Uint8Array;
  readonly manifestType: string;
  /** Lowest first. */
  readonly layers: readonly PushLayer[];
  /** Paths of repositories at the same registry that may have the blobs. */
  readonly elsewhere: readonly string[];
  readonly credentials: Credentials | undefined;
  readonly registries: RegistryConfig;
}

export interface PushOutcome {
  /** Of the manifest, as the registry has it now. */
  readonly digest: string;
  readonly manifest: Uint8Array;
  readonly manifestType: string;
  /** Layers that were packed for it. */
  readonly packed: readonly { readonly layer: IngestedLayer; readonly path: string }[];
  /** Digests of all layers' blobs, lowest first. */
  readonly digests: readonly string[];
}

const READ_BYTES = 256 * 1024;

export async function push(job: PushJob, context: JobContext): Promise<PushOutcome> {
  using transport = new Transport();
  const { reference } = job;
  const endpoint = endpointsOf(reference.domain, job.registries).at(-1);
  if (endpoint === undefined) throw new Error(`no endpoint for ${reference.domain}`);
  const repository = new Repository({
    transport,
    endpoint,
    path: reference.path,
    push: true,
    signal: context.signal,
    credentials: async () => job.credentials ?? credentialsFor(endpoint.host),
  });
  return repository.translated(() => run(job, context, repository));
}

async function run(job: PushJob, context: JobContext, repository: Repository): Promise<PushOutcome> {
  const config = Buffer.from(job.config);
  const own = makeManifest(
    { mediaType: MEDIA_TYPES.ociConfig, digest: sha256(config), size: config.length },
    job.layers.map(({ descriptor }) => descriptor),
  );
  const madeHere = own.equals(job.manifest);
  const unique = [...new Map(job.layers.map((layer) => [layer.descriptor.digest, layer])).values()];
  for (const { descriptor } of unique)
    context.progress({ id: shortDigest(descriptor.digest), status: 'Preparing' });
  const sent = await inParallel(unique, TRANSFERS_MAX, async (layer, index) => {
    const packs = madeHere && layer.layer.compression === 'none';
    const ready = packs ? await pack(job, context, layer, index) : layer;
    await send(job, context, repository, ready, shortDigest(layer.descriptor.digest));
    return { from: layer.descriptor.digest, ready, packs };
  });
  const byDigest = new Map(sent.map(({ from, ready }) => [from, ready.descriptor]));
  const descriptors = job.layers.map(({ descriptor }) => byDigest.get(descriptor.digest) ?? descriptor);
  const configDigest = sha256(config);
  if (!(await repository.hasBlob(configDigest))) {
    faultPoint('image.push.config');
    await repository.uploadBlob(configDigest, config.length, () => Readable.from([config]));
  }
  const manifest = madeHere
    ? makeManifest(
        { mediaType: MEDIA_TYPES.ociConfig, digest: configDigest, size: config.length },
        descriptors,
      )
    : Buffer.from(job.manifest);
  const digest = sha256(manifest);
  faultPoint('image.push.manifest');
  const reference = job.reference.tag ?? digest;
  await repository.putManifest(reference, job.manifestType, manifest, () => Readable.from([manifest]));
  return {
    digest,
    manifest,
    manifestType: job.manifestType,
    packed: sent.filter(({ packs }) => packs).map(({ ready }) => ({ layer: ready.layer, path: ready.path })),
    digests: descriptors.map((descriptor) => descriptor.digest),
  };
}

async function send(
  job: PushJob,
  context: JobContext,
  repository: Repository,
  { descriptor, path }: PushLayer,
  id: string,
): Promise<void> {
  if (await repository.hasBlob(descriptor.digest)) {
    context.progress({ id, status: 'Layer already exists' });
    return;
  }
  for (const from of job.elsewhere) {
    if (await repository.mountBlob(descriptor.digest, from)) {
      context.progress({ id, status: `Mounted from ${from}` });
      return;
    }
  }
  faultPoint('image.push.blob');
  await repository.uploadBlob(descriptor.digest, descriptor.size, () => {
    let current = 0;
    let toldMs = 0;
    return createReadStream(path, { highWaterMark: READ_BYTES }).on('data', (chunk) => {
      current += chunk.length;
      if (Date.now() - toldMs < PROGRESS_INTERVAL_MS) return;
      toldMs = Date.now();
      context.progress({ id, status: 'Pushing', current, total: descriptor.size });
    });
  });
  context.progress({ id, status: 'Pushed' });
}

async function pack(
  job: PushJob,
  context: JobContext,
  { layer, path }: PushLayer,
  index: number,
): Promise<PushLayer> {
  context.progress({ id: shortDigest(layer.digest), status: 'Packing', total: layer.blobBytes });
  faultPoint('image.push.pack');
  const packed = join(job.workspace, `${index}.packed`);
  const sink = new FileSink(packed);
  const hash = createHash('sha256');
  let bytes = 0;
  try {
    await sink.open();
    await pipeline(
      createReadStream(path, { highWaterMark: READ_BYTES }),
      createGzip(),
      async (source: AsyncIterable<Buffer>) => {
        for await (const chunk of source) {
          hash.update(chunk);
          bytes += chunk.length;
          sink.write(chunk);
          await sink.room();
        }
      },
      { signal: context.signal },
    );
    await sink.finish();
  } finally {
    await sink.close();
  }
  const digest = `sha256:${hash.digest('hex')}`;
  return {
    descriptor: { mediaType: ociLayerType('gzip'), digest, size: bytes },
    layer: { ...layer, digest, blobBytes: bytes, compression: 'gzip' },
    path: packed,
  };
}
