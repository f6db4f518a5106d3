/**
 * Keys that leave a container's terminal without ending what runs there: `ctrl-p,ctrl-q` unless the user says otherwise.
 * The keys are single characters or `ctrl-` with a letter or one of `@ [ \ ] ^ _`, separated by commas.
 */
import { ApiError } from '../errors.ts';

export const DEFAULT_DETACH_KEYS = 'ctrl-p,ctrl-q';
const CONTROL_MASK = 0x1f;

/** The bytes that the keys send. Throws `ERR_ARCBOX_DETACH_KEYS`. */
export function parseDetachKeys(text: string): Buffer {
  const bytes = text.split(',').map((key) => {
    if (/^[\x20-\x7e]$/.test(key)) return key.charCodeAt(0);
    const control = /^ctrl-([a-zA-Z@[\\\]^_])$/.exec(key)?.[1];
    if (control === undefined) {
      throw new ApiError(
        'ERR_ARCBOX_DETACH_KEYS',
        `${JSON.stringify(text)} are no detach keys; they look like ${DEFAULT_DETACH_KEYS}`,
      );
    }
    return control.toUpperCase().charCodeAt(0) & CONTROL_MASK;
  });
  return Buffer.from(bytes);
}

export class DetachKeys {
  readonly #keys: Buffer;
  /** How many of the keys were just typed. */
  #matched = 0;

  constructor(keys: Buffer) {
    this.#keys = keys;
  }

  /** What of the input is to be passed on, and whether the keys were typed: then nothing after them is. */
  take(input: Buffer): { readonly data: Buffer; readonly detach: boolean } {
    const passed: number[] = [];
    for (const byte of input) {
      while (this.#matched > 0 && byte !== this.#keys[this.#matched]) this.#fallBack(passed);
      if (byte === this.#keys[this.#matched]) {
        this.#matched += 1;
        if (this.#matched === this.#keys.length) {
          this.#matched = 0;
          return { data: Buffer.from(passed), detach: true };
        }
      } else {
        passed.push(byte);
      }
    }
    return { data: Buffer.from(passed), detach: false };
  }

  /** The first of the keys held back is not the beginning of them; what follows it may be. */
  #fallBack(passed: number[]): void {
    let drop = 1;
    while (
      drop < this.#matched &&
      !this.#keys.subarray(drop, this.#matched).equals(this.#keys.subarray(0, this.#matched - drop))
    ) {
      drop += 1;
    }
    passed.push(...this.#keys.subarray(0, drop));
    this.#matched -= drop;
  }
}
