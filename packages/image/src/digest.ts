/** Digests as OCI writes them: `sha256:<64 hex digits>`. */
import { createHash } from 'node:crypto';
import { ImageError } from './errors.ts';

const DIGEST = /^sha256:[0-9a-f]{64}$/;

export function sha256(bytes: Buffer | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export function isDigest(text: unknown): text is string {
  return typeof text === 'string' && DIGEST.test(text);
}

/** The hex digits; they name files. Throws `ERR_ARCBOX_IMAGE_CORRUPT`, so that nothing else ever becomes a path. */
export function hexOf(digest: string): string {
  if (!DIGEST.test(digest)) {
    throw new ImageError(
      'ERR_ARCBOX_IMAGE_CORRUPT',
      `${JSON.stringify(digest)} is not a sha256 digest; other algorithms are not supported`,
    );
  }
  return digest.slice('sha256:'.length);
}

/** As Docker shows layers: twelve digits. */
export function shortDigest(digest: string): string {
  return digest.replace(/^sha256:/, '').slice(0, 12);
}
