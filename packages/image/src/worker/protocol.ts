/** What the main thread and an image worker say to each other. A worker does one job. */
import type { LoadedArchive } from '../archive/load-archive.ts';
import type { ImageErrorCode } from '../errors.ts';
import type { IngestedLayer } from '../layer/ingest.ts';
import type { LayerLimits } from '../limits.ts';
import type { ProgressEvent } from '../progress.ts';
import type { LoginJob } from '../registry/login.ts';
import type { PulledImage, PullJob } from '../registry/pull.ts';
import type { PushJob, PushOutcome } from '../registry/push.ts';

/** What a layer job leaves in its workspace. */
export const LAYER_FILES = { blob: 'blob', squashfs: 'squashfs' } as const;

/** The layer's tar comes as the job's input. */
export interface LayerJob {
  readonly kind: 'layer';
  /** Directory for the files. */
  readonly workspace: string;
  readonly limits: LayerLimits;
}

/** A docker-archive or oci-layout comes as the job's input. */
export interface LoadJob {
  readonly kind: 'load';
  readonly workspace: string;
  readonly limits: LayerLimits;
}

export interface Jobs {
  layer: [LayerJob, IngestedLayer];
  load: [LoadJob, LoadedArchive];
  pull: [PullJob, PulledImage];
  push: [PushJob, PushOutcome];
  login: [LoginJob, undefined];
}

export type Job = Jobs[keyof Jobs][0];

/** What is known of a blob that is in the store already. */
export interface KnownBlob {
  readonly digest: string;
  readonly diffId: string;
  readonly bytes: number;
  readonly compression: IngestedLayer['compression'];
}

export type ToWorker =
  | { readonly type: 'chunk'; readonly chunk: Uint8Array }
  | { readonly type: 'end' }
  | { readonly type: 'input-failed'; readonly message: string }
  | { readonly type: 'abort' }
  | { readonly type: 'known'; readonly blobs: readonly KnownBlob[] };

export type FromWorker =
  | { readonly type: 'progress'; readonly event: ProgressEvent }
  /** So many bytes of input have been taken. */
  | { readonly type: 'taken'; readonly bytes: number }
  /** Which of these blobs are in the store? Those that are will be held until the job is over. */
  | { readonly type: 'which'; readonly digests: readonly string[] }
  | { readonly type: 'done'; readonly result: Jobs[keyof Jobs][1] }
  | { readonly type: 'failed'; readonly code: ImageErrorCode | undefined; readonly message: string };
