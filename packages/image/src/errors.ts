/** Every error this package throws carries one of these codes; they are part of the API. */
export type ImageErrorCode =
  | 'ERR_ARCBOX_REFERENCE_INVALID'
  | 'ERR_ARCBOX_IMAGE_NOT_FOUND'
  | 'ERR_ARCBOX_IMAGE_CORRUPT'
  | 'ERR_ARCBOX_IMAGE_IN_USE'
  | 'ERR_ARCBOX_IMAGE_AMBIGUOUS'
  | 'ERR_ARCBOX_IMAGE_EMBEDDED'
  | 'ERR_ARCBOX_IMAGE_PLATFORM'
  | 'ERR_ARCBOX_IMAGE_CHANGE'
  | 'ERR_ARCBOX_IMAGE_LIMIT'
  | 'ERR_ARCBOX_ARCHIVE_INVALID'
  | 'ERR_ARCBOX_LAYER_INVALID'
  | 'ERR_ARCBOX_LAYER_CONVERSION'
  | 'ERR_ARCBOX_DIGEST_MISMATCH'
  | 'ERR_ARCBOX_REGISTRY'
  | 'ERR_ARCBOX_REGISTRY_DENIED'
  | 'ERR_ARCBOX_REGISTRY_UNREACHABLE'
  | 'ERR_ARCBOX_CREDENTIALS'
  | 'ERR_ARCBOX_CANCELLED'
  | 'ERR_ARCBOX_IMAGE_WORKER';

export class ImageError extends Error {
  override readonly name = 'ImageError';
  readonly code: ImageErrorCode;

  constructor(code: ImageErrorCode, message: string, options?: ErrorOptions) {
    super(plainText(message), options);
    this.code = code;
  }
}

/** For messages: what an unknown thrown value says. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Messages name what strangers wrote; nothing of it may speak to a terminal or turn a line around. */
function plainText(message: string): string {
  return message.replace(/[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu, ' ');
}
