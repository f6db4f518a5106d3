/** What is told while images come and go: one line for each layer, in Docker's words. */

export interface ProgressEvent {
  /** Twelve digits of the layer; empty: about the whole. */
  readonly id: string;
  /** `Downloading`, `Pull complete`, … */
  readonly status: string;
  /** Bytes done; absent: nothing to count. */
  readonly current?: number;
  /** Bytes in all; absent: not known. */
  readonly total?: number;
}

export type OnProgress = (event: ProgressEvent) => void;
