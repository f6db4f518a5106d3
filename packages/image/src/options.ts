/** What the store is told and what it answers with. */
import type { DatabaseSync } from 'node:sqlite';
import type { Image, Removal } from './image.ts';
import type { LayerLimits } from './limits.ts';
import type { Platform } from './manifest.ts';
import type { OnProgress } from './progress.ts';
import type { Credentials } from './registry/credentials.ts';
import type { RegistryConfig } from './registry/endpoints.ts';

export interface ImageStoreOptions {
  /** Has `IMAGE_TABLES`; its owner closes it after us. */
  readonly database: DatabaseSync;
  /** Ours alone: blobs, layers, and what is being made. */
  readonly directory: string;
  /** What set-up built, the embedded image among it. */
  readonly bootDirectory: string;
  /** Whether a container that uses an image runs; without it none does. */
  isRunning?(containerId: string): boolean;
  readonly registries?: RegistryConfig;
  /** Instead of those in `limits.ts`. */
  readonly limits?: LayerLimits;
  /** Called when something has happened to an image; `id` is its ID, or its name for `pull` and `push`, as Docker's. */
  onEvent?(action: ImageAction, id: string, name: string): void;
  /** Called before the files of layers go, with the layers' digests: whoever has one open lets go of it. */
  beforeRemoval?(digests: readonly string[]): Promise<void>;
}

export type ImageAction = 'delete' | 'import' | 'load' | 'prune' | 'pull' | 'push' | 'save' | 'tag' | 'untag';

export interface TransferOptions {
  readonly onProgress?: OnProgress | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface CreateImageOptions extends TransferOptions {
  /** Name or ID of the image to go on from; absent: from nothing. */
  readonly base?: string;
  /** The new layer as a tar, plain or packed with gzip or zstd; absent: only the configuration changes. */
  readonly layer?: AsyncIterable<Uint8Array> | undefined;
  /** Fields of the configuration's `config` object (`Cmd`, `Env`, `Labels`, …) that replace the base's. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Dockerfile instructions (`CMD ["sh"]`, `ENV A=b`, …) on top of those. */
  readonly changes?: readonly string[];
  readonly platform?: Platform | undefined;
  readonly author?: string;
  readonly comment?: string;
  /** The line of the history. */
  readonly createdBy?: string;
  /** What it is to be called. */
  readonly names?: readonly string[];
}

export interface PullOptions extends TransferOptions {
  /** Absent: this host's. */
  readonly platform?: Platform | undefined;
  /** Absent: what Docker's configuration of the daemon's user has. */
  readonly credentials?: Credentials | undefined;
}

export interface PullOutcome {
  readonly image: Image;
  /** Of what the name stands for at the registry. */
  readonly digest: string;
  /** False: it was here already, under that name. */
  readonly changed: boolean;
}

export interface PruneOptions {
  /** Every image that no container uses, not only those without a name. */
  readonly all?: boolean;
  /** Only those that were created before this time, in ms since 1970. */
  readonly createdBeforeMs?: number;
}

export interface PruneOutcome {
  readonly removed: readonly Removal[];
  /** Bytes of files that went. */
  readonly reclaimedBytes: number;
}
