/** Longest repository name, with its domain (the OCI distribution specification says 255). */
export const REPOSITORY_LENGTH_MAX = 255;
/** Longest tag. */
export const TAG_LENGTH_MAX = 128;
/** Largest image configuration that is read, in bytes. */
export const IMAGE_CONFIG_BYTES_MAX = 8 * 1024 * 1024;
/** Largest manifest or index that is read, in bytes (the OCI distribution specification asks for at least 4 MiB). */
export const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;
/** Layers of one image; overlayfs is mounted with all of them as its lower directories. */
export const LAYERS_MAX = 127;

/** Entries of one layer's tar. */
export const TAR_ENTRIES_MAX = 1_000_000;
/** Longest path in a layer, in bytes; Linux's PATH_MAX without the zero byte. */
export const TAR_PATH_BYTES_MAX = 4095;
/** Longest component of a path; NAME_MAX. */
export const TAR_NAME_BYTES_MAX = 255;
/** Extended header (pax, GNU long name) of one entry. */
export const TAR_EXTENSION_BYTES_MAX = 1024 * 1024;
/** Value of one extended attribute; XATTR_SIZE_MAX. */
export const XATTR_BYTES_MAX = 64 * 1024;
/** Pieces of a sparse file. */
export const SPARSE_PIECES_MAX = 100_000;
/** Symbolic links followed for one path, as Linux does. */
export const SYMLINKS_FOLLOWED_MAX = 40;

/** Uncompressed size of one layer: what a decompression bomb can make us look at. */
export const LAYER_BYTES_MAX = 32 * 1024 ** 3;
/** Stored size of one blob. */
export const BLOB_BYTES_MAX = 32 * 1024 ** 3;
/** Files in a docker-archive or oci-layout. */
export const ARCHIVE_ENTRIES_MAX = 10_000;
/** Those of them together that are no layers: they are kept in memory until the last one has come. */
export const ARCHIVE_DOCUMENT_BYTES_MAX = 64 * 1024 * 1024;
/** Names in a layer, directories that no entry is for among them. */
export const LAYER_NAMES_MAX = 1_500_000;
/** Paths, link targets and extended attributes of one layer, which are in memory until its end. */
export const LAYER_METADATA_BYTES_MAX = 256 * 1024 * 1024;
/** What has to stay free on the file system of the content store, in bytes. */
export const DISK_RESERVE_BYTES = 512 * 1024 ** 2;
/** How often that is looked at, in bytes written. */
export const DISK_CHECK_BYTES = 64 * 1024 ** 2;

/** Those that bound what one layer may make of this host's disk; a store may be given others. */
export interface LayerLimits {
  readonly layerBytesMax: number;
  readonly diskReserveBytes: number;
  readonly diskCheckBytes: number;
}
export const LAYER_LIMITS: LayerLimits = {
  layerBytesMax: LAYER_BYTES_MAX,
  diskReserveBytes: DISK_RESERVE_BYTES,
  diskCheckBytes: DISK_CHECK_BYTES,
};

/** Bytes on their way into a worker. */
export const WORKER_INPUT_BYTES_MAX = 8 * 1024 * 1024;
/** So many bytes of it are acknowledged at once. */
export const WORKER_INPUT_TAKEN_BYTES = 1024 * 1024;
/** Bytes that wait for sqfstar. */
export const PIPE_BYTES_MAX = 1024 * 1024;
/** What sqfstar says on standard error, as far as it is kept. */
export const STDERR_BYTES_MAX = 16 * 1024;
/** How often progress is told, per layer. */
export const PROGRESS_INTERVAL_MS = 100;

/** Layers that are transferred at the same time. */
export const TRANSFERS_MAX = 3;
/** Tries of one request, or of one blob without any progress between them. */
export const TRIES_MAX = 5;
/** Between tries: this much, then twice as much each time, plus up to a half by chance. */
export const RETRY_MS_MIN = 100;
export const RETRY_MS_MAX = 10_000;
/** The longest that a registry may ask us to wait (`Retry-After`). */
export const RETRY_AFTER_MS_MAX = 60_000;
/** How long a connection to a registry may take to come about, its name's resolution included. */
export const CONNECT_TIMEOUT_MS = 10_000;
/** How long a registry may take to answer, and how long a transfer may stand still. */
export const ANSWER_TIMEOUT_MS = 30_000;
export const STALL_TIMEOUT_MS = 60_000;
/** Redirects of one request. */
export const REDIRECTS_MAX = 5;
/** An error's body, a token: as far as they are read. */
export const ANSWER_BYTES_MAX = 1024 * 1024;
/** Memory of the program that unpacks xz; its own largest preset needs half of it. */
export const UNPACK_MEMORY_MIB_MAX = 128;
/** How long a credential helper may take. */
export const HELPER_TIMEOUT_MS = 30_000;
