/** Subnets for networks that do not ask for one. */
import { NetError } from '../errors.ts';
import { type Cidr, cidrSize, cidrsOverlap, formatCidr, requireCidr } from './cidr.ts';

export interface SubnetSource {
  /** The block that subnets are cut from. */
  readonly base: string;
  /** Prefix of each. */
  readonly prefix: number;
}

/** Private blocks, in the order they are used up: 15 large subnets, then 16 that are smaller. */
export const SUBNET_SOURCES: readonly SubnetSource[] = [
  { base: '172.17.0.0/16', prefix: 16 },
  { base: '172.18.0.0/15', prefix: 16 },
  { base: '172.20.0.0/14', prefix: 16 },
  { base: '172.24.0.0/13', prefix: 16 },
  { base: '192.168.0.0/16', prefix: 20 },
];

/**
 * The first subnet of the sources that overlaps nothing of `taken`: the other networks, and what the host routes.
 *
 * @throws {NetError} `ERR_ARCBOX_NET_EXHAUSTED`
 */
export function pickSubnet(
  taken: readonly string[],
  sources: readonly SubnetSource[] = SUBNET_SOURCES,
): string {
  const used = taken.map((text) => requireCidr(text));
  for (const source of sources) {
    const block = requireCidr(source.base);
    const step = cidrSize({ family: block.family, prefix: source.prefix });
    const end = block.base + cidrSize(block);
    for (let base = block.base; base < end; ) {
      const candidate: Cidr = { family: block.family, base, prefix: source.prefix };
      const other = used.find((cidr) => cidrsOverlap(cidr, candidate));
      if (other === undefined) return formatCidr(candidate);
      // A large block in the way is passed in one step.
      const next = other.base + cidrSize(other);
      base = next > base + step ? next + ((step - ((next - block.base) % step)) % step) : base + step;
    }
  }
  throw new NetError(
    'ERR_ARCBOX_NET_EXHAUSTED',
    `no subnet is left in ${sources.map((source) => source.base).join(', ')}; remove a network, or name a subnet`,
  );
}
