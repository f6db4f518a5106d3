/** Images that are made here: from a tar (`import`), from a container (`commit`), or with another configuration. */
import { join } from 'node:path';
import { faultPoint } from '@arcbox/sys/fault-point';
import { newConfig } from '../archive/new-config.ts';
import { sha256 } from '../digest.ts';
import type { Image } from '../image.ts';
import { parseImageConfig } from '../image-config.ts';
import type { IngestedLayer } from '../layer/ingest.ts';
import { LAYER_LIMITS } from '../limits.ts';
import { type Descriptor, MEDIA_TYPES, makeManifest, ociLayerType } from '../manifest.ts';
import type { CreateImageOptions } from '../options.ts';
import { embeddedLayer } from '../store/adopt-embedded.ts';
import type { StoreCore } from '../store/core.ts';
import { commit } from '../store/intake.ts';
import { targetName } from '../store/names.ts';
import type { FreshLayer, NewImage } from '../store/new-image.ts';
import { descriptorsOf, heldImage } from '../store/stored-form.ts';
import { LAYER_FILES } from '../worker/protocol.ts';
import { runJob } from '../worker/run-job.ts';
import { progressOf } from './transfer.ts';

export async function createFromLayer(core: StoreCore, options: CreateImageOptions): Promise<Image> {
  const names = (options.names ?? []).map(targetName);
  return core.work(async (workspace, lease, signal) => {
    const base = options.base === undefined ? undefined : await heldImage(core, options.base, lease);
    const fresh: FreshLayer[] =
      base !== undefined && core.database.image(base.id) === undefined
        ? [await embeddedLayer(core, workspace)]
        : [];
    let own: IngestedLayer | undefined;
    if (options.layer !== undefined) {
      own = await runJob<'layer'>(
        { kind: 'layer', workspace, limits: core.options.limits ?? LAYER_LIMITS },
        { input: options.layer, signal, ...progressOf(options) },
      );
      fresh.push({
        layer: own,
        blobPath: join(workspace, LAYER_FILES.blob),
        squashfsPath: join(workspace, LAYER_FILES.squashfs),
      });
    }
    const config = newConfig({
      base: base?.configBytes,
      diffId: own?.diffId,
      config: options.config ?? {},
      changes: options.changes ?? [],
      platform: options.platform,
      author: options.author ?? '',
      comment: options.comment ?? '',
      createdBy: options.createdBy ?? '',
      created: new Date().toISOString(),
    });
    // Checked before anything is written: too many layers, for one.
    parseImageConfig(config.toString('utf8'), 'of the new image');
    const descriptors: Descriptor[] = base === undefined ? [] : [...(await descriptorsOf(core, base))];
    if (own !== undefined) {
      descriptors.push({
        mediaType: ociLayerType(own.compression),
        digest: own.digest,
        size: own.blobBytes,
      });
    }
    const diffIds = [
      ...(base?.layers ?? []).map(({ digest }) => digest),
      ...(own === undefined ? [] : [own.diffId]),
    ];
    const image: NewImage = {
      config,
      manifest: makeManifest(
        { mediaType: MEDIA_TYPES.ociConfig, digest: sha256(config), size: config.length },
        descriptors,
      ),
      manifestType: MEDIA_TYPES.ociManifest,
      layers: diffIds.map((diffId, index) => ({ diffId, digest: descriptors[index]?.digest ?? '' })),
      names,
    };
    faultPoint('image.create.commit');
    await commit(core, fresh, [image], lease);
    if (base === undefined) core.tell('import', sha256(config), options.names?.[0] ?? '');
    for (const name of options.names ?? []) core.tell('tag', sha256(config), name);
    return core.catalogue.get(sha256(config));
  }, options.signal);
}
