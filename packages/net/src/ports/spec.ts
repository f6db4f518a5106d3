/** What `-p` takes: `[ADDRESS:][HOST[-LAST]:]CONTAINER[-LAST][/tcp|udp]`, IPv6 addresses in brackets. */
import { isIP } from 'node:net';
import { NetError } from '../errors.ts';
import { PORTS_PER_SPEC_MAX } from './limits.ts';

export type PortProtocol = 'tcp' | 'udp';

export interface PortMapping {
  /** Where on the host; `undefined`: on all addresses of both families. */
  readonly hostAddress?: string;
  /** Any port from `first` to `last` may be taken; `undefined`: any at all. */
  readonly hostPorts?: { readonly first: number; readonly last: number };
  readonly containerPort: number;
  readonly protocol: PortProtocol;
}

/**
 * The mappings that a specification means: one for each port of the container.
 *
 * @throws {NetError} `ERR_ARCBOX_NET_PORT_SPEC`
 */
export function parsePortSpec(text: string): readonly PortMapping[] {
  const refuse = (reason: string): never => {
    throw new NetError(
      'ERR_ARCBOX_NET_PORT_SPEC',
      `cannot publish ${JSON.stringify(text)}: ${reason}; write 8080:80, 127.0.0.1:8080:80/udp or 80`,
    );
  };
  const [rest = '', protocol = 'tcp', ...more] = text.split('/');
  if (more.length > 0) return refuse('it is malformed');
  if (protocol !== 'tcp' && protocol !== 'udp') return refuse(`${protocol} is neither tcp nor udp`);
  const bracketed = /^\[([^\]]*)\]:(.*)$/.exec(rest);
  const parts = (bracketed?.[2] ?? rest).split(':');
  const containerText = parts.pop() ?? '';
  const hostText = parts.pop() || undefined;
  const bare = bracketed?.[1] ?? parts.pop();
  if (parts.length > 0) return refuse('it is malformed; an IPv6 address goes in brackets');
  if (bracketed !== null && (bracketed[2] ?? '').split(':').length !== 2) return refuse('it is malformed');
  if (bare !== undefined && bare !== '' && isIP(bare) === 0) return refuse(`${bare} is no IP address`);
  const container = portRange(containerText) ?? refuse(`${containerText} is no port`);
  // 0 on the host means any.
  const host =
    hostText === undefined || hostText === '0'
      ? undefined
      : (portRange(hostText) ?? refuse(`${hostText} is no port`));
  const count = container.last - container.first + 1;
  if (count > PORTS_PER_SPEC_MAX) return refuse(`it has more than ${PORTS_PER_SPEC_MAX} ports`);
  const hostCount = host === undefined ? count : host.last - host.first + 1;
  // A range for one port means any of it.
  if (hostCount !== count && count !== 1) return refuse('the two ranges are not of the same length');
  return Array.from({ length: count }, (_, index): PortMapping => {
    const first = host === undefined ? 0 : host.first + index;
    const last = host === undefined ? 0 : count === 1 ? host.last : first;
    return {
      ...(bare === undefined || bare === '' ? {} : { hostAddress: bare }),
      ...(host === undefined ? {} : { hostPorts: { first, last } }),
      containerPort: container.first + index,
      protocol,
    };
  });
}

function portRange(text: string): { readonly first: number; readonly last: number } | undefined {
  if (!/^\d{1,5}(-\d{1,5})?$/.test(text)) return undefined;
  const [first = 0, last = first] = text.split('-').map(Number);
  return first >= 1 && last <= 65_535 && first <= last ? { first, last } : undefined;
}
