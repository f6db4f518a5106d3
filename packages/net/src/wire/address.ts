/**
 * Addresses as text and as bytes.
 *
 * An IPv4 address is an unsigned 32-bit number; an IPv6 address is 16 bytes; a MAC address is six bytes. Where one
 * type must hold both families it is 16 bytes, IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
 */
import { NetError } from '../errors.ts';
import { i32, putU32, u16, u32 } from './bytes.ts';

/** @returns `undefined` when it is no dotted quad (leading zeros, as in 010.0.0.1, are refused: readers disagree). */
export function tryParseIpv4(text: string): number | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return undefined;
  let value = 0;
  for (const part of match.slice(1)) {
    const byte = Number(part);
    if (byte > 255 || (part.length > 1 && part.startsWith('0'))) return undefined;
    value = value * 256 + byte;
  }
  return value;
}

/** @throws {NetError} ERR_ARCBOX_NET_ADDRESS */
export function parseIpv4(text: string): number {
  const value = tryParseIpv4(text);
  if (value === undefined) {
    throw new NetError('ERR_ARCBOX_NET_ADDRESS', `"${text}" is not an IPv4 address such as 10.0.0.1`);
  }
  return value;
}

export function formatIpv4(value: number): string {
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
}

/** @returns 16 bytes, or `undefined` when the text is no IPv6 address (zones are none of it). */
export function tryParseIpv6(text: string): Uint8Array | undefined {
  let source = text;
  const dotted = /^(.*:)([0-9.]+)$/.exec(text);
  if (dotted?.[1] !== undefined && dotted[2]?.includes('.')) {
    const v4 = tryParseIpv4(dotted[2]);
    if (v4 === undefined) return undefined;
    source = `${dotted[1]}${(v4 >>> 16).toString(16)}:${(v4 & 0xffff).toString(16)}`;
  }
  const halves = source.split('::');
  if (halves.length > 2) return undefined;
  const groups = halves.map((half) => (half === '' ? [] : half.split(':')));
  const head = groups[0] ?? [];
  const tail = groups[1] ?? [];
  const count = head.length + tail.length;
  if (halves.length === 1 ? count !== 8 : count > 7) return undefined;
  const all = [...head, ...Array<string>(8 - count).fill('0'), ...tail];
  const bytes = new Uint8Array(16);
  for (const [i, group] of all.entries()) {
    if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return undefined;
    const value = Number.parseInt(group, 16);
    bytes[i * 2] = value >>> 8;
    bytes[i * 2 + 1] = value;
  }
  return bytes;
}

/** @throws {NetError} ERR_ARCBOX_NET_ADDRESS */
export function parseIpv6(text: string): Uint8Array {
  const value = tryParseIpv6(text);
  if (value === undefined) {
    throw new NetError('ERR_ARCBOX_NET_ADDRESS', `"${text}" is not an IPv6 address such as fd00::1`);
  }
  return value;
}

/** As RFC 5952 wants it: lower case, the longest run of zero groups shortened. */
export function formatIpv6(bytes: Uint8Array, at = 0): string {
  const groups = Array.from({ length: 8 }, (_, i) => u16(bytes, at + i * 2));
  if (isMapped4(bytes, at)) return `::ffff:${formatIpv4(u32(bytes, at + 12))}`;
  let best = 0;
  let bestLength = 1;
  for (let start = 0; start < 8; start += 1) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0) length += 1;
    if (length > bestLength) {
      best = start;
      bestLength = length;
    }
  }
  const hex = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  if (bestLength < 2) return hex(groups);
  return `${hex(groups.slice(0, best))}::${hex(groups.slice(best + bestLength))}`;
}

/** Whether the 16 bytes are an IPv4 address in IPv6's clothes. */
export function isMapped4(bytes: Uint8Array, at = 0): boolean {
  return i32(bytes, at) === 0 && i32(bytes, at + 4) === 0 && i32(bytes, at + 8) === 0xffff;
}

/** 16 bytes from either family's text. @throws {NetError} ERR_ARCBOX_NET_ADDRESS */
export function ipBytes(text: string): Uint8Array {
  const v4 = tryParseIpv4(text);
  if (v4 !== undefined) return mapped4(v4);
  const v6 = tryParseIpv6(text);
  if (v6 === undefined) throw new NetError('ERR_ARCBOX_NET_ADDRESS', `"${text}" is not an IP address`);
  return v6;
}

export function mapped4(value: number): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes[10] = 0xff;
  bytes[11] = 0xff;
  putU32(bytes, 12, value);
  return bytes;
}

/** The text of 16 bytes; IPv4 as a dotted quad. */
export function ipText(bytes: Uint8Array, at = 0): string {
  return isMapped4(bytes, at) ? formatIpv4(u32(bytes, at + 12)) : formatIpv6(bytes, at);
}

/** @throws {NetError} ERR_ARCBOX_NET_ADDRESS */
export function parseMac(text: string): Uint8Array {
  if (!/^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/.test(text)) {
    throw new NetError('ERR_ARCBOX_NET_ADDRESS', `"${text}" is not a MAC address such as 02:00:00:00:00:01`);
  }
  return Uint8Array.from(text.split(':'), (part) => Number.parseInt(part, 16));
}

export function formatMac(bytes: Uint8Array, at = 0): string {
  let text = HEX[bytes[at] as number] as string;
  for (let i = 1; i < 6; i += 1) text += `:${HEX[bytes[at + i] as number]}`;
  return text;
}

const HEX: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));
