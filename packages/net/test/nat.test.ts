import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NetError } from '../src/errors.ts';
import { adjust, delta16, delta32, Fate, NatEngine, type NatOptions } from '../src/nat/index.ts';
import {
  icmpAbout,
  icmpEcho,
  ipPacket,
  plainChecksum,
  read,
  tcpSegment,
  udpDatagram,
} from './support/packets.ts';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

const VM = '10.7.0.2';
const OUT = '192.0.2.1';
const WORLD = '198.41.0.4';
const SYN = 2;
const ACK = 16;
const FIN = 1;
const RST = 4;

function make(options: Partial<NatOptions> = {}): NatEngine {
  return new NatEngine({ inside: ['10.7.0.0/16'], gateway: '10.7.0.1', outside: OUT, ...options });
}

/** Sends a packet out and gives what came of it; `undefined`: dropped. A reply is told by its destination. */
function out(nat: NatEngine, packet: Buffer, whole = true) {
  const fate = nat.outbound(packet, 0, packet.length);
  if (fate === Fate.drop) return undefined;
  return fate === Fate.forward
    ? read(packet, whole)
    : read(Buffer.from(nat.reply.subarray(0, nat.replyBytes)));
}

function back(nat: NatEngine, packet: Buffer, whole = true) {
  const fate = nat.inbound(packet, 0, packet.length);
  if (fate === Fate.drop) return undefined;
  return fate === Fate.forward
    ? read(packet, whole)
    : read(Buffer.from(nat.reply.subarray(0, nat.replyBytes)));
}

/** Opens a TCP connection; gives the port outside. */
function open(nat: NatEngine, port: number, from = VM, to = WORLD, toPort = 443): number {
  const syn = out(nat, tcpSegment({ from, to }, port, toPort, SYN));
  assert.equal(syn?.from, OUT);
  const outside = syn?.fromPort ?? 0;
  const synAck = back(nat, tcpSegment({ from: to, to: OUT }, toPort, outside, SYN | ACK));
  assert.deepEqual([synAck?.to, synAck?.toPort], [from, port]);
  return outside;
}

test('TCP and UDP out and back: addresses, ports, a hop less, every checksum right', () => {
  const nat = make();
  for (const [packet, answer] of [
    [
      tcpSegment({ from: VM, to: WORLD }, 40_000, 443, SYN),
      (port: number) => tcpSegment({ from: WORLD, to: OUT }, 443, port, SYN | ACK),
    ],
    [
      tcpSegment({ from: VM, to: WORLD }, 40_000, 443, ACK, 'hello'),
      (port: number) => tcpSegment({ from: WORLD, to: OUT }, 443, port, ACK, 'world!!'),
    ],
    [
      udpDatagram({ from: VM, to: WORLD }, 40_000, 53),
      (port: number) => udpDatagram({ from: WORLD, to: OUT }, 53, port, 'answer'),
    ],
    [
      udpDatagram({ from: VM, to: WORLD }, 40_001, 53, 'y', false),
      (port: number) => udpDatagram({ from: WORLD, to: OUT }, 53, port, 'z', false),
    ],
    [
      udpDatagram({ from: VM, to: WORLD, options: [1, 1, 1, 1] }, 40_002, 53),
      (port: number) => udpDatagram({ from: WORLD, to: OUT, options: [7, 4, 4, 0] }, 53, port),
    ],
  ] as const) {
    const sent = Buffer.from(packet);
    const original = read(Buffer.from(packet));
    const seen = out(nat, sent);
    assert.deepEqual([seen?.from, seen?.to, seen?.ttl], [OUT, WORLD, 63]);
    assert.equal(seen?.toPort, original.toPort);
    const returned = back(nat, answer(seen?.fromPort ?? 0));
    assert.deepEqual([returned?.from, returned?.to, returned?.ttl], [WORLD, VM, 63]);
    assert.equal(returned?.toPort, original.fromPort);
  }
  assert.equal(nat.connections, 4);
});

test('the fast path does what the slow one does', () => {
  const nat = make();
  const outside = open(nat, 40_000);
  const { fast } = nat.counters;
  for (let i = 0; i < 100; i++) {
    assert.equal(
      out(nat, tcpSegment({ from: VM, to: WORLD }, 40_000, 443, ACK, 'x'.repeat(i)))?.fromPort,
      outside,
    );
    assert.equal(
      back(nat, tcpSegment({ from: WORLD, to: OUT }, 443, outside, ACK, 'y'.repeat(i)))?.toPort,
      40_000,
    );
  }
  assert.equal(nat.counters.fast - fast, 200);
  // What looks alike and is not: shortened, a fragment, at its last hop.
  const short = tcpSegment({ from: VM, to: WORLD }, 40_000, 443, ACK);
  assert.equal(nat.outbound(short.subarray(0, 30), 0, 30), Fate.drop);
  const last = out(nat, tcpSegment({ from: VM, to: WORLD, ttl: 1 }, 40_000, 443, ACK));
  assert.deepEqual([last?.protocol, last?.from, last?.to, last?.payload[0]], [1, '10.7.0.1', VM, 11]);
  assert.equal(nat.counters.fast - fast, 200);
});

test('one endpoint inside has one port outside, and two never share one', () => {
  const nat = make({ portMin: 50_000, portMax: 50_099 });
  const first = open(nat, 40_000);
  assert.equal(open(nat, 40_000, VM, '198.41.0.5'), first, 'whatever it talks to');
  const ports = new Set([first]);
  for (let i = 3; i < 102; i++) ports.add(open(nat, 40_000, `10.7.0.${i}`));
  assert.equal(ports.size, 100);
  assert.equal(
    out(nat, tcpSegment({ from: '10.7.0.200', to: WORLD }, 1, 443, SYN)),
    undefined,
    'none is left',
  );
  assert.equal(nat.counters.exhausted, 1);
  assert.ok(out(nat, udpDatagram({ from: '10.7.0.200', to: WORLD }, 1, 443)), 'UDP has its own');
  const kept = make();
  assert.equal(open(kept, 40_000), 40_000, 'its own, when it is free');
});

test('echoes by their identifier; the router answers its own', () => {
  const nat = make();
  const a = out(nat, icmpEcho({ from: VM, to: WORLD }, 8, 77));
  const b = out(nat, icmpEcho({ from: '10.7.0.3', to: WORLD }, 8, 77));
  assert.equal(a?.from, OUT);
  assert.notEqual(a?.fromPort, b?.fromPort);
  const reply = back(nat, icmpEcho({ from: WORLD, to: OUT }, 0, b?.fromPort ?? 0));
  assert.deepEqual([reply?.to, reply?.toPort], ['10.7.0.3', 77]);
  assert.equal(back(nat, icmpEcho({ from: '198.41.0.9', to: OUT }, 0, b?.fromPort ?? 0)), undefined);
  const own = out(nat, icmpEcho({ from: VM, to: '10.7.0.1' }, 8, 5));
  assert.deepEqual([own?.from, own?.to, own?.payload[0], own?.fromPort], ['10.7.0.1', VM, 0, 5]);
  const outside = back(nat, icmpEcho({ from: WORLD, to: OUT }, 8, 5));
  assert.deepEqual([outside?.from, outside?.to, outside?.payload[0]], [OUT, WORLD, 0]);
});

test('errors about what was translated reach who sent it, and quote what it sent', () => {
  const nat = make();
  const router = '203.0.113.9';
  for (const sent of [
    udpDatagram({ from: VM, to: WORLD }, 40_000, 33_434, 'probe'),
    udpDatagram({ from: VM, to: WORLD }, 40_001, 33_434, 'probe', false),
    tcpSegment({ from: VM, to: WORLD }, 40_000, 80, SYN),
    icmpEcho({ from: VM, to: WORLD }, 8, 9),
  ]) {
    const original = read(Buffer.from(sent));
    const packet = Buffer.from(sent);
    assert.ok(out(nat, packet));
    for (const quotedBytes of [28, packet.length]) {
      const error = back(nat, icmpAbout({ from: router, to: OUT }, 11, 0, packet.subarray(0, quotedBytes)));
      assert.deepEqual([error?.from, error?.to, error?.payload[0]], [router, VM, 11]);
      const quote = read(Buffer.from(error?.payload.subarray(8) ?? []), quotedBytes > 28);
      assert.deepEqual([quote.from, quote.to, quote.fromPort], [VM, WORLD, original.fromPort]);
    }
  }
  // From inside: the machine says that nobody listens at the port the answer came to.
  const query = out(nat, udpDatagram({ from: VM, to: WORLD }, 40_000, 53));
  const answer = udpDatagram({ from: WORLD, to: OUT }, 53, query?.fromPort ?? 0, 'late');
  assert.ok(back(nat, answer));
  const refused = out(nat, icmpAbout({ from: VM, to: WORLD }, 3, 3, answer));
  assert.deepEqual([refused?.from, refused?.to], [OUT, WORLD]);
  const quote = read(Buffer.from(refused?.payload.subarray(8) ?? []));
  assert.deepEqual([quote.from, quote.to, quote.toPort], [WORLD, OUT, query?.fromPort]);
  // About nothing of ours, or with a wrong checksum.
  const foreign = udpDatagram({ from: OUT, to: WORLD }, 999, 53);
  assert.equal(back(nat, icmpAbout({ from: router, to: OUT }, 11, 0, foreign)), undefined);
  const broken = icmpAbout({ from: router, to: OUT }, 11, 0, Buffer.from(answer));
  broken[40] = (broken[40] ?? 0) ^ 1;
  assert.equal(back(nat, broken), undefined);
});

test('fragments follow their first one', () => {
  const nat = make();
  const whole = udpDatagram({ from: VM, to: WORLD }, 40_000, 53, 'x'.repeat(100)).subarray(20);
  const first = ipPacket({ from: VM, to: WORLD, id: 99, fragment: 0x2000 }, 17, whole.subarray(0, 64));
  const second = ipPacket({ from: VM, to: WORLD, id: 99, fragment: 8 }, 17, whole.subarray(64));
  const stranger = ipPacket({ from: VM, to: WORLD, id: 98, fragment: 8 }, 17, whole.subarray(64));
  const a = out(nat, first, false);
  const b = out(nat, second, false);
  assert.deepEqual([a?.from, b?.from], [OUT, OUT]);
  assert.equal(out(nat, stranger, false), undefined);
  const joined = ipPacket(
    { from: OUT, to: WORLD },
    17,
    Buffer.concat([first.subarray(20), second.subarray(20)]),
  );
  assert.equal(read(joined).payload.length, whole.length, 'the checksum of the whole is right');
  nat.tick(40);
  assert.equal(
    out(nat, ipPacket({ from: VM, to: WORLD, id: 99, fragment: 8 }, 17, Buffer.alloc(8)), false),
    undefined,
  );
});

test('published ports let the world in, and nothing else does', () => {
  const nat = make();
  assert.ok(nat.publish('tcp', 8080, VM, 80));
  assert.ok(!nat.publish('tcp', 8080, '10.7.0.3', 80));
  const syn = back(nat, tcpSegment({ from: WORLD, to: OUT }, 5555, 8080, SYN));
  assert.deepEqual([syn?.to, syn?.toPort], [VM, 80]);
  const answer = out(nat, tcpSegment({ from: VM, to: WORLD }, 80, 5555, SYN | ACK));
  assert.deepEqual([answer?.from, answer?.fromPort, answer?.toPort], [OUT, 8080, 5555]);
  const refused = back(nat, tcpSegment({ from: WORLD, to: OUT }, 5555, 9090, SYN));
  assert.deepEqual([refused?.to, (refused?.payload[13] ?? 0) & RST], [WORLD, RST]);
  const unreachable = back(nat, udpDatagram({ from: WORLD, to: OUT }, 5555, 9090));
  assert.deepEqual([unreachable?.to, unreachable?.payload[0], unreachable?.payload[1]], [WORLD, 3, 3]);
  assert.ok(nat.withdraw('tcp', 8080));
  assert.ok(back(nat, tcpSegment({ from: WORLD, to: OUT }, 5555, 8080, ACK)), 'what is open stays');
  const gone = back(nat, tcpSegment({ from: WORLD, to: OUT }, 5556, 8080, SYN));
  assert.equal((gone?.payload[13] ?? 0) & RST, RST);
  assert.equal(nat.counters.unsolicited, 3);
});

test('what is not ours to pass', () => {
  const nat = make();
  const udp = (from: string, to: string): Buffer => udpDatagram({ from, to }, 1000, 53);
  for (const [from, to] of [
    ['192.168.1.1', WORLD],
    [VM, '10.7.9.9'],
    [VM, '255.255.255.255'],
    [VM, '224.0.0.251'],
    [VM, '127.0.0.1'],
    [VM, '0.0.0.0'],
  ] as const) {
    assert.equal(out(nat, udp(from, to)), undefined, `${from} → ${to}`);
  }
  assert.equal(back(nat, udp(VM, OUT)), undefined, 'a machine’s address from outside');
  assert.equal(back(nat, udp(WORLD, '192.0.2.2')), undefined);
  assert.equal(nat.counters.misrouted, 8);
  assert.equal(out(nat, ipPacket({ from: VM, to: WORLD }, 47, Buffer.alloc(20))), undefined, 'GRE');
  const wrong = udp(VM, WORLD);
  wrong[10] = 0;
  wrong[11] = 0;
  assert.equal(out(nat, wrong), undefined);
  assert.equal(nat.counters.malformed, 1);
  const denying = make({ admit: (_protocol, _source, _sourcePort, _destination, port) => port !== 25 });
  const denied = out(denying, tcpSegment({ from: VM, to: WORLD }, 1000, 25, SYN));
  assert.deepEqual([denied?.to, denied?.payload[0], denied?.payload[1]], [VM, 3, 13]);
  assert.ok(out(denying, tcpSegment({ from: VM, to: WORLD }, 1000, 26, SYN)));
});

test('a connection of before our time gets a reset, so that nothing hangs', () => {
  const nat = make();
  const reset = out(nat, tcpSegment({ from: VM, to: WORLD }, 1000, 443, ACK, 'data'));
  assert.deepEqual([reset?.from, reset?.to, reset?.fromPort, reset?.toPort], [WORLD, VM, 443, 1000]);
  assert.equal(reset?.payload[13], RST);
  assert.equal(reset?.payload.readUInt32BE(4), 5000);
  assert.equal(out(nat, tcpSegment({ from: VM, to: WORLD }, 1000, 443, RST | ACK)), undefined);
  assert.equal(nat.connections, 0);
});

test('connections end by their state', () => {
  const nat = make({ entries: 1024 });
  open(nat, 1);
  const half = open(nat, 2);
  const ended = open(nat, 3);
  open(nat, 4);
  out(nat, tcpSegment({ from: VM, to: WORLD }, 5, 443, SYN));
  out(nat, udpDatagram({ from: VM, to: WORLD }, 6, 53));
  const talked = out(nat, udpDatagram({ from: VM, to: WORLD }, 7, 53));
  back(nat, udpDatagram({ from: WORLD, to: OUT }, 53, talked?.fromPort ?? 0));
  out(nat, icmpEcho({ from: VM, to: WORLD }, 8, 8));
  back(nat, tcpSegment({ from: WORLD, to: OUT }, 443, half, FIN | ACK));
  back(nat, tcpSegment({ from: WORLD, to: OUT }, 443, ended, FIN | ACK));
  out(nat, tcpSegment({ from: VM, to: WORLD }, 3, 443, FIN | ACK));
  out(nat, tcpSegment({ from: VM, to: WORLD }, 4, 443, RST | ACK));
  const left: number[] = [];
  for (const nowS of [9, 10, 30, 60, 120, 240, 7439, 7440]) {
    nat.tick(nowS);
    left.push(nat.connections);
  }
  // Reset; datagram; echo and ended; datagrams; half and opening; established.
  assert.deepEqual(left, [8, 7, 6, 4, 3, 1, 1, 0]);
  // The same ports again, while the old connection lingers.
  const again = open(nat, 3);
  back(nat, tcpSegment({ from: WORLD, to: OUT }, 443, again, RST));
  assert.equal(open(nat, 3), again);
  nat.tick(7440 + 200);
  assert.equal(nat.connections, 1, 'it is established, not reset');
});

test('a full table: what is established stays, one machine cannot take all', () => {
  const nat = make({ entries: 64 });
  for (let i = 0; i < 32; i++) open(nat, 1000 + i);
  for (let i = 0; i < 500; i++) {
    assert.ok(
      out(nat, udpDatagram({ from: '10.7.0.9', to: `198.41.1.${i & 255}` }, 2000 + i, 53)),
      `datagram ${i}`,
    );
  }
  assert.equal(nat.connections, 64);
  for (let i = 0; i < 32; i++) {
    assert.ok(out(nat, tcpSegment({ from: VM, to: WORLD }, 1000 + i, 443, ACK)), `connection ${i}`);
  }
  const full = make({ entries: 64 });
  for (let i = 0; i < 64; i++) open(full, 1000 + i);
  assert.equal(out(full, udpDatagram({ from: VM, to: WORLD }, 1, 53)), undefined);
  const large = make();
  for (let i = 0; i < 16_500; i++) out(large, udpDatagram({ from: VM, to: WORLD }, 10_000 + i, 53));
  assert.equal(large.connections, 16_384);
  assert.ok(out(large, udpDatagram({ from: '10.7.0.3', to: WORLD }, 1, 53)));
});

test('incremental checksums are what a whole calculation gives', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 20, maxLength: 20 }),
      fc.integer({ min: 0, max: 0xffffffff }),
      fc.integer({ min: 0, max: 0xffff }),
      (content, address, port) => {
        const bytes = Buffer.from(content);
        bytes.writeUInt16BE(0, 10);
        if (bytes.every((byte) => byte === 0)) return; // the only sum that has two zeros
        bytes.writeUInt16BE(plainChecksum(bytes), 10);
        const delta = delta32(bytes.readInt32BE(12), address | 0) + delta16(bytes.readUInt16BE(4), port);
        const folded = (delta & 0xffff) + (delta >>> 16);
        bytes.writeUInt32BE(address, 12);
        bytes.writeUInt16BE(port, 4);
        adjust(bytes, 10, folded);
        assert.equal(plainChecksum(bytes), 0);
      },
    ),
    { seed: SEED, numRuns: 5000 },
  );
});

test('whatever is sent, translation is one to one and comes back to who asked', () => {
  const step = fc.record({
    host: fc.integer({ min: 2, max: 6 }),
    port: fc.integer({ min: 1, max: 6 }),
    world: fc.integer({ min: 1, max: 4 }),
    kind: fc.constantFrom('udp', 'echo', 'tcp'),
    wait: fc.integer({ min: 0, max: 40 }),
  });
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 80 }), (steps) => {
      const nat = make({ entries: 256 });
      let nowS = 0;
      for (const { host, port, world, kind, wait } of steps) {
        nowS += wait;
        nat.tick(nowS);
        const from = `10.7.0.${host}`;
        const to = `198.41.0.${world}`;
        const sent =
          kind === 'udp'
            ? udpDatagram({ from, to }, port, 53)
            : kind === 'tcp'
              ? tcpSegment({ from, to }, port, 80, SYN)
              : icmpEcho({ from, to }, 8, port);
        const seen = out(nat, sent);
        assert.ok(seen);
        const answer =
          kind === 'udp'
            ? udpDatagram({ from: to, to: OUT }, 53, seen.fromPort)
            : kind === 'tcp'
              ? tcpSegment({ from: to, to: OUT }, 80, seen.fromPort, SYN | ACK)
              : icmpEcho({ from: to, to: OUT }, 0, seen.fromPort);
        const returned = back(nat, answer);
        assert.deepEqual([returned?.to, returned?.toPort], [from, port]);
      }
    }),
    { seed: SEED, numRuns: 200 },
  );
});

test('arbitrary packets: one of three fates, never an exception, never a packet out with a machine’s address', () => {
  const nat = make({ entries: 1024 });
  nat.publish('udp', 53, VM, 53);
  const seeds = [
    tcpSegment({ from: VM, to: WORLD }, 1000, 80, SYN, 'data'),
    udpDatagram({ from: VM, to: WORLD }, 1000, 53, 'question'),
    icmpEcho({ from: VM, to: WORLD }, 8, 1),
    icmpAbout({ from: VM, to: WORLD }, 3, 3, udpDatagram({ from: WORLD, to: VM }, 53, 1000)),
    tcpSegment({ from: WORLD, to: OUT }, 80, 1000, ACK, 'data'),
    udpDatagram({ from: WORLD, to: OUT }, 53, 53, 'answer'),
    icmpAbout({ from: WORLD, to: OUT }, 11, 0, udpDatagram({ from: OUT, to: WORLD }, 1000, 53)),
  ];
  const damaged = fc
    .tuple(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 5 }),
      fc.boolean(),
      fc.nat(100),
    )
    .map(([seed, flips, sound, length]) => {
      const bytes = Buffer.from(seed);
      for (const [at, value] of flips) if (at < bytes.length) bytes[at] = value;
      // Half of them get past the header's checksum.
      const header = ((bytes[0] ?? 0) & 15) * 4;
      if (sound && header >= 20 && header <= bytes.length) {
        bytes.writeUInt16BE(0, 10);
        bytes.writeUInt16BE(plainChecksum(bytes.subarray(0, header)), 10);
      }
      return bytes.subarray(0, length);
    });
  fc.assert(
    fc.property(damaged, fc.boolean(), (bytes, outgoing) => {
      const fate = outgoing ? nat.outbound(bytes, 0, bytes.length) : nat.inbound(bytes, 0, bytes.length);
      assert.ok(fate === Fate.drop || fate === Fate.forward || fate === Fate.reply);
      if (fate === Fate.forward && outgoing) assert.equal(bytes.subarray(12, 16).join('.'), OUT);
      if (fate === Fate.reply) read(Buffer.from(nat.reply.subarray(0, nat.replyBytes)));
    }),
    { seed: SEED, numRuns: 20_000 },
  );
});

test('options that cannot be', () => {
  for (const options of [
    { inside: ['fd00::/8'] },
    { inside: ['x'] },
    { outside: 'x' },
    { entries: 1000 },
    { portMin: 2000, portMax: 1000 },
  ]) {
    assert.throws(() => make(options), NetError, JSON.stringify(options));
  }
});
