/** ICMP errors of ours: which packet was refused, and why. */
import { ICMP_ERRORS_PER_SECOND, ICMP_QUOTE_BYTES_MAX } from '../limits.ts';
import type { Arena } from '../memory/arena.ts';
import type { Clock } from '../stack/clock.ts';
import { type AddressPair, beginPacket, commitPacket, draft, type Hop } from '../stack/hop.ts';
import { i32, putU16 } from '../wire/bytes.ts';
import { finish } from '../wire/checksum.ts';
import {
  ICMP_CHECKSUM,
  ICMP_HEADER_BYTES,
  ICMP_UNREACHABLE,
  ICMPV6_UNREACHABLE,
  UNREACHABLE_HOST,
  UNREACHABLE_PORT,
  UNREACHABLE_PROHIBITED,
  UNREACHABLE6_ADDRESS,
  UNREACHABLE6_PORT,
  UNREACHABLE6_PROHIBITED,
  writeIcmp,
} from '../wire/icmp.ts';
import { PROTOCOL_ICMP, writeIpv4 } from '../wire/ipv4.ts';
import { PROTOCOL_ICMPV6, writeIpv6 } from '../wire/ipv6.ts';

export type Refusal = 'host' | 'port' | 'prohibited';

const CODES_4: Record<Refusal, number> = {
  host: UNREACHABLE_HOST,
  port: UNREACHABLE_PORT,
  prohibited: UNREACHABLE_PROHIBITED,
};
const CODES_6: Record<Refusal, number> = {
  host: UNREACHABLE6_ADDRESS,
  port: UNREACHABLE6_PORT,
  prohibited: UNREACHABLE6_PROHIBITED,
};

export class IcmpErrors {
  readonly #arena: Arena;
  readonly #clock: Clock;
  readonly #mac: Uint8Array;
  #second = -1;
  #count = 0;

  constructor(arena: Arena, clock: Clock, mac: Uint8Array) {
    this.#arena = arena;
    this.#clock = clock;
    this.#mac = mac;
  }

  /** Tells a machine that the packet `bytes[ip, end)` of it was refused. `pair` is from whom to whom the error goes. */
  send(hop: Hop, pair: AddressPair, why: Refusal, bytes: Uint8Array, ip: number, end: number): void {
    const second = Math.floor(this.#clock.nowMs() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#count = 0;
    }
    this.#count += 1;
    if (this.#count > ICMP_ERRORS_PER_SECOND) return;
    const quote = Math.min(end - ip, ICMP_QUOTE_BYTES_MAX);
    const length = ICMP_HEADER_BYTES + quote;
    const v4 = pair.version === 4;
    if (!beginPacket(hop, this.#mac, pair, v4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6, length)) return;
    const { upper, pseudo } = draft;
    const out = this.#arena.bytes;
    const at = v4
      ? writeIcmp(out, upper, ICMP_UNREACHABLE, CODES_4[why], 0)
      : writeIcmp(out, upper, ICMPV6_UNREACHABLE, CODES_6[why], 0);
    out.set(bytes.subarray(ip, ip + quote), at);
    putU16(out, upper + ICMP_CHECKSUM, finish((v4 ? 0 : pseudo) + this.#arena.kernels.sum(upper, length)));
    commitPacket(hop, length);
  }

  /**
   * As `send`, for a flow whose packet is no longer at hand: the quote is made from what is known of it, which are the
   * headers that the machine looks at. `pair` is from the flow's peer to the machine.
   */
  sendFor(hop: Hop, pair: AddressPair, why: Refusal, protocol: number, upper: Uint8Array): void {
    const header = pair.version === 4 ? 20 : 40;
    const quote = new Uint8Array(header + upper.length);
    if (pair.version === 4) {
      writeIpv4(quote, 0, quote.length, protocol, i32(pair.destination, 12), i32(pair.source, 12), 0);
    } else {
      writeIpv6(quote, 0, upper.length, protocol, pair.destination, pair.source);
    }
    quote.set(upper, header);
    this.send(hop, pair, why, quote, 0, quote.length);
  }
}
