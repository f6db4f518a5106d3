/** What jobs of a worker are given of a caller's options. */
import type { TransferOptions } from '../options.ts';
import type { OnProgress } from '../progress.ts';

export function progressOf({ onProgress }: TransferOptions): { onProgress?: OnProgress } {
  return onProgress === undefined ? {} : { onProgress };
}
