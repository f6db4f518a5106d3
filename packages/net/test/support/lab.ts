/** A stack without a host and without a clock: time, chance, sockets and cables are the test's. */
import type { Link, LinkReceiver } from '../../src/link/link.ts';
import type { Port } from '../../src/link/port.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ReadGate } from '../../src/relay/read-gate.ts';
import type { Clock, Randomness } from '../../src/stack/clock.ts';
import type {
  Endpoint,
  HostDatagramEvents,
  HostDatagrams,
  HostNetwork,
  HostPing,
  HostPingEvents,
  HostStream,
  HostStreamEvents,
} from '../../src/stack/host-network.ts';
import type { NetworkOptions, NetworkStack } from '../../src/stack/network-stack.ts';
import { Switch } from '../../src/stack/switch.ts';
import { TimerWheel } from '../../src/stack/timer-wheel.ts';
import { i32, putU32 } from '../../src/wire/bytes.ts';

export class Time implements Clock {
  ms = 1_000_000;
  nowMs(): number {
    return this.ms;
  }
}

/** xorshift32. */
export class Dice implements Randomness {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 0 || 1;
  }
  u32(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }
  /** True once in `1 / probability`. */
  chance(probability: number): boolean {
    return this.u32() < probability * 0x1_0000_0000;
  }
  below(limit: number): number {
    return this.u32() % limit;
  }
}

/** A stream of the host that the test reads and writes. */
export class FakeStream implements HostStream {
  readonly target: Endpoint;
  readonly events: HostStreamEvents;
  readonly received: Uint8Array[] = [];
  receivedBytes = 0;
  ended = false;
  destroyed: 'no' | 'plain' | 'reset' = 'no';
  paused = false;
  /** When false, `write` holds on to what it gets until `release`. */
  reads = true;
  held: Uint8Array | undefined;

  constructor(target: Endpoint, events: HostStreamEvents) {
    this.target = target;
    this.events = events;
  }
  write(bytes: Uint8Array): boolean {
    if (!this.reads) {
      this.held = bytes;
      return false;
    }
    this.#take(bytes);
    return true;
  }
  /** The host's peer begins to read. */
  release(): void {
    this.reads = true;
    const { held } = this;
    this.held = undefined;
    if (held === undefined) return;
    this.#take(held);
    this.events.written();
  }
  end(): void {
    this.ended = true;
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
    this.onResume?.();
  }
  onResume: (() => void) | undefined;
  destroy(reset: boolean): void {
    this.destroyed = reset ? 'reset' : 'plain';
  }
  get text(): string {
    return Buffer.concat(this.received).toString();
  }
  /** Sends all of `bytes`, as fast as the stack takes them. */
  send(bytes: Uint8Array, then?: () => void): void {
    let at = 0;
    const go = (): void => {
      while (at < bytes.length && !this.paused && this.destroyed === 'no') {
        const part = bytes.subarray(at, at + 65_536);
        at += part.length;
        if (!this.events.data(part)) this.paused = true;
      }
      if (at === bytes.length) {
        this.onResume = undefined;
        then?.();
      }
    };
    this.onResume = go;
    go();
  }
  #take(bytes: Uint8Array): void {
    this.received.push(bytes.slice());
    this.receivedBytes += bytes.length;
  }
}

export class FakeDatagrams implements HostDatagrams {
  readonly target: Endpoint;
  readonly events: HostDatagramEvents;
  readonly sent: Uint8Array[] = [];
  closed = false;
  constructor(target: Endpoint, events: HostDatagramEvents) {
    this.target = target;
    this.events = events;
  }
  send(payload: Uint8Array): void {
    this.sent.push(payload.slice());
  }
  close(): void {
    this.closed = true;
  }
}

export class FakeHost implements HostNetwork {
  readonly streams: FakeStream[] = [];
  readonly flows: FakeDatagrams[] = [];
  readonly pings: { address: string; events: HostPingEvents; sent: number[]; closed: boolean }[] = [];
  /** What `connect` does: connects at once unless told otherwise. */
  onConnect: (stream: FakeStream) => void = (stream) => stream.events.connected();

  connect(target: Endpoint, events: HostStreamEvents): HostStream {
    const stream = new FakeStream(target, events);
    this.streams.push(stream);
    // Like a real one, it never answers within the call.
    queueMicrotask(() => this.onConnect(stream));
    return stream;
  }
  datagrams(target: Endpoint, events: HostDatagramEvents): HostDatagrams {
    const flow = new FakeDatagrams(target, events);
    this.flows.push(flow);
    return flow;
  }
  ping(address: string, events: HostPingEvents): HostPing {
    const ping = { address, events, sent: [] as number[], closed: false };
    this.pings.push(ping);
    return {
      send: (sequence) => ping.sent.push(sequence),
      close: () => {
        ping.closed = true;
      },
    };
  }
}

/** A cable whose far end is the test. */
export class TestLink implements Link {
  readonly name: string;
  receiver: LinkReceiver | undefined;
  closed = false;
  /** Frames that the stack sent, copied. */
  readonly frames: Uint8Array[] = [];
  /** Called for every frame, in place of keeping it. */
  onFrame: ((frame: Uint8Array) => void) | undefined;
  /** When false, `send` holds back. */
  takes = true;
  #held: Uint8Array | undefined;

  constructor(name = 'vm') {
    this.name = name;
  }
  start(receiver: LinkReceiver): void {
    this.receiver = receiver;
  }
  send(frames: Uint8Array): boolean {
    if (!this.takes) {
      this.#held = frames;
      return false;
    }
    this.#cut(frames);
    return true;
  }
  release(): void {
    this.takes = true;
    const held = this.#held;
    this.#held = undefined;
    if (held === undefined) return;
    this.#cut(held);
    this.receiver?.sent();
  }
  close(): void {
    this.closed = true;
  }
  /** Gives frames to the stack, in one batch. */
  deliver(...frames: readonly Uint8Array[]): void {
    const batch = new Uint8Array(frames.reduce((sum, frame) => sum + 4 + frame.length, 0));
    let at = 0;
    for (const frame of frames) {
      putU32(batch, at, frame.length);
      batch.set(frame, at + 4);
      at += 4 + frame.length;
    }
    this.raw(batch);
  }
  /** Bytes as they are, in as many pieces as they need. */
  raw(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length && !this.closed; ) {
      const space = this.receiver?.space();
      if (space === undefined) return;
      const part = bytes.subarray(at, at + space.length);
      space.set(part);
      at += part.length;
      this.receiver?.received(part.length);
    }
  }
  #cut(frames: Uint8Array): void {
    for (let at = 0; at < frames.length; ) {
      const length = i32(frames, at);
      const frame = frames.slice(at + 4, at + 4 + length);
      at += 4 + length;
      if (this.onFrame === undefined) this.frames.push(frame);
      else this.onFrame(frame);
    }
  }
}

export const GATEWAY_MAC: Uint8Array = Uint8Array.of(2, 0, 0, 0, 0, 1);
export const GUEST_MAC: Uint8Array = Uint8Array.of(2, 0, 0, 0, 0, 2);

export const NETWORK: NetworkOptions = {
  name: 'lab',
  mac: GATEWAY_MAC,
  mtu: 1500,
  gateways: [
    { address: '10.0.0.1', prefixLength: 24 },
    { address: 'fd00::1', prefixLength: 64 },
  ],
  hostAddresses: ['10.0.0.254', 'fd00::fe'],
};

export class Lab {
  readonly time: Time;
  readonly dice: Dice;
  readonly host = new FakeHost();
  readonly arena: Arena;
  readonly gate: ReadGate;
  readonly wheel: TimerWheel;
  readonly switch: Switch;
  readonly stack: NetworkStack;
  readonly link: TestLink;
  readonly port: Port;

  constructor(
    options: {
      network?: Partial<NetworkOptions>;
      seed?: number;
      time?: Time;
      random?: Randomness;
      chunks?: number;
    } = {},
  ) {
    this.time = options.time ?? new Time();
    this.dice = new Dice(options.seed ?? 1);
    this.arena = new Arena({ ports: 4, chunks: options.chunks ?? 512 });
    this.gate = new ReadGate(this.arena);
    this.wheel = new TimerWheel(this.time.nowMs());
    this.switch = new Switch({
      arena: this.arena,
      clock: this.time,
      random: options.random ?? this.dice,
      wheel: this.wheel,
      gate: this.gate,
      host: this.host,
    });
    this.stack = this.switch.addNetwork({ ...NETWORK, ...options.network });
    this.link = new TestLink();
    this.port = this.switch.plug(this.link, () => {});
    this.switch.attach(this.port, 0, this.stack.name);
  }

  /** Lets `ms` pass, in steps, so that timers set other timers. */
  pass(ms: number): void {
    const end = this.time.ms + ms;
    for (;;) {
      const next = this.wheel.nextMs();
      if (next > end) break;
      this.time.ms = Math.max(this.time.ms, next);
      this.switch.advance();
    }
    this.time.ms = end;
    this.switch.advance();
  }

  /** Frames sent since the last call. */
  take(): Uint8Array[] {
    return this.link.frames.splice(0);
  }
}
