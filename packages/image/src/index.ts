export { applyChanges } from './archive/changes.ts';
export * from './errors.ts';
export * from './image.ts';
export * from './image-config.ts';
export * from './image-store.ts';
export { formatPlatform, hostPlatform, type Platform, parsePlatform } from './manifest.ts';
export type { OnProgress, ProgressEvent } from './progress.ts';
export * from './reference.ts';
export { IMAGE_TABLES } from './store/schema.ts';
