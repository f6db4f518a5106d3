/**
 * The packet at hand, as offsets into the arena. There is one such object for a stack, filled in anew for every packet,
 * so that handling one allocates nothing. Whoever wants something of it for later copies it.
 */
import type { Port } from '../link/port.ts';
import { i32 } from '../wire/bytes.ts';
import { pseudoSum4, pseudoSum6 } from '../wire/checksum.ts';
import { IPV4_SOURCE } from '../wire/ipv4.ts';
import { IPV6_SOURCE } from '../wire/ipv6.ts';
import type { Hop } from './hop.ts';

const MAPPED = 0xffff;

/** The addresses of a flow as four signed 32-bit words each; an IPv4 address is the last of them, mapped. */
export class FlowKey {
  version: 4 | 6 = 4;
  source0 = 0;
  source1 = 0;
  source2 = 0;
  source3 = 0;
  destination0 = 0;
  destination1 = 0;
  destination2 = 0;
  destination3 = 0;

  /** From 16 bytes each. */
  setAddresses(version: 4 | 6, source: Uint8Array, destination: Uint8Array): this {
    this.version = version;
    this.#set6(source, 0, destination, 0);
    return this;
  }

  /** From an IP header; `addresses` is where its source address is. */
  readAddresses(version: 4 | 6, bytes: Uint8Array, addresses: number): void {
    this.version = version;
    if (version === 6) {
      this.#set6(bytes, addresses, bytes, addresses + 16);
      return;
    }
    this.source0 = 0;
    this.source1 = 0;
    this.source2 = MAPPED;
    this.source3 = i32(bytes, addresses);
    this.destination0 = 0;
    this.destination1 = 0;
    this.destination2 = MAPPED;
    this.destination3 = i32(bytes, addresses + 4);
  }

  /** Nine words: addresses, then the ports. */
  save(words: Int32Array, ports: number): void {
    words[0] = this.source0;
    words[1] = this.source1;
    words[2] = this.source2;
    words[3] = this.source3;
    words[4] = this.destination0;
    words[5] = this.destination1;
    words[6] = this.destination2;
    words[7] = this.destination3;
    words[8] = ports;
  }

  restore(version: 4 | 6, words: Int32Array): this {
    this.version = version;
    this.source0 = words[0] as number;
    this.source1 = words[1] as number;
    this.source2 = words[2] as number;
    this.source3 = words[3] as number;
    this.destination0 = words[4] as number;
    this.destination1 = words[5] as number;
    this.destination2 = words[6] as number;
    this.destination3 = words[7] as number;
    return this;
  }

  #set6(source: Uint8Array, atSource: number, destination: Uint8Array, atDestination: number): void {
    this.source0 = i32(source, atSource);
    this.source1 = i32(source, atSource + 4);
    this.source2 = i32(source, atSource + 8);
    this.source3 = i32(source, atSource + 12);
    this.destination0 = i32(destination, atDestination);
    this.destination1 = i32(destination, atDestination + 4);
    this.destination2 = i32(destination, atDestination + 8);
    this.destination3 = i32(destination, atDestination + 12);
  }
}

/** Words of a key, with the ports. */
export const KEY_WORDS = 9;

export class Packet extends FlowKey {
  /** Where it came in. */
  port: Port;
  vlan = 0;
  /** Of the Ethernet frame; its source address is at `frame + 6`. */
  frame = 0;
  /** Of the IP header, and where the IP packet ends. */
  ip = 0;
  end = 0;
  protocol = 0;
  /** Of the upper-layer header. */
  upper = 0;

  constructor(port: Port) {
    super();
    this.port = port;
  }

  /** Where the source address is; the destination follows it. */
  get addresses(): number {
    return this.ip + (this.version === 4 ? IPV4_SOURCE : IPV6_SOURCE);
  }
}

/** The pseudo-header's sum for `length` bytes of upper-layer data in this packet. */
export function pseudoSum(bytes: Uint8Array, packet: Packet, length: number): number {
  return packet.version === 4
    ? pseudoSum4(bytes, packet.ip + IPV4_SOURCE, packet.protocol, length)
    : pseudoSum6(bytes, packet.ip + IPV6_SOURCE, packet.protocol, length);
}

/** A copy of the source (0) or destination (1) address: 16 bytes. */
export function addressOf(bytes: Uint8Array, packet: Packet, which: 0 | 1): Uint8Array {
  if (packet.version === 6) {
    const at = packet.addresses + 16 * which;
    return bytes.slice(at, at + 16);
  }
  const address = new Uint8Array(16);
  address[10] = 0xff;
  address[11] = 0xff;
  const at = packet.addresses + 4 * which;
  for (let i = 0; i < 4; i += 1) address[12 + i] = bytes[at + i] as number;
  return address;
}

/** The way back to where a packet came from. */
export function hopOf(bytes: Uint8Array, packet: Packet): Hop {
  return { port: packet.port, vlan: packet.vlan, mac: bytes.slice(packet.frame + 6, packet.frame + 12) };
}
