/** Fragments on their way in: a datagram that is whole again takes the place of its last part. */
import type { Arena } from '../memory/arena.ts';
import { ipText } from '../wire/address.ts';
import { i32, u16 } from '../wire/bytes.ts';
import {
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_ID,
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  IPV4_SOURCE,
} from '../wire/ipv4.ts';
import { IPV6_FRAGMENT_BYTES, IPV6_HEADER_BYTES, IPV6_SOURCE } from '../wire/ipv6.ts';
import type { Clock } from './clock.ts';
import type { Packet } from './packet.ts';
import { Reassembly } from './reassembly.ts';

const FRAGMENTS_SCRATCH = 65_536;

export class Fragments {
  readonly #arena: Arena;
  readonly #clock: Clock;
  readonly #reassembly = new Reassembly();

  constructor(arena: Arena, clock: Clock) {
    this.#arena = arena;
    this.#clock = clock;
  }

  /** Puts the whole datagram into the scratch and points the packet at it; false while parts are missing. */
  add4(packet: Packet, header: number): boolean {
    const { bytes } = this.#arena;
    const { ip, upper, end } = packet;
    const field = u16(bytes, ip + IPV4_FRAGMENT);
    const key = `4 ${i32(bytes, ip + IPV4_SOURCE)} ${i32(bytes, ip + IPV4_DESTINATION)} ${packet.protocol} ${u16(bytes, ip + IPV4_ID)}`;
    const whole = this.#reassembly.add(
      key,
      (field & IPV4_OFFSET_MASK) * 8,
      (field & IPV4_MORE_FRAGMENTS) !== 0,
      bytes.subarray(upper, end),
      this.#clock.nowMs(),
    );
    if (whole === undefined) return false;
    this.#relocate(packet, ip + header - packet.frame, whole);
    return true;
  }

  /** As `add4`. */
  add6(packet: Packet): boolean {
    const { bytes } = this.#arena;
    const { ip, upper, end } = packet;
    if (end - upper < IPV6_FRAGMENT_BYTES) return false;
    const field = u16(bytes, upper + 2);
    const protocol = bytes[upper] as number;
    const key = `6 ${ipText(bytes, ip + IPV6_SOURCE)} ${ipText(bytes, ip + IPV6_SOURCE + 16)} ${i32(bytes, upper + 4)}`;
    const data = bytes.subarray(upper + IPV6_FRAGMENT_BYTES, end);
    // An atomic fragment is a packet of its own (RFC 6946).
    const atomic = (field & 0xfff9) === 0;
    const whole = atomic
      ? data.slice()
      : this.#reassembly.add(key, field & 0xfff8, (field & 1) !== 0, data, this.#clock.nowMs());
    if (whole === undefined) return false;
    packet.protocol = protocol;
    this.#relocate(packet, ip + IPV6_HEADER_BYTES - packet.frame, whole);
    return true;
  }

  /** Copies the frame's first `headers` bytes and the payload to the scratch. */
  #relocate(packet: Packet, headers: number, payload: Uint8Array): void {
    const arena = this.#arena;
    const to = arena.scratch + FRAGMENTS_SCRATCH;
    arena.bytes.copyWithin(to, packet.frame, packet.frame + headers);
    arena.bytes.set(payload, to + headers);
    packet.ip += to - packet.frame;
    packet.frame = to;
    packet.upper = to + headers;
    packet.end = to + headers + payload.length;
  }
}
