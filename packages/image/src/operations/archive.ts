/** Load and save: images from and to archives. */
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { faultPoint } from '@arcbox/sys/fault-point';
import { type SavedImage, saveArchive } from '../archive/save.ts';
import { sha256 } from '../digest.ts';
import { ImageError } from '../errors.ts';
import type { Image } from '../image.ts';
import { LAYER_LIMITS } from '../limits.ts';
import type { TransferOptions } from '../options.ts';
import type { StoreCore } from '../store/core.ts';
import { commit, takeKnown } from '../store/intake.ts';
import { nameOf } from '../store/names.ts';
import { hold, savedForm } from '../store/stored-form.ts';
import { runJob } from '../worker/run-job.ts';
import { progressOf } from './transfer.ts';

export async function load(
  core: StoreCore,
  input: AsyncIterable<Uint8Array>,
  options: TransferOptions,
): Promise<Image[]> {
  return core.work(async (workspace, lease, signal) => {
    const loaded = await runJob<'load'>(
      { kind: 'load', workspace, limits: core.options.limits ?? LAYER_LIMITS },
      { input, signal, which: (digests) => takeKnown(core, digests, lease), ...progressOf(options) },
    );
    faultPoint('image.load.commit');
    await commit(core, loaded.fresh, loaded.images, lease);
    const ids = [...new Set(loaded.images.map(({ config }) => sha256(Buffer.from(config))))];
    for (const id of ids) core.tell('load', id, id);
    return Promise.all(ids.map((id) => core.catalogue.get(id)));
  }, options.signal);
}

export async function save(core: StoreCore, texts: readonly string[]): Promise<Readable> {
  const saved = new Map<string, SavedImage>();
  const lease = `lease:${randomUUID()}`;
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  await core
    .change(async () => {
      for (const text of texts) {
        const id = await core.catalogue.find(text);
        const image = await core.catalogue.get(id);
        const names = image.names.filter((name) => name === nameOf(text));
        const before = saved.get(id);
        if (before === undefined) {
          if (!image.embedded) hold(core, image, lease);
          saved.set(id, { ...(await savedForm(core, image)), names });
        } else {
          saved.set(id, { ...before, names: [...new Set([...before.names, ...names])] });
        }
      }
    })
    .catch((error: unknown) => {
      core.database.drop(lease);
      throw error;
    });
  for (const id of saved.keys()) core.tell('save', id, id);
  const stream = Readable.from(saveArchive([...saved.values()]), { objectMode: false });
  stream.once('close', end);
  const abort = (): void =>
    void stream.destroy(new ImageError('ERR_ARCBOX_CANCELLED', 'the daemon is shutting down'));
  core.closing.addEventListener('abort', abort, { once: true });
  core.track(
    ended.then(async () => {
      core.closing.removeEventListener('abort', abort);
      core.database.drop(lease);
      // In line with other changes: a file that is being removed may be one that a pull is just bringing back.
      await core.change(() => core.collect());
    }),
  );
  return stream;
}
