/** Pull and push: images from and to registries; and whether one knows us. */
import { faultPoint } from '@arcbox/sys/fault-point';
import { sha256 } from '../digest.ts';
import type { Image } from '../image.ts';
import { LAYER_LIMITS } from '../limits.ts';
import { ociLayerType } from '../manifest.ts';
import type { PullOptions, PullOutcome } from '../options.ts';
import {
  canonicalName,
  familiarName,
  familiarRepository,
  parseReference,
  type Reference,
} from '../reference.ts';
import type { Credentials } from '../registry/credentials.ts';
import { NO_REGISTRY_CONFIG } from '../registry/endpoints.ts';
import type { PushLayer, PushOutcome } from '../registry/push.ts';
import type { StoreCore } from '../store/core.ts';
import { commit, takeKnown } from '../store/intake.ts';
import { descriptorsOf, heldImage, savedForm } from '../store/stored-form.ts';
import { runJob } from '../worker/run-job.ts';
import { progressOf } from './transfer.ts';

export async function pull(core: StoreCore, text: string, options: PullOptions): Promise<PullOutcome> {
  const reference = parseReference(text);
  return core.work(async (workspace, lease, signal) => {
    const pulled = await runJob<'pull'>(
      {
        kind: 'pull',
        workspace,
        limits: core.options.limits ?? LAYER_LIMITS,
        reference,
        platform: options.platform,
        credentials: options.credentials,
        registries: core.options.registries ?? NO_REGISTRY_CONFIG,
      },
      { signal, which: (digests) => takeKnown(core, digests, lease), ...progressOf(options) },
    );
    const id = sha256(Buffer.from(pulled.image.config));
    const name = canonicalName(reference);
    const before = core.database.imageByName(name);
    faultPoint('image.pull.commit');
    await commit(core, pulled.fresh, [pulled.image], lease);
    core.tell('pull', familiarName(reference), familiarRepository(reference));
    return { image: await core.catalogue.get(id), digest: pulled.digest, changed: before !== id };
  }, options.signal);
}

export async function checkLogin(core: StoreCore, domain: string, credentials: Credentials): Promise<void> {
  const registries = core.options.registries ?? NO_REGISTRY_CONFIG;
  await core.work(async (_workspace, _lease, signal) => {
    await runJob<'login'>({ kind: 'login', domain, credentials, registries }, { signal });
  }, undefined);
}

export async function push(
  core: StoreCore,
  text: string,
  options: Omit<PullOptions, 'platform'>,
): Promise<{ digest: string }> {
  const reference = parseReference(text);
  return core.work(async (workspace, lease, signal) => {
    const image = await heldImage(core, text, lease);
    const { config, manifest, manifestType, layers } = await savedForm(core, image);
    const descriptors = await descriptorsOf(core, image);
    const outcome = await runJob<'push'>(
      {
        kind: 'push',
        workspace,
        reference,
        config,
        manifest,
        manifestType,
        layers: layers.map(({ digest, bytes, path }, index): PushLayer => {
          const diffId = image.config.diffIds[index] ?? '';
          const compression = core.database.blob(digest)?.compression ?? 'none';
          const descriptor = descriptors[index] ?? {
            mediaType: ociLayerType(compression),
            digest,
            size: bytes,
          };
          const layer = { digest, blobBytes: bytes, compression, diffId, tarBytes: 0, squashfsBytes: 0 };
          return { descriptor, layer, path };
        }),
        elsewhere: repositoriesAt(reference.domain, image).filter((path) => path !== reference.path),
        credentials: options.credentials,
        registries: core.options.registries ?? NO_REGISTRY_CONFIG,
      },
      { signal, ...progressOf(options) },
    );
    await pushed(core, image, reference, outcome);
    core.tell('push', familiarName(reference), familiarRepository(reference));
    return { digest: outcome.digest };
  }, options.signal);
}

/** Where the image came from or went to at that registry. */
function repositoriesAt(domain: string, image: Image): string[] {
  const references = image.digests.map(parseReference).filter((reference) => reference.domain === domain);
  return [...new Set(references.map(({ path }) => path))];
}

/** The registry has the image now; layers that were packed for it take the place of the plain ones. */
async function pushed(
  core: StoreCore,
  image: Image,
  reference: Reference,
  outcome: PushOutcome,
): Promise<void> {
  await core.change(async () => {
    faultPoint('image.push.commit');
    for (const { layer, path } of outcome.packed) {
      if (core.database.blob(layer.digest) === undefined) await core.content.addBlob(path, layer.digest);
    }
    if (outcome.packed.length > 0) await core.content.syncNames();
    core.database.transaction(() => {
      const row = core.database.image(image.id);
      if (row === undefined) return;
      for (const { layer } of outcome.packed) core.database.putBlob({ ...layer, bytes: layer.blobBytes });
      const { manifestType } = outcome;
      const manifest = Buffer.from(outcome.manifest);
      core.database.putImage({ ...row, manifest, manifestType }, image.config.diffIds, outcome.digests);
      core.database.setDigest(`${reference.domain}/${reference.path}@${outcome.digest}`, image.id);
    });
    core.catalogue.forget();
  });
}
