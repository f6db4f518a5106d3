/**
 * Addresses and subnets as values. An address is a family and a number, so that comparing, masking and counting
 * are arithmetic; text is parsed once, strictly, at the edge.
 */
import { NetError } from '../errors.ts';
import { formatIpv4, formatIpv6, tryParseIpv4, tryParseIpv6 } from '../wire/index.ts';

export interface IpAddress {
  readonly family: 4 | 6;
  /** The address, most significant byte first, as an unsigned number of 32 or 128 bits. */
  readonly value: bigint;
}

export interface Cidr {
  readonly family: 4 | 6;
  /** First address of the block. */
  readonly base: bigint;
  readonly prefix: number;
}

const BITS = { 4: 32, 6: 128 } as const;
const MAPPED_PREFIX = 0xffffn << 32n;

/** Parses an address; `undefined` when it is none. Zone indices (`%eth0`) are refused. */
export function parseIp(text: string): IpAddress | undefined {
  const v4 = tryParseIpv4(text);
  if (v4 !== undefined) return { family: 4, value: BigInt(v4) };
  const v6 = tryParseIpv6(text);
  if (v6 === undefined) return undefined;
  return { family: 6, value: BigInt(`0x${Buffer.from(v6).toString('hex')}`) };
}

/** Parses an address. @throws {NetError} `ERR_ARCBOX_NET_ADDRESS` */
export function requireIp(text: string, what = 'address'): IpAddress {
  const ip = parseIp(text);
  if (ip === undefined) {
    throw new NetError(
      'ERR_ARCBOX_NET_ADDRESS',
      `${JSON.stringify(text)} is no IP ${what}; write it as 10.0.0.1`,
    );
  }
  return ip;
}

/** The text of an address; IPv6 in the canonical form (RFC 5952). */
export function formatIp(ip: IpAddress): string {
  if (ip.family === 4) return formatIpv4(Number(ip.value));
  return formatIpv6(Buffer.from(ip.value.toString(16).padStart(32, '0'), 'hex'));
}

/** An IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`) as the IPv4 address it is; anything else unchanged. */
export function unmapped(ip: IpAddress): IpAddress {
  if (ip.family === 6 && ip.value >> 32n === MAPPED_PREFIX >> 32n) {
    return { family: 4, value: ip.value & 0xffffffffn };
  }
  return ip;
}

/** Parses `10.0.0.0/8`; a bare address is a block of one. Bits after the prefix must be zero. */
export function parseCidr(text: string): Cidr | undefined {
  const [address = '', prefixText, ...rest] = text.split('/');
  const ip = parseIp(address);
  if (ip === undefined || rest.length > 0) return undefined;
  const bits = BITS[ip.family];
  if (prefixText === undefined) return { family: ip.family, base: ip.value, prefix: bits };
  if (!/^(0|[1-9][0-9]{0,2})$/.test(prefixText)) return undefined;
  const prefix = Number(prefixText);
  if (prefix > bits) return undefined;
  const cidr = { family: ip.family, base: ip.value, prefix };
  return ip.value % cidrSize(cidr) === 0n ? cidr : undefined;
}

/** Parses a subnet. @throws {NetError} `ERR_ARCBOX_NET_ADDRESS` */
export function requireCidr(text: string, what = 'subnet'): Cidr {
  const cidr = parseCidr(text);
  if (cidr === undefined) {
    throw new NetError(
      'ERR_ARCBOX_NET_ADDRESS',
      `${JSON.stringify(text)} is no ${what}; write it as 10.0.0.0/24, with zeros after the prefix`,
    );
  }
  return cidr;
}

export function formatCidr(cidr: Cidr): string {
  return `${formatIp({ family: cidr.family, value: cidr.base })}/${cidr.prefix}`;
}

/** How many addresses the block has. */
export function cidrSize(cidr: { readonly family: 4 | 6; readonly prefix: number }): bigint {
  return 1n << BigInt(BITS[cidr.family] - cidr.prefix);
}

export function cidrContains(cidr: Cidr, ip: IpAddress): boolean {
  return cidr.family === ip.family && ip.value >= cidr.base && ip.value < cidr.base + cidrSize(cidr);
}

export function cidrsOverlap(a: Cidr, b: Cidr): boolean {
  return a.family === b.family && a.base < b.base + cidrSize(b) && b.base < a.base + cidrSize(a);
}
