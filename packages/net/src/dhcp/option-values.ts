/** Values of DHCP options, encoded. */

import { NetError } from '../errors.ts';
import { type Cidr, requireCidr, requireIp } from '../ipam/index.ts';
import { parseIpv4 } from '../wire/index.ts';

/** Longest name in the DNS's wire format. */
const NAME_BYTES_MAX = 255;
const LABEL_BYTES_MAX = 63;

export function uint32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

export function uint16(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value);
}

export function addresses(list: readonly string[]): Uint8Array {
  return Buffer.concat(
    list.map((text) => {
      if (requireIp(text).family !== 4) {
        throw new NetError('ERR_ARCBOX_NET_ADDRESS', `DHCP cannot carry ${text}; give an IPv4 address`);
      }
      return uint32(parseIpv4(text));
    }),
  );
}

export function text(value: string): Uint8Array {
  return Buffer.from(value, 'latin1');
}

/** A list of domains as uncompressed DNS names, one after the other (RFC 3397). */
export function domainSearch(domains: readonly string[]): Uint8Array {
  return Buffer.concat(
    domains.map((domain) => {
      const labels = domain.replace(/\.$/, '').split('.');
      const name = Buffer.concat([
        ...labels.map((label) => {
          const bytes = Buffer.from(label, 'latin1');
          if (bytes.length === 0 || bytes.length > LABEL_BYTES_MAX) {
            throw new NetError(
              'ERR_ARCBOX_NET_ADDRESS',
              `${JSON.stringify(domain)} is no domain to search in`,
            );
          }
          return Buffer.concat([Buffer.of(bytes.length), bytes]);
        }),
        Buffer.of(0),
      ]);
      if (name.length > NAME_BYTES_MAX) {
        throw new NetError(
          'ERR_ARCBOX_NET_ADDRESS',
          `domain ${domain.slice(0, 40)}… is longer than a name can be`,
        );
      }
      return name;
    }),
  );
}

export interface Route {
  /** For example `10.0.0.0/8`; `0.0.0.0/0` for the default route. */
  readonly destination: string;
  readonly gateway: string;
}

/** Routes as prefix length, the significant bytes of the destination, the gateway (RFC 3442). */
export function classlessRoutes(routes: readonly Route[]): Uint8Array {
  return Buffer.concat(
    routes.map(({ destination, gateway }) => {
      const cidr: Cidr = requireCidr(destination, 'destination of a route');
      if (cidr.family !== 4) {
        throw new NetError(
          'ERR_ARCBOX_NET_ADDRESS',
          `DHCP cannot carry a route to ${destination}; it is IPv4 only`,
        );
      }
      const significant = uint32(Number(cidr.base)).subarray(0, Math.ceil(cidr.prefix / 8));
      return Buffer.concat([Buffer.of(cidr.prefix), significant, addresses([gateway])]);
    }),
  );
}
