/** Sizes as people write and read them; the same rules as in the configuration file. */
export { formatSize, parseSize } from '@arcbox/engine/size';
