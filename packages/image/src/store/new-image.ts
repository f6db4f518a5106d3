/** What a worker has made, for the store to take over. */
import type { IngestedLayer } from '../layer/ingest.ts';

/** A layer that is not in the store yet; the store moves the files. */
export interface FreshLayer {
  readonly layer: IngestedLayer;
  readonly blobPath: string;
  readonly squashfsPath: string;
}

export interface NewImage {
  readonly config: Uint8Array;
  readonly manifest: Uint8Array;
  readonly manifestType: string;
  /** Lowest first. */
  readonly layers: readonly { readonly diffId: string; readonly digest: string }[];
  /** In full: docker.io/library/busybox:latest. */
  readonly names: readonly string[];
  /** What a registry calls it, in full: docker.io/library/busybox@sha256:…. */
  readonly digests?: readonly string[];
}
