/**
 * ARP for IPv4 over Ethernet (RFC 826).
 *
 *   0 hardware 2 │ 2 protocol 2 │ 4 lengths 1 1 │ 6 operation 2 │ 8 sender MAC 6 │ 14 sender IP 4 │ 18 target MAC 6 │ 24 target IP 4
 */
import { putU16, putU32, u16 } from './bytes.ts';
import { copyMac, ETHERTYPE_IPV4 } from './ethernet.ts';

export const ARP_BYTES = 28;
export const ARP_OPERATION = 6;
export const ARP_SENDER_MAC = 8;
export const ARP_SENDER_IP = 14;
export const ARP_TARGET_MAC = 18;
export const ARP_TARGET_IP = 24;
export const ARP_REQUEST = 1;
export const ARP_REPLY = 2;

/** Whether `bytes[at, end)` begins with an ARP packet for IPv4 over Ethernet. */
export function isArp(bytes: Uint8Array, at: number, end: number): boolean {
  return (
    end - at >= ARP_BYTES &&
    u16(bytes, at) === 1 &&
    u16(bytes, at + 2) === ETHERTYPE_IPV4 &&
    bytes[at + 4] === 6 &&
    bytes[at + 5] === 4
  );
}

/** Returns where the packet ends. */
export function writeArp(
  bytes: Uint8Array,
  at: number,
  operation: number,
  senderMac: Uint8Array,
  senderIp: number,
  targetMac: Uint8Array,
  targetIp: number,
): number {
  putU16(bytes, at, 1);
  putU16(bytes, at + 2, ETHERTYPE_IPV4);
  bytes[at + 4] = 6;
  bytes[at + 5] = 4;
  putU16(bytes, at + ARP_OPERATION, operation);
  copyMac(bytes, at + ARP_SENDER_MAC, senderMac, 0);
  putU32(bytes, at + ARP_SENDER_IP, senderIp);
  copyMac(bytes, at + ARP_TARGET_MAC, targetMac, 0);
  putU32(bytes, at + ARP_TARGET_IP, targetIp);
  return at + ARP_BYTES;
}
