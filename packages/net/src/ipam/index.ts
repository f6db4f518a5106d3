export {
  AddressPool,
  type AddressPoolOptions,
  type AddressPoolState,
  PREFIX_MAX,
  PREFIX_MIN,
} from './address-pool.ts';
export { AddressPool6, type AddressPool6Options, PREFIX6_MAX, PREFIX6_MIN } from './address-pool6.ts';
export {
  type Cidr,
  cidrContains,
  cidrSize,
  cidrsOverlap,
  formatCidr,
  formatIp,
  type IpAddress,
  parseCidr,
  parseIp,
  requireCidr,
  requireIp,
  unmapped,
} from './cidr.ts';
export { OWNER_LENGTH_MAX } from './pool-checks.ts';
export { pickSubnet, SUBNET_SOURCES, type SubnetSource } from './subnets.ts';
