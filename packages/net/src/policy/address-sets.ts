/**
 * Which addresses are the public Internet, and which are somebody's own: IANA's special-purpose registries for IPv4
 * and IPv6 (RFC 6890 and later), multicast, and the places where clouds keep a machine's credentials.
 */
import { type Cidr, cidrContains, type IpAddress, requireCidr, unmapped } from '../ipam/index.ts';

const blocks = (...list: string[]): readonly Cidr[] => list.map((text) => requireCidr(text));

/** Loopback of both families. */
export const LOOPBACK: readonly Cidr[] = blocks('127.0.0.0/8', '::1/128');

const NOT_PUBLIC_4 = blocks(
  '0.0.0.0/8', // this host
  '10.0.0.0/8',
  '100.64.0.0/10', // carriers' NAT; a cloud's metadata at 100.100.100.200
  '127.0.0.0/8',
  '168.63.129.16/32', // a cloud's host
  '169.254.0.0/16', // link-local; metadata at 169.254.169.254
  '172.16.0.0/12',
  '192.0.0.0/24', // protocol assignments
  '192.0.2.0/24', // documentation
  '192.88.99.0/24', // 6to4 relays
  '192.168.0.0/16',
  '198.18.0.0/15', // benchmarks
  '198.51.100.0/24', // documentation
  '203.0.113.0/24', // documentation
  '224.0.0.0/4', // multicast
  '240.0.0.0/4', // reserved, broadcast
);

/** Everything that is global in IPv6 is in here … */
const GLOBAL_6 = requireCidr('2000::/3');
/** … except these: tunnels, which end at an IPv4 address that nobody has looked at, and documentation. */
const NOT_PUBLIC_6 = blocks('2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20');

/** True for addresses that the world reaches; false for private, loopback, link-local, multicast, metadata, … */
export function isPublic(address: IpAddress): boolean {
  const ip = unmapped(address);
  if (ip.family === 4) return !NOT_PUBLIC_4.some((block) => cidrContains(block, ip));
  return cidrContains(GLOBAL_6, ip) && !NOT_PUBLIC_6.some((block) => cidrContains(block, ip));
}
