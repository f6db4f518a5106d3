export * from './dhcp/index.ts';
export * from './dns/index.ts';
export { NetError, type NetErrorCode } from './errors.ts';
export * from './ipam/index.ts';
export * from './nat/index.ts';
export * from './pcapng/index.ts';
export * from './policy/index.ts';
export * from './ports/index.ts';
