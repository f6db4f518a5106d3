/** Which images an archive holds: `manifest.json` of docker-archive, `index.json` of oci-layout, or both. */
import { sha256 } from '../digest.ts';
import { ImageError } from '../errors.ts';
import { parseImageConfig } from '../image-config.ts';
import type { Compression } from '../layer/compression.ts';
import {
  type Descriptor,
  formatPlatform,
  hostPlatform,
  INDEX_TYPES,
  type IndexEntry,
  MEDIA_TYPES,
  makeManifest,
  ociLayerType,
  parseManifest,
  selectPlatform,
} from '../manifest.ts';
import { canonicalName, parseReference } from '../reference.ts';
import type { NewImage } from '../store/new-image.ts';

export interface ArchiveFiles {
  /** A small file; undefined when there is none of that name. */
  json(name: string): Buffer | undefined;
  /** Throws `ERR_ARCBOX_ARCHIVE_INVALID` and what was wrong with the layer. */
  layer(name: string): Promise<{ diffId: string; digest: string; bytes: number; compression: Compression }>;
}

const NAME_ANNOTATIONS = ['io.containerd.image.name', 'org.opencontainers.image.ref.name'];

/** Throws `ERR_ARCBOX_ARCHIVE_INVALID` and whatever is wrong with what it names. */
export async function imagesOf(files: ArchiveFiles): Promise<NewImage[]> {
  const index = files.json('index.json');
  const manifest = files.json('manifest.json');
  if (index === undefined && manifest === undefined) {
    throw invalid(
      'it has neither a manifest.json (docker save) nor an index.json (OCI layout); to make an image of a root file system use arcbox import',
    );
  }
  const images = index === undefined ? [] : await ociImages(files, index);
  if (manifest === undefined) return images;
  // Archives of today's docker save are both; then the index has the manifests, and this one has the names.
  for (const entry of dockerEntries(manifest)) {
    const config = files.json(entry.config);
    if (config === undefined) throw invalid(`it names the configuration ${entry.config}, which is not in it`);
    const id = sha256(config);
    const known = images.findIndex((image) => sha256(Buffer.from(image.config)) === id);
    const found = images[known];
    if (found === undefined) images.push(await dockerImage(files, entry, config));
    else images[known] = { ...found, names: [...new Set([...found.names, ...entry.names])] };
  }
  return images;
}

interface DockerEntry {
  readonly config: string;
  readonly layers: readonly string[];
  readonly names: readonly string[];
}

function dockerEntries(bytes: Buffer): DockerEntry[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw invalid('its manifest.json is not JSON', error);
  }
  if (!Array.isArray(parsed)) throw invalid('its manifest.json is not a list');
  return parsed.map((value: unknown): DockerEntry => {
    const { Config, Layers, RepoTags } = (value ?? {}) as Record<string, unknown>;
    const texts = (list: unknown): list is string[] =>
      Array.isArray(list) && list.every((item) => typeof item === 'string');
    if (typeof Config !== 'string' || !(Layers === null || texts(Layers))) {
      throw invalid('its manifest.json names no configuration or no layers');
    }
    const names = texts(RepoTags) ? RepoTags.map((name) => canonicalName(parseReference(name))) : [];
    return { config: Config, layers: Layers ?? [], names };
  });
}

async function dockerImage(files: ArchiveFiles, entry: DockerEntry, config: Buffer): Promise<NewImage> {
  const layers = await Promise.all(entry.layers.map((name) => files.layer(name)));
  const manifest = makeManifest(
    { mediaType: MEDIA_TYPES.ociConfig, digest: sha256(config), size: config.length },
    layers.map(
      ({ digest, bytes, compression }): Descriptor => ({
        mediaType: ociLayerType(compression),
        digest,
        size: bytes,
      }),
    ),
  );
  checkLayers(config, layers, entry.config);
  return { config, manifest, manifestType: MEDIA_TYPES.ociManifest, layers, names: entry.names };
}

async function ociImages(files: ArchiveFiles, bytes: Buffer): Promise<NewImage[]> {
  const top = parseManifest(bytes, MEDIA_TYPES.ociIndex, 'the archive');
  if (top.kind !== 'index') throw invalid('its index.json is not an index');
  const images: NewImage[] = [];
  for (const entry of top.manifests) {
    if (entry.platform?.os === 'unknown') continue;
    images.push(await ociImage(files, entry));
  }
  return images;
}

async function ociImage(files: ArchiveFiles, entry: IndexEntry): Promise<NewImage> {
  let chosen: Descriptor = entry;
  if (INDEX_TYPES.includes(entry.mediaType)) {
    const nested = parseManifest(blob(files, entry), entry.mediaType, entry.digest);
    if (nested.kind !== 'index') throw invalid(`${entry.digest} is not an index`);
    // Only what is in the archive counts: a save of one platform keeps the index of all.
    const present = nested.manifests.filter(({ digest }) => files.json(pathOf(digest)) !== undefined);
    if (present.length === 0) throw invalid(`none of the images of ${entry.digest} is in it`);
    const only = present.length === 1 ? present[0] : undefined;
    chosen = only ?? selectPlatform({ ...nested, manifests: present }, hostPlatform(), formatName(entry));
  }
  const bytes = blob(files, chosen);
  const manifest = parseManifest(bytes, chosen.mediaType, chosen.digest);
  if (manifest.kind !== 'manifest') throw invalid(`${chosen.digest} is an index in an index`);
  const config = blob(files, manifest.config);
  const layers = await Promise.all(manifest.layers.map(({ digest }) => files.layer(pathOf(digest))));
  checkLayers(config, layers, manifest.config.digest);
  return { config, manifest: bytes, manifestType: manifest.mediaType, layers, names: namesOf(entry) };
}

function blob(files: ArchiveFiles, { digest }: Descriptor): Buffer {
  const bytes = files.json(pathOf(digest));
  if (bytes === undefined) throw invalid(`it names ${digest}, which is not in it`);
  const actual = sha256(bytes);
  if (actual !== digest) {
    throw new ImageError(
      'ERR_ARCBOX_DIGEST_MISMATCH',
      `the archive's file for ${digest} has the digest ${actual}`,
    );
  }
  return bytes;
}

/** The configuration says which layers there are; they must be those. */
export function checkLayers(
  config: Buffer,
  layers: readonly { readonly diffId: string }[],
  source: string,
): void {
  const { diffIds } = parseImageConfig(config.toString('utf8'), source);
  const fits =
    diffIds.length === layers.length && diffIds.every((diffId, index) => layers[index]?.diffId === diffId);
  if (!fits) {
    throw new ImageError(
      'ERR_ARCBOX_DIGEST_MISMATCH',
      `the layers are not those that the image configuration ${source} names`,
    );
  }
}

function namesOf(entry: IndexEntry): string[] {
  for (const key of NAME_ANNOTATIONS) {
    const name = entry.annotations[key];
    // A reference name may be a tag alone, which names nothing here.
    if (name === undefined || (key !== NAME_ANNOTATIONS[0] && !/[/:]/.test(name))) continue;
    try {
      return [canonicalName(parseReference(name))];
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
    }
  }
  return [];
}

function formatName(entry: IndexEntry): string {
  return namesOf(entry)[0] ?? (entry.platform === undefined ? entry.digest : formatPlatform(entry.platform));
}

function pathOf(digest: string): string {
  return `blobs/${digest.replace(':', '/')}`;
}

function invalid(why: string, cause?: unknown): ImageError {
  return new ImageError('ERR_ARCBOX_ARCHIVE_INVALID', `this is no image archive: ${why}`, { cause });
}
