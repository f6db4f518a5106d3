/** Every error this package throws carries one of these codes; they are part of the API. */
export type ImageErrorCode =
  | 'ERR_ARCBOX_REFERENCE_INVALID'
  | 'ERR_ARCBOX_IMAGE_NOT_FOUND'
  | 'ERR_ARCBOX_IMAGE_CORRUPT';

export class ImageError extends Error {
  override readonly name = 'ImageError';
  readonly code: ImageErrorCode;

  constructor(code: ImageErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
