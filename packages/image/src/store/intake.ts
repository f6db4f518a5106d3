/** How new layers and images get into the store: files first, then the tables. */
import { faultPoint } from '@arcbox/sys/fault-point';
import { sha256 } from '../digest.ts';
import type { KnownBlob } from '../worker/protocol.ts';
import type { StoreCore } from './core.ts';
import type { FreshLayer, NewImage } from './new-image.ts';

/** Which blobs are here; from now on the lease holds them with their layers. */
export function takeKnown(core: StoreCore, digests: readonly string[], lease: string): KnownBlob[] {
  return digests.flatMap((digest) => {
    const blob = core.database.blob(digest);
    if (blob === undefined || core.database.layer(blob.diffId) === undefined) return [];
    core.database.hold(lease, `blob:${digest}`);
    core.database.hold(lease, `layer:${blob.diffId}`);
    return [blob];
  });
}

/** Takes over what a worker made: files first, then the tables. */
export async function commit(
  core: StoreCore,
  fresh: readonly FreshLayer[],
  images: readonly NewImage[],
  lease: string,
): Promise<void> {
  await core.change(async () => {
    await moveIn(core, fresh);
    faultPoint('image.commit.tables');
    core.database.transaction(() => {
      putLayers(core, fresh);
      for (const image of images) putImage(core, image);
    });
    core.database.drop(lease);
    core.catalogue.forget();
  });
}

/** Gives the files of new layers their names, durably. */
export async function moveIn(core: StoreCore, fresh: readonly FreshLayer[]): Promise<void> {
  for (const { layer, blobPath, squashfsPath } of fresh) {
    if (core.database.blob(layer.digest) === undefined) {
      faultPoint('image.commit.blob');
      await core.content.addBlob(blobPath, layer.digest);
    }
    if (core.database.layer(layer.diffId) === undefined) {
      faultPoint('image.commit.layer');
      await core.content.addLayer(squashfsPath, layer.diffId);
    }
  }
  faultPoint('image.commit.sync');
  if (fresh.length > 0) await core.content.syncNames();
}

export function putLayers(core: StoreCore, fresh: readonly FreshLayer[]): void {
  for (const { layer } of fresh) {
    core.database.putLayer(layer);
    core.database.putBlob({ ...layer, bytes: layer.blobBytes });
  }
}

function putImage(core: StoreCore, image: NewImage): void {
  const config = Buffer.from(image.config);
  const id = sha256(config);
  core.database.putImage(
    { id, config, manifest: Buffer.from(image.manifest), manifestType: image.manifestType },
    image.layers.map(({ diffId }) => diffId),
    image.layers.map(({ digest }) => digest),
  );
  for (const name of image.names) core.database.setName(name, id);
  for (const name of image.digests ?? []) core.database.setDigest(name, id);
  if (image.names.length === 0 && !core.database.names().some(({ imageId }) => imageId === id)) {
    core.database.keep(id);
  }
}
