/** The way to a machine: which port, which VLAN, which MAC address; and the frames of packets that go there. */
import type { Port } from '../link/port.ts';
import { u32 } from '../wire/bytes.ts';
import { pseudoSum4, pseudoSum6 } from '../wire/checksum.ts';
import {
  ETH_HEADER_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  UNTAGGED,
  VLAN_TAG_BYTES,
  writeEthernet,
} from '../wire/ethernet.ts';
import { IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES, IPV4_SOURCE, writeIpv4 } from '../wire/ipv4.ts';
import { IPV6_HEADER_BYTES, IPV6_SOURCE, writeIpv6 } from '../wire/ipv6.ts';

export interface Hop {
  readonly port: Port;
  readonly vlan: number;
  /** Six bytes. */
  readonly mac: Uint8Array;
}

export function ethernetBytes(vlan: number): number {
  return vlan === UNTAGGED ? ETH_HEADER_BYTES : ETH_HEADER_BYTES + VLAN_TAG_BYTES;
}

/** An address pair of one family: 16 bytes each, IPv4 mapped. */
export interface AddressPair {
  readonly version: 4 | 6;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
}

/** What a packet that was begun needs to be finished; one object, used again. */
export interface Draft {
  /** Of the frame. */
  frame: number;
  /** Where the upper-layer header goes. */
  upper: number;
  /** Sum of the pseudo-header. */
  pseudo: number;
}

export const draft: Draft = { frame: 0, upper: 0, pseudo: 0 };

/**
 * Begins a packet with `length` bytes of upper-layer data in the port's send buffer, and fills in `draft`. False when
 * the port is blocked. The caller writes the data and commits `draft.upper + length - draft.frame` bytes.
 */
export function beginPacket(
  hop: Hop,
  ourMac: Uint8Array,
  pair: AddressPair,
  protocol: number,
  length: number,
  id = 0,
  fragment: number = IPV4_DONT_FRAGMENT,
  hopLimit = 64,
): boolean {
  const { port, vlan } = hop;
  const ipBytes = pair.version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  const frame = port.reserve(ethernetBytes(vlan) + ipBytes + length);
  if (frame < 0) {
    port.counters.droppedFrames += 1;
    return false;
  }
  const { bytes } = port.arena;
  draft.frame = frame;
  if (pair.version === 4) {
    const ip = writeEthernet(bytes, frame, hop.mac, ourMac, vlan, ETHERTYPE_IPV4);
    const source = u32(pair.source, 12);
    const destination = u32(pair.destination, 12);
    draft.upper = writeIpv4(
      bytes,
      ip,
      IPV4_HEADER_BYTES + length,
      protocol,
      source,
      destination,
      id,
      fragment,
      hopLimit,
    );
    draft.pseudo = pseudoSum4(bytes, ip + IPV4_SOURCE, protocol, length);
  } else {
    const ip = writeEthernet(bytes, frame, hop.mac, ourMac, vlan, ETHERTYPE_IPV6);
    draft.upper = writeIpv6(bytes, ip, length, protocol, pair.source, pair.destination, hopLimit);
    draft.pseudo = pseudoSum6(bytes, ip + IPV6_SOURCE, protocol, length);
  }
  return true;
}

export function commitPacket(hop: Hop, length: number): void {
  hop.port.commit(draft.upper + length - draft.frame);
}
