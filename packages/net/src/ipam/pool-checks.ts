/** What the pools of both families ask of their callers, and say of it. */
import { NetError } from '../errors.ts';
import { type Cidr, cidrContains, requireCidr } from './cidr.ts';

/** Longest name of an owner, in UTF-16 units. */
export const OWNER_LENGTH_MAX = 256;

/** @throws {NetError} `ERR_ARCBOX_NET_ADDRESS` when it is of the other family, or of another size. */
export function requirePoolSubnet(subnet: string, family: 4 | 6, prefixMin: number, prefixMax: number): Cidr {
  const cidr = requireCidr(subnet);
  if (cidr.family === family && cidr.prefix >= prefixMin && cidr.prefix <= prefixMax) return cidr;
  throw new NetError(
    'ERR_ARCBOX_NET_ADDRESS',
    `subnet ${subnet} cannot be a pool; it must be IPv${family} with a prefix of ${prefixMin} to ${prefixMax}`,
  );
}

/** The part of a subnet that is handed out. @throws {NetError} `ERR_ARCBOX_NET_ADDRESS` */
export function requirePoolRange(cidr: Cidr, subnet: string, range: string | undefined): Cidr {
  const part = requireCidr(range ?? subnet, 'range');
  if (part.prefix >= cidr.prefix && cidrContains(cidr, { family: part.family, value: part.base }))
    return part;
  throw new NetError('ERR_ARCBOX_NET_ADDRESS', `range ${range} is not in subnet ${subnet}`);
}

/** @throws {NetError} `ERR_ARCBOX_NET_ADDRESS` */
export function checkOwner(owner: string): void {
  if (owner.length >= 1 && owner.length <= OWNER_LENGTH_MAX) return;
  throw new NetError('ERR_ARCBOX_NET_ADDRESS', `an owner's name has 1 to ${OWNER_LENGTH_MAX} characters`);
}

export function hasAnother(owner: string, held: string, subnet: string, wanted: string): NetError {
  return new NetError(
    'ERR_ARCBOX_NET_ADDRESS',
    `${owner} has ${held} in ${subnet}; give it back before asking for ${wanted}`,
  );
}

/** `holder`: undefined when the pool keeps it. */
export function taken(address: string, holder: string | undefined, subnet: string): NetError {
  return new NetError(
    'ERR_ARCBOX_NET_ADDRESS_TAKEN',
    `${address} is ${holder === undefined ? `reserved in ${subnet}` : `leased to ${holder}`}`,
  );
}

export function exhausted(range: string, leases: number): NetError {
  return new NetError(
    'ERR_ARCBOX_NET_EXHAUSTED',
    `no address is left in ${range} (${leases} are leased); ` +
      'remove what is not needed, or make a network with a larger subnet',
  );
}
