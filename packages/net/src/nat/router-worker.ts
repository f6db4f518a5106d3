/**
 * The thread of a router: it waits for its two devices and for word from the program, and does nothing else. Its event
 * loop never turns; what the program says is fetched when the wake-up descriptor is readable.
 */
import { readSync } from 'node:fs';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { configureInterface, PacketBuffers, Poller, TunDevice } from '@arcbox/sys';
import { parseIpv4, putU32 } from '../wire/index.ts';
import { Fate, NatEngine } from './engine.ts';
import { BATCH_PACKETS_MAX, PACKET_BYTES_MAX } from './limits.ts';
import type { FromRouter, RouterDevice, ToRouter, WorkerData } from './protocol.ts';

const MTU_DEFAULT = 1500;
/** Where a packet lies, and where an answer of our own. */
const PACKET = 0;
const REPLY = 1;
const INSIDE = 0;
const OUTSIDE = 1;
const WAKE = 2;

const { options, wakeFd } = workerData as WorkerData;
const buffers = new PacketBuffers(2, PACKET_BYTES_MAX + 1);
const packet = buffers.bytes.subarray(0, buffers.slotBytes);
const replySlot = buffers.bytes.subarray(buffers.slotBytes);
let dropped = 0;
let wakes = 0;
let stopping = false;

function open(device: RouterDevice): TunDevice {
  const tun = TunDevice.open({ name: device.name, kind: 'tun' });
  try {
    if (device.address !== undefined) {
      configureInterface(tun.name, {
        address: bytesOf(device.address),
        prefixLength: device.prefixLength ?? 32,
        mtu: device.mtu ?? MTU_DEFAULT,
        ...(device.peer === undefined ? {} : { peer: bytesOf(device.peer) }),
      });
    }
    return tun;
  } catch (error) {
    tun[Symbol.dispose]();
    throw error;
  }
}

function bytesOf(address: string): Uint8Array {
  const bytes = new Uint8Array(4);
  putU32(bytes, 0, parseIpv4(address));
  return bytes;
}

/** Takes packets from one device, up to a batch of them, and puts what becomes of them where it belongs. */
function drain(nat: NatEngine, from: number, to: number, outgoing: boolean): void {
  for (let count = 0; count < BATCH_PACKETS_MAX; count++) {
    const length = buffers.read(from, PACKET);
    if (length <= 0) return;
    const fate = outgoing ? nat.outbound(packet, 0, length) : nat.inbound(packet, 0, length);
    if (fate === Fate.forward) {
      if (!buffers.write(to, PACKET, length)) dropped++;
    } else if (fate === Fate.reply) {
      replySlot.set(nat.reply.subarray(0, nat.replyBytes));
      if (!buffers.write(from, REPLY, nat.replyBytes)) dropped++;
    }
  }
}

function obey(nat: NatEngine, { command }: ToRouter): unknown {
  switch (command.do) {
    case 'counters':
      return { nat: { ...nat.counters }, connections: nat.connections, dropped, wakes };
    case 'publish':
      return nat.publish(command.protocol, command.port, command.address, command.insidePort);
    case 'withdraw':
      return nat.withdraw(command.protocol, command.port);
    case 'stop':
      stopping = true;
      return undefined;
  }
}

function hear(nat: NatEngine): void {
  const count = Buffer.alloc(8);
  readSync(wakeFd, count);
  if (parentPort === null) return;
  for (;;) {
    const received = receiveMessageOnPort(parentPort) as { readonly message: ToRouter } | undefined;
    if (received === undefined) return;
    say({ kind: 'done', id: received.message.id, value: obey(nat, received.message) });
  }
}

function say(message: FromRouter): void {
  parentPort?.postMessage(message);
}

function run(): void {
  const nat = new NatEngine(options.nat);
  using inside = open(options.inside);
  using outside = open(options.outside);
  const poller = new Poller([inside.fd, outside.fd, wakeFd]);
  let nowS = 0;
  say({ kind: 'ready', inside: inside.name, outside: outside.name });
  while (!stopping) {
    // The clock matters while there are connections to forget.
    poller.wait(nat.connections > 0 ? 1000 : -1);
    wakes++;
    const second = Math.floor(performance.now() / 1000);
    if (second !== nowS) {
      nowS = second;
      nat.tick(nowS);
    }
    if (poller.ready(INSIDE)) drain(nat, inside.fd, outside.fd, true);
    if (poller.ready(OUTSIDE)) drain(nat, outside.fd, inside.fd, false);
    if (poller.ready(WAKE)) hear(nat);
    if (poller.broken(INSIDE) || poller.broken(OUTSIDE)) throw new Error('a device of the router is gone');
  }
}

run();
