/**
 * The rules of `rmi`, which are Docker's: naming an image by a name takes that name away, and the image goes with its
 * last one; naming it by its ID removes it when that cannot be a mistake. Runs inside a transaction; what it leaves without a
 * holder is collected afterwards.
 */
import { shortDigest } from './digest.ts';
import type { EmbeddedImage } from './embedded.ts';
import { ImageError } from './errors.ts';
import type { Removal } from './image.ts';
import { canonicalName, familiarName, familiarRepository, parseReference } from './reference.ts';
import type { ImageDatabase } from './store/database.ts';

export interface RemoveInput {
  readonly database: ImageDatabase;
  readonly embedded: EmbeddedImage | undefined;
  readonly imageId: string;
  /** As the user named it. */
  readonly text: string;
  readonly force: boolean;
  isRunning(containerId: string): boolean;
}

export function removeImage(input: RemoveInput): Removal[] {
  const { database, imageId, force } = input;
  const embedded = imageId === input.embedded?.id;
  const mine = (rows: { name: string; imageId: string }[]): string[] =>
    rows.filter((row) => row.imageId === imageId).map(({ name }) => name);
  const names = mine(database.names());
  const digests = mine(database.digests());
  const removals: Removal[] = [];
  const untag = (name: string): void => {
    database.removeName(name);
    removals.push({ untagged: familiarName(parseReference(name)) });
  };
  const undigest = (name: string): void => {
    database.removeDigest(name);
    removals.push({ untagged: familiarName(parseReference(name)) });
  };

  const given = referenceIn(input.text, [...names, ...digests]);
  if (given !== undefined) {
    if (names.length <= 1 && !force)
      refuseUsed(input, `unable to remove repository reference "${input.text}" (must force)`);
    if (digests.includes(given)) {
      // As Docker: a digest alone is no reason to keep the image, but a name is.
      undigest(given);
      if (names.length > 0) return removals;
    } else {
      untag(given);
    }
    const left = names.filter((name) => name !== given);
    const repository = repositoryOf(given);
    const elsewhere = left.some((name) => repositoryOf(name) === repository);
    if (!elsewhere)
      for (const name of digests) if (repositoryOf(name) === repository && name !== given) undigest(name);
    if (left.length > 0) return removals;
    if (database.containersOf(imageId).some((id) => input.isRunning(id))) {
      database.keep(imageId);
      return removals;
    }
  } else {
    if (embedded) throw embeddedImage();
    const repositories = new Set(names.map(repositoryOf));
    if (!force && repositories.size > 1) {
      throw inUse(imageId, '(must be forced) - image is referenced in multiple repositories');
    }
    refuseById(input);
    for (const name of names) untag(name);
    for (const name of digests) undigest(name);
  }
  if (embedded) return removals;
  for (const name of mine(database.digests())) undigest(name);
  database.drop(`kept:${imageId}`);
  removals.push({ deleted: imageId });
  return removals;
}

/** Which of the image's names the text is; undefined: it is an ID. */
function referenceIn(text: string, names: readonly string[]): string | undefined {
  let name: string;
  try {
    name = canonicalName(parseReference(text));
  } catch (error) {
    if (error instanceof ImageError) return undefined;
    throw error;
  }
  if (names.includes(name)) return name;
  // It was found by that name and has none like it in the tables: the embedded image, under its own.
  if (!/^(?:sha256:)?[0-9a-f]+$/.test(text)) throw embeddedImage();
  return undefined;
}

function refuseUsed({ database, imageId }: RemoveInput, what: string): void {
  const [container] = database.containersOf(imageId);
  if (container === undefined) return;
  throw new ImageError(
    'ERR_ARCBOX_IMAGE_IN_USE',
    `conflict: ${what} - container ${container.slice(0, 12)} is using its referenced image ${shortDigest(imageId)}`,
  );
}

function refuseById({ database, imageId, force, isRunning }: RemoveInput): void {
  const containers = database.containersOf(imageId);
  const running = containers.find(isRunning);
  if (running !== undefined) {
    throw inUse(
      imageId,
      `(cannot be forced) - image is being used by running container ${running.slice(0, 12)}`,
    );
  }
  const [stopped] = containers;
  if (stopped !== undefined && !force) {
    throw inUse(
      imageId,
      `(must be forced) - image is being used by stopped container ${stopped.slice(0, 12)}`,
    );
  }
}

function inUse(imageId: string, why: string): ImageError {
  return new ImageError(
    'ERR_ARCBOX_IMAGE_IN_USE',
    `conflict: unable to delete ${shortDigest(imageId)} ${why}`,
  );
}

function embeddedImage(): ImageError {
  return new ImageError(
    'ERR_ARCBOX_IMAGE_EMBEDDED',
    'this image came with ArcBox and cannot be removed; pull or load another one under its name to replace it',
  );
}

function repositoryOf(name: string): string {
  return familiarRepository(parseReference(name));
}
