export * from './errors.ts';
export * from './image-config.ts';
export * from './image-store.ts';
export * from './reference.ts';
