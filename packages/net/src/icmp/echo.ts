/** Echo requests: answered for the gateway, relayed to the host's ping sockets for everybody else. */

import { PING_FLOWS_MAX, PING_IDLE_MS } from '../limits.ts';
import type { Port } from '../link/port.ts';
import type { Arena } from '../memory/arena.ts';
import type { Clock } from '../stack/clock.ts';
import { type AddressPair, beginPacket, commitPacket, draft, type Hop } from '../stack/hop.ts';
import type { HostPing, HostPingEvents } from '../stack/host-network.ts';
import { addressOf, hopOf, type Packet } from '../stack/packet.ts';
import { Timed, type TimerWheel } from '../stack/timer-wheel.ts';
import { ipText } from '../wire/address.ts';
import { putU16, u16 } from '../wire/bytes.ts';
import { finish } from '../wire/checksum.ts';
import {
  ICMP_CHECKSUM,
  ICMP_ECHO_ID,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_SEQUENCE,
  ICMP_HEADER_BYTES,
  ICMPV6_ECHO_REPLY,
  writeIcmp,
} from '../wire/icmp.ts';
import { PROTOCOL_ICMP } from '../wire/ipv4.ts';
import { PROTOCOL_ICMPV6 } from '../wire/ipv6.ts';

export interface EchoOptions {
  readonly arena: Arena;
  readonly clock: Clock;
  readonly wheel: TimerWheel;
  readonly mac: Uint8Array;
  /** Decides on a new flow: calls `open` of it, or `drop`. */
  incoming(flow: PingFlow, packet: Packet): void;
}

/** The echo requests of one machine's program to one address. */
export class PingFlow extends Timed implements HostPingEvents {
  readonly #layer: EchoLayer;
  readonly key: string;
  readonly hop: Hop;
  readonly pair: AddressPair;
  readonly id: number;
  #host: HostPing | undefined;
  #pending: { sequence: number; payload: Uint8Array } | undefined;
  #dropped = false;
  /** Payload from the machine, and to it. */
  bytesIn = 0;
  bytesOut = 0;
  readonly beganMs: number;

  constructor(layer: EchoLayer, key: string, hop: Hop, pair: AddressPair, id: number) {
    super();
    this.#layer = layer;
    this.key = key;
    this.hop = hop;
    this.pair = pair;
    this.id = id;
    this.beganMs = layer.nowMs();
  }

  get state(): 'dialing' | 'open' | 'denied' {
    if (this.#host !== undefined) return 'open';
    return this.#dropped ? 'denied' : 'dialing';
  }

  request(sequence: number, payload: Uint8Array): void {
    this.bytesIn += payload.length;
    if (this.#host !== undefined) this.#host.send(sequence, payload);
    else if (!this.#dropped) this.#pending = { sequence, payload: payload.slice() };
  }

  open(connect: (events: HostPingEvents) => HostPing | undefined): void {
    this.#host = connect(this);
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending !== undefined) this.#host?.send(pending.sequence, pending.payload);
    if (this.#host === undefined) this.#dropped = true;
  }

  drop(): void {
    this.#dropped = true;
    this.#pending = undefined;
  }

  reply(sequence: number, payload: Uint8Array): void {
    this.bytesOut += payload.length;
    this.#layer.reply(this.hop, this.pair, this.id, sequence, payload);
    this.hop.port.flush();
  }

  expired(): void {
    this.#layer.remove(this);
  }

  close(): void {
    this.#host?.close();
    this.#host = undefined;
    this.drop();
  }
}

export class EchoLayer {
  readonly #options: EchoOptions;
  readonly #flows = new Map<string, PingFlow>();

  constructor(options: EchoOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#flows.size;
  }

  flows(): IterableIterator<PingFlow> {
    return this.#flows.values();
  }

  nowMs(): number {
    return this.#options.clock.nowMs();
  }

  /** A sound echo request. `ours`: we are the one who was asked. */
  input(packet: Packet, ours: boolean): void {
    const { bytes } = this.#options.arena;
    const at = packet.upper;
    const id = u16(bytes, at + ICMP_ECHO_ID);
    const sequence = u16(bytes, at + ICMP_ECHO_SEQUENCE);
    const payload = bytes.subarray(at + ICMP_HEADER_BYTES, packet.end);
    const source = addressOf(bytes, packet, 0);
    const destination = addressOf(bytes, packet, 1);
    const pair = { version: packet.version, source: destination, destination: source };
    if (ours) {
      this.reply(hopOf(bytes, packet), pair, id, sequence, payload);
      return;
    }
    const key = `${ipText(source)} ${ipText(destination)} ${id}`;
    let flow = this.#flows.get(key);
    if (flow === undefined) {
      if (this.#flows.size >= PING_FLOWS_MAX) return;
      flow = new PingFlow(this, key, hopOf(bytes, packet), pair, id);
      this.#flows.set(key, flow);
      this.#options.incoming(flow, packet);
    }
    this.#options.wheel.set(flow, this.nowMs() + PING_IDLE_MS);
    flow.request(sequence, payload);
  }

  reply(hop: Hop, pair: AddressPair, id: number, sequence: number, payload: Uint8Array): void {
    const { arena, mac } = this.#options;
    const v4 = pair.version === 4;
    const length = ICMP_HEADER_BYTES + payload.length;
    if (!beginPacket(hop, mac, pair, v4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6, length)) return;
    const { upper, pseudo } = draft;
    const { bytes } = arena;
    const at = writeIcmp(bytes, upper, v4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY, 0, id * 65_536 + sequence);
    bytes.set(payload, at);
    putU16(bytes, upper + ICMP_CHECKSUM, finish((v4 ? 0 : pseudo) + arena.kernels.sum(upper, length)));
    commitPacket(hop, length);
  }

  remove(flow: PingFlow): void {
    this.#options.wheel.clear(flow);
    this.#flows.delete(flow.key);
    flow.close();
  }

  unplug(port: Port): void {
    for (const flow of [...this.#flows.values()]) if (flow.hop.port === port) this.remove(flow);
  }
}
