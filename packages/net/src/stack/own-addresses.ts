/** The addresses of a network: which are ours, which its machines', and which the world's. */
import { linkLocal } from '../icmp/ndp.ts';
import { ipBytes, ipText, isMapped4 } from '../wire/address.ts';
import { i32 } from '../wire/bytes.ts';
import type { Packet } from './packet.ts';

export interface Gateway {
  readonly version: 4 | 6;
  /** 16 bytes. */
  readonly address: Uint8Array;
  readonly text: string;
  readonly prefixLength: number;
}

export class OwnAddresses {
  readonly gateways: readonly Gateway[];
  /** Addresses of ours, the gateway's and those that stand for the host. */
  readonly ours: readonly Uint8Array[];
  /** 16 bytes. */
  readonly linkLocal: Uint8Array;

  /** @throws {NetError} ERR_ARCBOX_NET_ADDRESS */
  constructor(
    gateways: readonly { readonly address: string; readonly prefixLength: number }[],
    hosts: readonly Uint8Array[],
    mac: Uint8Array,
  ) {
    this.gateways = gateways.map(({ address, prefixLength }) => {
      const bytes = ipBytes(address);
      return { version: isMapped4(bytes) ? 4 : 6, address: bytes, text: ipText(bytes), prefixLength };
    });
    this.linkLocal = linkLocal(mac);
    this.ours = [...this.gateways.map((gateway) => gateway.address), ...hosts, this.linkLocal];
  }

  gateway(version: 4 | 6): Gateway | undefined {
    return this.gateways.find((gateway) => gateway.version === version);
  }

  /** Whether an address (16 bytes) is one of ours. */
  has(address: Uint8Array): boolean {
    return this.ours.some((own) => Buffer.compare(own, address) === 0);
  }

  /** Whether an address (16 bytes) is in the network itself. */
  covers(version: 4 | 6, source: Uint8Array): boolean {
    for (const gateway of this.gateways) {
      const { address, prefixLength } = gateway;
      if (gateway.version !== version) continue;
      if (samePrefix(address, source, version === 4 ? 96 + prefixLength : prefixLength)) return true;
    }
    return false;
  }

  /** Neither for us, nor for a neighbour, nor for a group. */
  isForWorld(packet: Packet): boolean {
    return isRoutable(packet) && !this.isLocal(packet) && !this.isOurs(packet);
  }

  /** Whether the destination is one of ours. */
  isOurs(packet: Packet): boolean {
    for (const own of this.ours) {
      if (
        packet.destination3 === i32(own, 12) &&
        packet.destination2 === i32(own, 8) &&
        packet.destination1 === i32(own, 4) &&
        packet.destination0 === i32(own, 0)
      ) {
        return true;
      }
    }
    return false;
  }

  /** Whether the destination is in the network itself. */
  isLocal(packet: Packet): boolean {
    for (const { version, address, prefixLength } of this.gateways) {
      if (version !== packet.version) continue;
      if (version === 4) {
        const mask = prefixLength === 0 ? 0 : -1 << (32 - prefixLength);
        if (((packet.destination3 ^ i32(address, 12)) & mask) === 0) return true;
      } else {
        const words = [packet.destination0, packet.destination1, packet.destination2, packet.destination3];
        const bits = (word: number): number => Math.max(0, Math.min(32, prefixLength - 32 * word));
        const same = words.every((value, word) => {
          const mask = bits(word) === 0 ? 0 : -1 << (32 - bits(word));
          return ((value ^ i32(address, 4 * word)) & mask) === 0;
        });
        if (same) return true;
      }
    }
    return false;
  }

  /** Whether an IPv4 address is the broadcast address of the network. */
  isBroadcast(destination: number): boolean {
    for (const { version, address, prefixLength } of this.gateways) {
      if (version === 4 && prefixLength < 31) {
        const hosts = prefixLength === 0 ? -1 : ~(-1 << (32 - prefixLength));
        if ((i32(address, 12) | hosts) === destination) return true;
      }
    }
    return false;
  }
}

/** Not loopback, "this network", multicast or reserved (RFC 6890); the source must be a single machine too. */
export function isRoutable(packet: Packet): boolean {
  if (packet.version === 4) {
    const first = packet.destination3 >>> 24;
    const from = packet.source3 >>> 24;
    return first !== 0 && first !== 127 && first < 224 && from !== 0 && from !== 127 && from < 224;
  }
  const first = packet.destination0 >>> 24;
  const linkLocalTo = packet.destination0 >>> 22 === 0x3fa;
  const linkLocalFrom = packet.source0 >>> 22 === 0x3fa;
  const low = packet.destination0 === 0 && packet.destination1 === 0 && packet.destination2 === 0;
  return first !== 0xff && !linkLocalTo && !linkLocalFrom && !low && packet.source0 !== 0;
}

function samePrefix(a: Uint8Array, b: Uint8Array, bits: number): boolean {
  for (let i = 0; i * 8 < bits; i += 1) {
    const mask = (0xff00 >>> Math.min(8, bits - i * 8)) & 0xff;
    if ((((a[i] as number) ^ (b[i] as number)) & mask) !== 0) return false;
  }
  return true;
}
