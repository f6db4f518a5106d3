/** The network stack without a machine: a link that plays a TCP peer by patching frames, and hosts made of memory. */
import {
  Arena,
  type HostNetwork,
  type HostStream,
  type HostStreamEvents,
  type Link,
  type LinkReceiver,
  ReadGate,
  Switch,
  TimerWheel,
} from '@arcbox/net/stack';
import {
  ETHERTYPE_IPV4,
  finish,
  fold,
  i32,
  ipBytes,
  PROTOCOL_TCP,
  putU16,
  putU32,
  sum16,
  TCP_ACK,
  TCP_PSH,
  TCP_SYN,
  u16,
  u32,
  writeEthernet,
  writeIpv4,
  writeTcp,
} from '@arcbox/net/wire';

const GATEWAY = Uint8Array.of(2, 0, 0, 0, 0, 1);
const MACHINE = Uint8Array.of(2, 0, 0, 0, 0, 2);
const FROM = u32(ipBytes('10.0.0.2'), 12);
const TO = u32(ipBytes('10.0.0.254'), 12);
const IP = 14;
const TCP = 34;
const PORT = 40_000;
/** What the peer says it can take: as much as the stack may have on its way. */
const WINDOW = 0xffff;
const SCALE = 7;

export class PeerLink implements Link {
  readonly name = 'peer';
  #receiver: LinkReceiver | undefined;
  /** Highest byte of the stack's that was seen, plus one. */
  #theirs = 0;
  #ours = 1;
  payloadBytes = 0;
  established = false;

  start(receiver: LinkReceiver): void {
    this.#receiver = receiver;
  }
  close(): void {}

  /** Reads the stack's segments; nothing is kept. */
  send(frames: Uint8Array): boolean {
    for (let at = 0; at < frames.length; ) {
      const frame = at + 4;
      at = frame + i32(frames, at);
      if (u16(frames, frame + 12) !== ETHERTYPE_IPV4) continue;
      const header = ((frames[frame + TCP + 12] as number) >>> 4) * 4;
      const data = u16(frames, frame + IP + 2) - 20 - header;
      const flags = frames[frame + TCP + 13] as number;
      const next = (i32(frames, frame + TCP + 4) + data + (flags & TCP_SYN ? 1 : 0)) | 0;
      if (((next - this.#theirs) | 0) > 0 || flags & TCP_SYN) this.#theirs = next;
      this.payloadBytes += data;
      if (flags & TCP_SYN) this.established = true;
    }
    return true;
  }

  connect(mss: number, port: number): void {
    const space = this.#space();
    const end = this.#frame(space, 0, 0, TCP_SYN, 0, 8, port);
    space.set([2, 4, mss >>> 8, mss & 255, 1, 3, 3, SCALE], 4 + TCP + 20);
    this.#seal(space, 4, end);
    this.#receiver?.received(end);
  }

  acknowledge(port: number): void {
    const space = this.#space();
    const end = this.#frame(space, 0, this.#ours, TCP_ACK, 0, 0, port);
    this.#seal(space, 4, end);
    this.#receiver?.received(end);
  }

  /** Lays out `count` segments once; `push` then only moves their sequence numbers on. */
  segments(count: number, payload: number, port: number): () => void {
    const space = this.#space();
    const size = 4 + TCP + 20 + payload;
    const starts: number[] = [];
    for (let i = 0; i < count; i += 1) {
      const end = this.#frame(space, i * size, this.#ours, TCP_ACK | TCP_PSH, payload, 0, port);
      space.fill(i, i * size + 4 + TCP + 20, end);
      this.#seal(space, i * size + 4, end);
      starts.push(i * size + 4);
    }
    const total = count * size;
    return () => {
      const now = this.#space();
      for (const frame of starts) {
        const at = frame + TCP;
        const before = u16(now, at + 4) + u16(now, at + 6) + u16(now, at + 8) + u16(now, at + 10);
        putU32(now, at + 4, this.#ours);
        putU32(now, at + 8, this.#theirs);
        const after = u16(now, at + 4) + u16(now, at + 6) + u16(now, at + 8) + u16(now, at + 10);
        // RFC 1624, several words at once.
        putU16(now, at + 16, finish((~u16(now, at + 16) & 0xffff) + 4 * 0xffff - before + after));
        this.#ours = (this.#ours + payload) | 0;
      }
      this.#receiver?.received(total);
    };
  }

  #space(): Uint8Array {
    if (this.#receiver === undefined) throw new Error('the link is not plugged in');
    return this.#receiver.space();
  }

  #frame(
    to: Uint8Array,
    at: number,
    sequence: number,
    flags: number,
    data: number,
    options: number,
    port: number,
  ): number {
    const length = TCP + 20 + options + data;
    const frame = at + 4;
    putU32(to, at, length);
    writeEthernet(to, frame, GATEWAY, MACHINE, 0, ETHERTYPE_IPV4);
    writeIpv4(to, frame + IP, length - IP, PROTOCOL_TCP, FROM, TO, 1);
    writeTcp(to, frame + TCP, 20 + options, PORT, port, sequence, this.#theirs, flags, WINDOW);
    return frame + length;
  }

  #seal(bytes: Uint8Array, frame: number, end: number): void {
    putU16(bytes, frame + TCP + 16, 0);
    const pseudo = sum16(bytes, frame + IP + 12, frame + IP + 20) + PROTOCOL_TCP + (end - frame - TCP);
    putU16(bytes, frame + TCP + 16, finish(fold(sum16(bytes, frame + TCP, end, pseudo))));
  }
}

/** The host's end is memory: it takes everything, and gives `source` as often as it is asked. */
export class MemoryStream implements HostStream {
  readonly #events: HostStreamEvents;
  takenBytes = 0;

  constructor(events: HostStreamEvents) {
    this.#events = events;
    queueMicrotask(() => events.connected());
  }
  write(bytes: Uint8Array): boolean {
    this.takenBytes += bytes.length;
    return true;
  }
  give(bytes: Uint8Array): boolean {
    return this.#events.data(bytes);
  }
  end(): void {}
  pause(): void {}
  resume(): void {}
  destroy(): void {}
}

export interface Rig {
  readonly link: PeerLink;
  readonly arena: Arena;
  readonly switch: Switch;
}

export function rig(mtu: number, host: (arena: Arena) => HostNetwork): Rig {
  const arena = new Arena({ ports: 2 });
  const clock = { nowMs: () => performance.now() };
  const wheel = new TimerWheel(clock.nowMs());
  const random = { u32: () => Math.floor(Math.random() * 2 ** 32) };
  const environment = { arena, clock, random, wheel, gate: new ReadGate(arena), host: host(arena) };
  const hub = new Switch(environment);
  hub.addNetwork({
    name: 'bench',
    mac: GATEWAY,
    mtu,
    gateways: [{ address: '10.0.0.1', prefixLength: 24 }],
    hostAddresses: ['10.0.0.254'],
  });
  const link = new PeerLink();
  hub.attach(
    hub.plug(link, () => {}),
    0,
    'bench',
  );
  return { link, arena, switch: hub };
}
