/** Names and removal: `tag`, `rmi` and `image prune`. */
import { faultPoint } from '@arcbox/sys/fault-point';
import type { Removal } from '../image.ts';
import type { PruneOptions, PruneOutcome } from '../options.ts';
import { removeImage } from '../remove.ts';
import type { StoreCore } from '../store/core.ts';
import { targetName } from '../store/names.ts';

export async function tag(core: StoreCore, source: string, target: string): Promise<void> {
  const name = targetName(target);
  const image = await core.catalogue.resolve(source);
  await core.change(() => {
    core.catalogue.assertPresent(image);
    faultPoint('image.tag');
    core.database.transaction(() => core.database.setName(name, image.id));
  });
  core.catalogue.forget();
  core.tell('tag', image.id, target);
}

export async function remove(
  core: StoreCore,
  text: string,
  options: { force?: boolean },
): Promise<Removal[]> {
  const embedded = await core.catalogue.embedded();
  const id = await core.catalogue.find(text);
  const { isRunning } = core.options;
  return core.change(async () => {
    const removals = core.database.transaction(() =>
      removeImage({
        database: core.database,
        embedded,
        imageId: id,
        text,
        force: options.force ?? false,
        isRunning: (container) => isRunning?.(container) ?? false,
      }),
    );
    core.catalogue.forget();
    await core.collect();
    tellRemovals(core, id, removals);
    return removals;
  });
}

export async function prune(core: StoreCore, options: PruneOptions): Promise<PruneOutcome> {
  const embedded = await core.catalogue.embedded();
  const names = core.catalogue.namesByImage(embedded);
  const removed: Removal[] = [];
  let reclaimedBytes = 0;
  for (const id of core.database.imageIds()) {
    if (id === embedded?.id) continue;
    if (options.all !== true && names.has(id)) continue;
    if (core.database.containersOf(id).length > 0) continue;
    const created = Date.parse(core.catalogue.fromRow(id, [], undefined).config.created);
    if (options.createdBeforeMs !== undefined && created >= options.createdBeforeMs) continue;
    await core.change(async () => {
      // Things may have changed while others were removed.
      if (core.database.image(id) === undefined || core.database.containersOf(id).length > 0) return;
      if (options.all !== true && core.catalogue.namesByImage(embedded).has(id)) return;
      const removals = core.database.transaction(() =>
        removeImage({
          database: core.database,
          embedded,
          imageId: id,
          text: id,
          force: true,
          isRunning: () => false,
        }),
      );
      removed.push(...removals);
      tellRemovals(core, id, removals);
      core.catalogue.forget();
      reclaimedBytes += await core.collect();
    });
  }
  core.tell('prune', '', '');
  return { removed, reclaimedBytes };
}

function tellRemovals(core: StoreCore, id: string, removals: readonly Removal[]): void {
  for (const removal of removals) {
    if ('deleted' in removal) core.tell('delete', removal.deleted, removal.deleted);
    else core.tell('untag', id, removal.untagged);
  }
}
