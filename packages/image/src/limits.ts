/** Longest repository name, with its domain (the OCI distribution specification says 255). */
export const REPOSITORY_LENGTH_MAX = 255;
/** Longest tag. */
export const TAG_LENGTH_MAX = 128;
/** Largest image configuration that is read, in bytes. */
export const IMAGE_CONFIG_BYTES_MAX = 8 * 1024 * 1024;
