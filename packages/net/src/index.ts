export { NetError, type NetErrorCode } from './errors.ts';
export * from './ipam/index.ts';
