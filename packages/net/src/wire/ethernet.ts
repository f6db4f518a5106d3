/**
 * Ethernet II with an optional 802.1Q tag.
 *
 *   0 destination 6 │ 6 source 6 │ 12 type 2 │ 14 …
 *   0 destination 6 │ 6 source 6 │ 12 0x8100 │ 14 tag 2 │ 16 type 2 │ 18 …
 */
import { putU16, u16 } from './bytes.ts';

export const ETH_DESTINATION = 0;
export const ETH_SOURCE = 6;
export const ETH_TYPE = 12;
export const ETH_HEADER_BYTES = 14;
export const VLAN_TAG_BYTES = 4;
export const MAC_BYTES = 6;

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_VLAN = 0x8100;
/** The outer tag of two (802.1ad); we write none and take none. */
export const ETHERTYPE_SERVICE_VLAN = 0x88a8;
export const ETHERTYPE_IPV6 = 0x86dd;

/** VLAN identifiers are 1 … 4094; 0 stands for an untagged frame here. */
export const UNTAGGED = 0;
export const VLAN_ID_MAX = 4094;

/** The VLAN identifier of a frame, `UNTAGGED` when it has none (or a priority tag). The frame has at least 18 bytes when tagged. */
export function vlanOf(bytes: Uint8Array, frame: number): number {
  return u16(bytes, frame + ETH_TYPE) === ETHERTYPE_VLAN
    ? u16(bytes, frame + ETH_HEADER_BYTES) & 0xfff
    : UNTAGGED;
}

export function isTagged(bytes: Uint8Array, frame: number): boolean {
  return u16(bytes, frame + ETH_TYPE) === ETHERTYPE_VLAN;
}

/** Group addresses (multicast and broadcast) have the lowest bit of their first byte set. */
export function isGroupMac(bytes: Uint8Array, at: number): boolean {
  return ((bytes[at] as number) & 1) !== 0;
}

export function sameMac(a: Uint8Array, atA: number, b: Uint8Array, atB: number): boolean {
  for (let i = 0; i < MAC_BYTES; i += 1) if (a[atA + i] !== b[atB + i]) return false;
  return true;
}

/** Copies six bytes; for so few a loop is faster than `set`. */
export function copyMac(to: Uint8Array, at: number, from: Uint8Array, fromAt: number): void {
  for (let i = 0; i < MAC_BYTES; i += 1) to[at + i] = from[fromAt + i] as number;
}

/** Writes a header, tagged when `vlan` is not `UNTAGGED`; returns where the payload begins. */
export function writeEthernet(
  bytes: Uint8Array,
  frame: number,
  destination: Uint8Array,
  source: Uint8Array,
  vlan: number,
  type: number,
): number {
  copyMac(bytes, frame + ETH_DESTINATION, destination, 0);
  copyMac(bytes, frame + ETH_SOURCE, source, 0);
  let at = frame + ETH_TYPE;
  if (vlan !== UNTAGGED) {
    putU16(bytes, at, ETHERTYPE_VLAN);
    putU16(bytes, at + 2, vlan);
    at += VLAN_TAG_BYTES;
  }
  putU16(bytes, at, type);
  return at + 2;
}
