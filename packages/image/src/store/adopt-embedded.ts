/** The image that came with the boot assets, taken into the store. */
import { copyFile, link, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { EmbeddedImage } from '../embedded.ts';
import type { IngestedLayer } from '../layer/ingest.ts';
import { syncFile } from '../layer/sync-file.ts';
import { MEDIA_TYPES } from '../manifest.ts';
import type { StoreCore } from './core.ts';
import { moveIn, putLayers } from './intake.ts';
import type { FreshLayer } from './new-image.ts';

/**
 * The embedded image becomes one of the store's own, so that containers made from it go on when another version
 * brings another one. Held by us as long as it is the embedded one.
 */
export async function adoptEmbedded(core: StoreCore): Promise<void> {
  let embedded: EmbeddedImage;
  let manifest: Buffer;
  try {
    embedded = await core.embedded.get();
    manifest = (await core.embedded.blob()).manifest;
  } catch {
    // Told to whoever asks for that image; everything else works without it.
    return;
  }
  const holder = `embedded:${embedded.id}`;
  if (core.database.image(embedded.id) === undefined) {
    const workspace = await core.content.workspace();
    try {
      const fresh = await embeddedLayer(core, workspace);
      await moveIn(core, [fresh]);
      core.database.transaction(() => {
        putLayers(core, [fresh]);
        core.database.putImage(
          {
            id: embedded.id,
            config: embedded.configBytes,
            manifest,
            manifestType: MEDIA_TYPES.ociManifest,
          },
          [embedded.diffId],
          [embedded.diffId],
        );
        core.database.hold(holder, `image:${embedded.id}`);
      });
    } finally {
      await rm(workspace, { recursive: true, force: true });
    }
  }
  core.database.transaction(() => {
    core.database.dropEmbedded();
    core.database.hold(holder, `image:${embedded.id}`);
  });
  core.catalogue.forget();
}

/** The embedded image's layer, copied: an image that goes on from it keeps it when the boot assets change. */
export async function embeddedLayer(core: StoreCore, workspace: string): Promise<FreshLayer> {
  const { diffId, squashfs } = await core.embedded.get();
  const tar = await core.embedded.blob();
  const blobPath = join(workspace, 'embedded.blob');
  const squashfsPath = join(workspace, 'embedded.squashfs');
  await linkOrCopy(tar.path, blobPath);
  await linkOrCopy(squashfs.path, squashfsPath);
  const layer: IngestedLayer = {
    digest: diffId,
    blobBytes: tar.bytes,
    compression: 'none',
    diffId,
    tarBytes: tar.bytes,
    squashfsBytes: squashfs.bytes,
  };
  return { layer, blobPath, squashfsPath };
}

/** Set-up never changes a file that it has made, so sharing it is as good as copying it. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch {
    // Another file system, most likely.
    await copyFile(from, to);
    await syncFile(to);
  }
}
