/** Frames made by hand, and read back. */
import { ipBytes, ipText, isMapped4 } from '../../src/wire/address.ts';
import { putU16, u16, u32 } from '../../src/wire/bytes.ts';
import { checksum, finish, pseudoSum4, pseudoSum6, sum16 } from '../../src/wire/checksum.ts';
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, vlanOf, writeEthernet } from '../../src/wire/ethernet.ts';
import { IPV4_DONT_FRAGMENT, writeIpv4 } from '../../src/wire/ipv4.ts';
import { writeIpv6 } from '../../src/wire/ipv6.ts';
import { TCP_ACK, writeTcp } from '../../src/wire/tcp.ts';
import { GATEWAY_MAC, GUEST_MAC } from './lab.ts';

export interface IpOptions {
  readonly from?: string;
  readonly to?: string;
  readonly vlan?: number;
  readonly mac?: Uint8Array;
  readonly toMac?: Uint8Array;
  readonly hopLimit?: number;
  /** IPv4: flags and offset. */
  readonly fragment?: number;
  readonly id?: number;
}

/** A packet with `upper` as its upper-layer data, which has a checksum of its own at `checksumAt`, over a pseudo-header. */
export function ip(protocol: number, upper: Uint8Array, options: IpOptions, checksumAt = -1): Uint8Array {
  const { from = '10.0.0.2', to = '192.0.2.1', vlan = 0, hopLimit = 64 } = options;
  const source = ipBytes(from);
  const destination = ipBytes(to);
  const v4 = isMapped4(source);
  const frame = new Uint8Array(18 + 40 + upper.length);
  let at = writeEthernet(
    frame,
    0,
    options.toMac ?? GATEWAY_MAC,
    options.mac ?? GUEST_MAC,
    vlan,
    v4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6,
  );
  const header = at;
  at = v4
    ? writeIpv4(
        frame,
        at,
        20 + upper.length,
        protocol,
        u32(source, 12),
        u32(destination, 12),
        options.id ?? 1,
        options.fragment ?? IPV4_DONT_FRAGMENT,
        hopLimit,
      )
    : writeIpv6(frame, at, upper.length, protocol, source, destination, hopLimit);
  frame.set(upper, at);
  if (checksumAt >= 0) {
    const pseudo = v4
      ? pseudoSum4(frame, header + 12, protocol, upper.length)
      : pseudoSum6(frame, header + 8, protocol, upper.length);
    putU16(frame, at + checksumAt, 0);
    putU16(frame, at + checksumAt, finish(sum16(frame, at, at + upper.length, pseudo)));
  }
  return frame.slice(0, at + upper.length);
}

export interface Segment {
  readonly fromPort?: number;
  readonly toPort?: number;
  readonly sequence: number;
  readonly ack?: number;
  readonly flags: number;
  readonly window?: number;
  readonly options?: readonly number[];
  readonly data?: Uint8Array;
}

export function tcp(segment: Segment, options: IpOptions = {}): Uint8Array {
  const { fromPort = 40_000, toPort = 80, window = 0xffff, data = new Uint8Array(0) } = segment;
  const extra = segment.options ?? [];
  const header = 20 + extra.length;
  const upper = new Uint8Array(header + data.length);
  const ack = segment.ack ?? 0;
  writeTcp(upper, 0, header, fromPort, toPort, segment.sequence, ack, segment.flags, window);
  upper.set(extra, 20);
  upper.set(data, header);
  return ip(6, upper, options, 16);
}

export function udp(
  fromPort: number,
  toPort: number,
  payload: Uint8Array,
  options: IpOptions = {},
): Uint8Array {
  const upper = new Uint8Array(8 + payload.length);
  putU16(upper, 0, fromPort);
  putU16(upper, 2, toPort);
  putU16(upper, 4, upper.length);
  upper.set(payload, 8);
  return ip(17, upper, options, 6);
}

/** ICMP or ICMPv6, by the family of the addresses. */
export function icmp(
  type: number,
  code: number,
  rest: readonly number[],
  options: IpOptions = {},
): Uint8Array {
  const upper = Uint8Array.from([type, code, 0, 0, ...rest]);
  if ((options.from ?? '10').includes(':')) return ip(58, upper, options, 2);
  putU16(upper, 2, checksum(upper, 0, upper.length));
  return ip(1, upper, options);
}

export interface Parsed {
  readonly vlan: number;
  readonly type: number;
  readonly from: string;
  readonly to: string;
  readonly protocol: number;
  readonly fragment: number;
  readonly fromPort: number;
  readonly toPort: number;
  readonly sequence: number;
  readonly ack: number;
  readonly flags: number;
  readonly window: number;
  readonly options: Uint8Array;
  /** Of TCP and UDP the data; otherwise everything after the IP header. */
  readonly data: Uint8Array;
}

/** Reads a frame, and throws when a checksum in it is wrong. */
export function parse(frame: Uint8Array): Parsed {
  const vlan = vlanOf(frame, 0);
  let at = vlan === 0 ? 14 : 18;
  const type = u16(frame, at - 2);
  const v4 = type === ETHERTYPE_IPV4;
  const nothing = { vlan, type, from: '', to: '', protocol: 0, fragment: 0 };
  const noPorts = { fromPort: 0, toPort: 0, sequence: 0, ack: 0, flags: 0, window: 0 };
  const none = new Uint8Array(0);
  if (!v4 && type !== ETHERTYPE_IPV6) {
    return { ...nothing, ...noPorts, options: none, data: frame.subarray(at) };
  }
  const header = at;
  const protocol = frame[header + (v4 ? 9 : 6)] as number;
  const addresses = header + (v4 ? 12 : 8);
  const size = v4 ? 4 : 16;
  const text = (offset: number): string =>
    v4 ? Array.from(frame.subarray(offset, offset + 4)).join('.') : ipText(frame, offset);
  const length = v4 ? u16(frame, header + 2) - 20 : u16(frame, header + 4);
  if (v4 && checksum(frame, header, header + 20) !== 0) throw new Error('a bad IPv4 checksum');
  at = header + (v4 ? 20 : 40);
  if (at + length !== frame.length)
    throw new Error(`the frame has ${frame.length - at - length} bytes too many`);
  const fragment = v4 ? u16(frame, header + 6) & 0x3fff : 0;
  const base = { vlan, type, from: text(addresses), to: text(addresses + size), protocol, fragment };
  const pseudo = v4
    ? pseudoSum4(frame, addresses, protocol, length)
    : pseudoSum6(frame, addresses, protocol, length);
  if (fragment === 0 && protocol !== 44) {
    const sum = protocol === 1 ? checksum(frame, at, at + length) : checksum(frame, at, at + length, pseudo);
    if (sum !== 0) throw new Error(`a bad checksum in protocol ${protocol}`);
  }
  if (protocol === 6) {
    const options = at + 20;
    const data = at + ((frame[at + 12] as number) >>> 4) * 4;
    return {
      ...base,
      fromPort: u16(frame, at),
      toPort: u16(frame, at + 2),
      sequence: u32(frame, at + 4),
      ack: u32(frame, at + 8),
      flags: frame[at + 13] as number,
      window: u16(frame, at + 14),
      options: frame.subarray(options, data),
      data: frame.subarray(data),
    };
  }
  if (protocol === 17 && fragment === 0) {
    return {
      ...base,
      ...noPorts,
      fromPort: u16(frame, at),
      toPort: u16(frame, at + 2),
      options: none,
      data: frame.subarray(at + 8),
    };
  }
  return { ...base, ...noPorts, options: none, data: frame.subarray(at) };
}

export const MSS_1460: readonly number[] = [2, 4, 0x05, 0xb4];
export const ACK: number = TCP_ACK;
