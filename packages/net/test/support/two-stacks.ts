/**
 * Two stacks face to face: one is the gateway, the other one plays the machine; between them a wire that loses,
 * doubles and reorders. Both sides' TCP is ours, and both are tested. Everything follows from a seed.
 */
import type { Randomness } from '../../src/stack/clock.ts';
import type { TcpConnection, TcpEnd, TcpUser } from '../../src/tcp/connection.ts';
import { ipBytes } from '../../src/wire/address.ts';
import { Dice, GATEWAY_MAC, GUEST_MAC, Lab, Time } from './lab.ts';

export interface WireOptions {
  readonly seed?: number;
  readonly loss?: number;
  readonly duplicates?: number;
  readonly reorders?: number;
  readonly delayMs?: number;
  readonly mtu?: number;
  readonly random?: Randomness;
  readonly chunks?: number;
}

interface InFlight {
  readonly atMs: number;
  readonly order: number;
  readonly to: Lab;
  readonly frame: Uint8Array;
}

/** The machine's program: reads everything, writes what it is told. */
export class Program implements TcpUser {
  connection: TcpConnection | undefined;
  readonly received: Uint8Array[] = [];
  receivedBytes = 0;
  reads = true;
  end: TcpEnd | undefined;
  isOpen = false;
  #toSend: Uint8Array = new Uint8Array(0);
  #finish = false;

  opened(): void {
    this.isOpen = true;
    this.writable();
  }
  readable(): void {
    const c = this.connection;
    if (c === undefined || !this.reads) return;
    for (;;) {
      const bytes = c.receiving.peek(0);
      if (bytes.length === 0) break;
      this.received.push(bytes.slice());
      this.receivedBytes += bytes.length;
      c.consume(bytes.length);
    }
  }
  writable(): void {
    const c = this.connection;
    if (c === undefined || !this.isOpen) return;
    while (this.#toSend.length > 0 && c.sendSpace > 0) {
      const part = this.#toSend.subarray(0, Math.min(c.sendSpace, 100_000));
      if (!c.write(part)) return;
      this.#toSend = this.#toSend.subarray(part.length);
    }
    if (this.#finish && this.#toSend.length === 0) c.finish();
  }
  closed(end: TcpEnd): void {
    this.end = end;
  }
  send(bytes: Uint8Array, finish = true): void {
    this.#toSend = bytes;
    this.#finish = finish;
    this.writable();
  }
  get bytes(): Buffer {
    return Buffer.concat(this.received);
  }
}

export class TwoStacks {
  readonly time = new Time();
  readonly gateway: Lab;
  readonly machine: Lab;
  readonly dice: Dice;
  frames = 0;
  lost = 0;
  /** Sees every frame before it may be lost; false: it is lost. */
  filter: ((frame: Uint8Array, to: Lab) => boolean) | undefined;
  readonly #options: WireOptions;
  #flying: InFlight[] = [];
  #order = 0;

  constructor(options: WireOptions = {}) {
    this.#options = options;
    const { seed = 1, mtu = 1500 } = options;
    this.dice = new Dice(seed);
    const shared = {
      time: this.time,
      ...(options.random === undefined ? {} : { random: options.random }),
      ...(options.chunks === undefined ? {} : { chunks: options.chunks }),
    };
    this.gateway = new Lab({ ...shared, seed: seed + 1, network: { mtu } });
    this.machine = new Lab({
      ...shared,
      seed: seed + 2,
      network: {
        name: 'machine',
        mac: GUEST_MAC,
        mtu,
        hostAddresses: [],
        gateways: [
          { address: '10.0.0.2', prefixLength: 24 },
          { address: 'fd00::2', prefixLength: 64 },
        ],
      },
    });
    this.gateway.link.onFrame = (frame) => this.#send(frame, this.machine);
    this.machine.link.onFrame = (frame) => this.#send(frame, this.gateway);
  }

  /** The machine connects to `address`. */
  connect(address: string, port: number, from = address.includes(':') ? 'fd00::2' : '10.0.0.2'): Program {
    const program = new Program();
    const hop = { port: this.machine.port, vlan: 0, mac: GATEWAY_MAC };
    const version = address.includes(':') ? 6 : 4;
    program.connection = this.machine.stack.tcp.connect(
      hop,
      version,
      ipBytes(from),
      ipBytes(address),
      port,
      program,
    );
    return program;
  }

  /** Runs until `done`, or until `limitMs` have passed on the virtual clock. True when done. */
  async run(done: () => boolean, limitMs = 600_000): Promise<boolean> {
    const end = this.time.ms + limitMs;
    for (;;) {
      // What the fake host answers.
      for (let i = 0; i < 4; i += 1) await undefined;
      if (done()) return true;
      const next = Math.min(
        this.#flying[0]?.atMs ?? Number.POSITIVE_INFINITY,
        this.gateway.wheel.nextMs(),
        this.machine.wheel.nextMs(),
      );
      if (next > end) {
        this.time.ms = end;
        return false;
      }
      this.time.ms = Math.max(this.time.ms, next);
      this.#deliver();
      this.gateway.switch.advance();
      this.machine.switch.advance();
    }
  }

  #send(frame: Uint8Array, to: Lab): void {
    const { loss = 0, duplicates = 0, reorders = 0, delayMs = 1 } = this.#options;
    this.frames += 1;
    if (this.filter?.(frame, to) === false || this.dice.chance(loss)) {
      this.lost += 1;
      return;
    }
    const copies = this.dice.chance(duplicates) ? 2 : 1;
    for (let i = 0; i < copies; i += 1) {
      const late = this.dice.chance(reorders) ? this.dice.below(10) : 0;
      const flying = { atMs: this.time.ms + delayMs + late, order: this.#order, to, frame };
      this.#order += 1;
      let at = this.#flying.length;
      while (at > 0 && (this.#flying[at - 1]?.atMs ?? 0) > flying.atMs) at -= 1;
      this.#flying.splice(at, 0, flying);
    }
  }

  #deliver(): void {
    const due = this.#flying.findIndex((flying) => flying.atMs > this.time.ms);
    const now = due < 0 ? this.#flying.splice(0) : this.#flying.splice(0, due);
    for (const lab of [this.gateway, this.machine]) {
      const frames = now.filter((flying) => flying.to === lab).map((flying) => flying.frame);
      if (frames.length > 0) lab.link.deliver(...frames);
    }
  }
}
