/** An image as it is stored, for those who carry it out of the store, and the leases that keep it there meanwhile. */
import type { SavedImage } from '../archive/save.ts';
import { ImageError } from '../errors.ts';
import type { Image } from '../image.ts';
import { type Descriptor, MEDIA_TYPES, parseManifest } from '../manifest.ts';
import type { StoreCore } from './core.ts';
import type { ImageRow } from './database.ts';

/** An image that stays while the lease is there. */
export async function heldImage(core: StoreCore, text: string, lease: string): Promise<Image> {
  const image = await core.catalogue.resolve(text);
  core.catalogue.assertPresent(image);
  if (!image.embedded) hold(core, image, lease);
  return image;
}

/** Its blobs too: a pull may give the same image others. */
export function hold(core: StoreCore, image: Image, lease: string): void {
  core.database.hold(lease, `image:${image.id}`);
  const row = core.database.image(image.id);
  for (const { digest } of row === undefined ? [] : layersOf(row)) {
    core.database.hold(lease, `blob:${digest}`);
  }
}

/** Descriptors of the blobs of an image's layers. */
export async function descriptorsOf(core: StoreCore, image: Image): Promise<readonly Descriptor[]> {
  const row = core.database.image(image.id);
  if (row !== undefined) return layersOf(row);
  const { bytes } = await core.embedded.blob();
  return image.layers.map(({ digest }) => ({ mediaType: MEDIA_TYPES.ociLayer, digest, size: bytes }));
}

export async function savedForm(core: StoreCore, image: Image): Promise<Omit<SavedImage, 'names'>> {
  const row = core.database.image(image.id);
  if (row === undefined) {
    const { path, bytes, manifest } = await core.embedded.blob();
    const layers = image.layers.map(({ digest }) => ({ digest, bytes, path }));
    return { config: image.configBytes, manifest, manifestType: MEDIA_TYPES.ociManifest, layers };
  }
  const layers = layersOf(row).map(({ digest, size }) => ({
    digest,
    bytes: size,
    path: core.content.blob(digest),
  }));
  return { config: row.config, manifest: row.manifest, manifestType: row.manifestType, layers };
}

function layersOf(row: ImageRow): readonly Descriptor[] {
  const manifest = parseManifest(row.manifest, row.manifestType, row.id);
  if (manifest.kind === 'manifest') return manifest.layers;
  throw new ImageError('ERR_ARCBOX_IMAGE_CORRUPT', `the manifest of ${row.id} is an index`);
}
