/** Images for tests, as the archives that carry them. */
import { sha256 } from '../../src/digest.ts';
import { detectCompression } from '../../src/layer/compression.ts';
import { MEDIA_TYPES, makeManifest, ociLayerType } from '../../src/manifest.ts';
import { canonicalName, parseReference } from '../../src/reference.ts';
import { type EntryInput, tar } from './tars.ts';

export interface TestImage {
  readonly config: Buffer;
  /** Plain tars. */
  readonly layers: readonly Buffer[];
  /** As they are shipped. */
  readonly blobs: readonly Buffer[];
  manifest(this: TestImage): Buffer;
  manifestDigest(this: TestImage): string;
}

export function testImage(layers: readonly (readonly EntryInput[])[], extra: object = {}): TestImage {
  const tars = layers.map((entries) => tar(...entries));
  const config = {
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    created: '2026-01-02T03:04:05Z',
    config: { Cmd: ['sh'] },
    rootfs: { type: 'layers', diff_ids: tars.map(sha256) },
    history: tars.map((_, index) => ({ created: '2026-01-02T03:04:05Z', created_by: `step ${index}` })),
    ...extra,
  };
  return {
    config: Buffer.from(JSON.stringify(config)),
    layers: tars,
    blobs: tars,
    manifest() {
      return makeManifest(
        { mediaType: MEDIA_TYPES.ociConfig, digest: sha256(this.config), size: this.config.length },
        this.blobs.map((blob) => ({
          mediaType: ociLayerType(detectCompression(blob)),
          digest: sha256(blob),
          size: blob.length,
        })),
      );
    },
    manifestDigest() {
      return sha256(this.manifest());
    },
  };
}

/** As docker save wrote it before it became an OCI layout too. */
export function dockerArchive(
  image: TestImage,
  names: readonly string[],
  options: { manifestFirst?: boolean } = {},
): Buffer {
  const config = `${sha256(image.config).slice(7)}.json`;
  const layers = image.blobs.map((_, index) => `layer-${index}/layer.tar`);
  const manifest = {
    name: 'manifest.json',
    data: JSON.stringify([{ Config: config, RepoTags: names, Layers: layers }]),
  };
  const entries = [
    { name: config, data: image.config },
    ...image.blobs.map((data, index) => ({ name: layers[index] ?? '', data })),
  ];
  return tar(...(options.manifestFirst === true ? [manifest, ...entries] : [...entries, manifest]));
}

export function ociArchive(
  image: TestImage,
  names: readonly string[],
  change: (name: string, bytes: Buffer) => Buffer = (_, bytes) => bytes,
): Buffer {
  const manifest = image.manifest();
  const descriptor = { mediaType: MEDIA_TYPES.ociManifest, digest: sha256(manifest), size: manifest.length };
  const index = {
    schemaVersion: 2,
    manifests: names.map((name) => ({
      ...descriptor,
      annotations: { 'io.containerd.image.name': canonicalName(parseReference(name)) },
    })),
  };
  const blobs = [...image.blobs, image.config, manifest].map((bytes) => {
    const name = `blobs/${sha256(bytes).replace(':', '/')}`;
    return { name, data: change(name, bytes) };
  });
  return tar({ name: 'oci-layout', data: '{"imageLayoutVersion":"1.0.0"}' }, ...blobs, {
    name: 'index.json',
    data: JSON.stringify(index),
  });
}
