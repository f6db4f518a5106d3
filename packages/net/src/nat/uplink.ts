/**
 * Routed mode inside the stack: packets of machines to the world go through the NAT engine to a TUN device, and come
 * back the same way. Names, addresses and published ports stay the stack's.
 *
 * Writing to the device never waits, so it happens here; reading is another thread's, which waits for it.
 */
import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { closeFd, configureInterface, eventFd, PacketBuffers, TunDevice } from '@arcbox/sys';
import { NetError, reasonOf } from '../errors.ts';
import { requireCidr } from '../ipam/index.ts';
import type { Port } from '../link/port.ts';
import { createRing, RingConsumer } from '../ring/spsc-ring.ts';
import type { NetworkStack } from '../stack/network-stack.ts';
import { IPV4_DESTINATION, IPV4_SOURCE, i32, parseIpv4, putU32, u32 } from '../wire/index.ts';
import { Fate, type NatCounters, NatEngine, type NatOptions } from './engine.ts';
import { PACKET_BYTES_MAX } from './limits.ts';
import type { ReaderData } from './uplink-reader.ts';

const RING_BYTES: number = 4 * 1024 * 1024;
const TICK_MS = 1000;

export interface UplinkOptions {
  /** Of the TUN device; `%d` in it becomes a number. */
  readonly name: string;
  /** The host's address on it. */
  readonly hostAddress: string;
  /** What machines look like from outside; the host has to route it. */
  readonly outsideAddress: string;
  readonly mtu: number;
}

/** As signed numbers, since every packet asks. */
interface Subnet {
  readonly base: number;
  readonly mask: number;
  readonly text: string;
}

function subnetOf(text: string): Subnet {
  const { base, prefix } = requireCidr(text);
  const mask = prefix === 0 ? 0 : -1 << (32 - prefix);
  return { base: Number(base) & mask, mask, text };
}

type Admit = NonNullable<NatOptions['admit']>;

export class TunUplink implements AsyncDisposable {
  readonly #device: TunDevice;
  readonly #nat: NatEngine;
  readonly #stopFd: number;
  readonly #reader: Worker;
  readonly #ring: RingConsumer;
  readonly #buffers = new PacketBuffers(1, PACKET_BYTES_MAX);
  readonly #networks = new Map<NetworkStack, Subnet>();
  readonly #touched = new Set<Port>();
  readonly #timer: NodeJS.Timeout;
  #dropped = 0;

  /** @throws {NetError} ERR_ARCBOX_NET_HOST, saying what is missing. */
  constructor(options: UplinkOptions, admit: Admit, failed: (error: Error) => void) {
    const nat = new NatEngine({
      inside: [],
      gateway: options.hostAddress,
      outside: options.outsideAddress,
      admit,
    });
    this.#nat = nat;
    this.#device = openDevice(options);
    this.#stopFd = eventFd();
    const ring = createRing(RING_BYTES);
    this.#ring = new RingConsumer(ring);
    const workerData: ReaderData = { fd: this.#device.fd, stopFd: this.#stopFd, ring };
    this.#reader = new Worker(new URL('./uplink-reader.ts', import.meta.url), { workerData, name: 'uplink' });
    this.#reader.on('message', () => this.#drain());
    this.#reader.on('error', failed);
    // Always: a connection that begins after a quiet hour has to know what time it is.
    const tick = (): void => nat.tick(Math.floor(performance.now() / 1000));
    tick();
    this.#timer = setInterval(tick, TICK_MS);
    this.#timer.unref();
  }

  /** The device's name. */
  get name(): string {
    return this.#device.name;
  }

  get counters(): NatCounters & { readonly connections: number; readonly dropped: number } {
    return { ...this.#nat.counters, connections: this.#nat.connections, dropped: this.#dropped };
  }

  /** A network's packets to the world go this way from now on. */
  add(stack: NetworkStack, subnet: string): void {
    this.#networks.set(stack, subnetOf(subnet));
    this.#nat.setInside([...this.#networks.values()].map(({ text }) => text));
    stack.uplink = (network, bytes, at, end) => this.#send(network, bytes, at, end);
  }

  remove(stack: NetworkStack): void {
    if (!this.#networks.delete(stack)) return;
    stack.uplink = undefined;
    this.#nat.setInside([...this.#networks.values()].map(({ text }) => text));
  }

  /** The network that an address is in. */
  networkOf(address: number): NetworkStack | undefined {
    for (const [stack, { base, mask }] of this.#networks) if ((address & mask) === base) return stack;
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    for (const stack of [...this.#networks.keys()]) this.remove(stack);
    const exit = once(this.#reader, 'exit');
    const one = Buffer.alloc(8);
    one.writeBigUInt64LE(1n);
    writeSync(this.#stopFd, one);
    await exit;
    closeFd(this.#stopFd);
    this.#device[Symbol.dispose]();
  }

  #send(network: NetworkStack, bytes: Uint8Array, at: number, end: number): void {
    // Judged by its address, a packet must come from where that is.
    if (this.networkOf(i32(bytes, at + IPV4_SOURCE)) !== network) {
      this.#dropped++;
      return;
    }
    const fate = this.#nat.outbound(bytes, at, end);
    if (fate === Fate.forward) {
      this.#buffers.bytes.set(bytes.subarray(at, end));
      if (!this.#buffers.write(this.#device.fd, 0, end - at)) this.#dropped++;
    } else if (fate === Fate.reply) {
      network.forward(this.#nat.reply.subarray(0, this.#nat.replyBytes))?.flush();
    }
  }

  #drain(): void {
    this.#ring.drain((packet) => {
      const fate = this.#nat.inbound(packet, 0, packet.length);
      if (fate === Fate.forward) {
        const port = this.networkOf(u32(packet, IPV4_DESTINATION))?.forward(packet);
        if (port !== undefined) this.#touched.add(port);
      } else if (fate === Fate.reply) {
        this.#buffers.bytes.set(this.#nat.reply.subarray(0, this.#nat.replyBytes));
        if (!this.#buffers.write(this.#device.fd, 0, this.#nat.replyBytes)) this.#dropped++;
      }
    });
    for (const port of this.#touched) port.flush();
    this.#touched.clear();
  }
}

function openDevice({ name, hostAddress, outsideAddress, mtu }: UplinkOptions): TunDevice {
  const bytesOf = (text: string): Uint8Array => {
    const bytes = new Uint8Array(4);
    putU32(bytes, 0, parseIpv4(text));
    return bytes;
  };
  let device: TunDevice | undefined;
  try {
    device = TunDevice.open({ name, kind: 'tun' });
    const address = bytesOf(hostAddress);
    configureInterface(device.name, { address, prefixLength: 32, peer: bytesOf(outsideAddress), mtu });
    return device;
  } catch (error) {
    device?.[Symbol.dispose]();
    throw new NetError(
      'ERR_ARCBOX_NET_HOST',
      `the uplink ${name} cannot be made: ${reasonOf(error)}; it needs /dev/net/tun and the capability CAP_NET_ADMIN`,
      { cause: error },
    );
  }
}
