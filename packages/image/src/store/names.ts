/** The names that users write, for the store. */
import { shortDigest } from '../digest.ts';
import { ImageError } from '../errors.ts';
import { canonicalName, parseReference } from '../reference.ts';

/** The full name that the text is; undefined when it can only be an ID. */
export function nameOf(text: string): string | undefined {
  try {
    return canonicalName(parseReference(text));
  } catch (error) {
    if (/^(?:sha256:)?[0-9a-f]{1,64}$/.test(text)) return undefined;
    throw error;
  }
}

/** A name that an image may get. Throws `ERR_ARCBOX_REFERENCE_INVALID`. */
export function targetName(text: string): string {
  const reference = parseReference(text);
  if (reference.digest !== undefined) {
    throw new ImageError(
      'ERR_ARCBOX_REFERENCE_INVALID',
      `${text} has a digest; a new name can only have a tag`,
    );
  }
  return canonicalName(reference);
}

export function notFound(text: string): ImageError {
  const shown = text.startsWith('sha256:') ? `sha256:${shortDigest(text)}` : text;
  return new ImageError(
    'ERR_ARCBOX_IMAGE_NOT_FOUND',
    `no such image: ${shown} (arcbox pull gets one, arcbox images lists those that are here)`,
  );
}
