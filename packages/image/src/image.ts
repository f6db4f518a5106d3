/** What the rest of the system sees of an image. */
import type { ImageConfig } from './image-config.ts';

export interface Layer {
  /** Digest of the uncompressed layer, `sha256:…`: names the layer for good. */
  readonly digest: string;
  /** A squashfs image on the host. */
  readonly path: string;
  /** Size of that file in bytes. */
  readonly sizeBytes: number;
}

export interface Image {
  /** `sha256:…` of the configuration. */
  readonly id: string;
  /** Every name it has, in full: `docker.io/library/busybox:latest`. */
  readonly names: readonly string[];
  /** What registries call it, in full: `docker.io/library/busybox@sha256:…`. */
  readonly digests: readonly string[];
  readonly config: ImageConfig;
  /** The configuration as it is, JSON. */
  readonly configBytes: Buffer;
  /** Lowest first. */
  readonly layers: readonly Layer[];
  /** Of all layers on this host. */
  readonly sizeBytes: number;
  /** It came with the boot assets and cannot be removed. */
  readonly embedded: boolean;
}

/** One line of `history`, newest first. */
export interface HistoryEntry {
  /** The image's ID for the newest, empty for the others, as Docker shows `<missing>`. */
  readonly id: string;
  /** RFC 3339. */
  readonly created: string;
  readonly createdBy: string;
  readonly comment: string;
  readonly sizeBytes: number;
  readonly names: readonly string[];
}

/** One thing that `rmi` or `prune` did. */
export type Removal = { readonly untagged: string } | { readonly deleted: string };
