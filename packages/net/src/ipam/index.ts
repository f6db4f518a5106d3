export {
  AddressPool,
  type AddressPoolOptions,
  type AddressPoolState,
  OWNER_LENGTH_MAX,
  PREFIX_MAX,
  PREFIX_MIN,
} from './address-pool.ts';
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
export { pickSubnet, SUBNET_SOURCES, type SubnetSource } from './subnets.ts';
