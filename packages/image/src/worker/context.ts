/** What a job in a worker has: its input, its voice, and the word that it is to stop. */
import type { ProgressEvent } from '../progress.ts';
import type { KnownBlob } from './protocol.ts';

export interface JobContext {
  readonly signal: AbortSignal;
  readonly input: AsyncIterable<Buffer>;
  progress(event: ProgressEvent): void;
  /** Which of these blobs the store has. */
  which(digests: readonly string[]): Promise<readonly KnownBlob[]>;
}
