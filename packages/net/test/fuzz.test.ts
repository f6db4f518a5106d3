/**
 * Bounded, seeded fuzzing of everything a machine can send: frames that are nearly right, at random, as many on every
 * machine. Nothing may throw, nothing may be left over. `ARCBOX_FUZZ_SEED` and `ARCBOX_FUZZ_ROUNDS` make other runs.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from '../src/wire/tcp.ts';
import { icmp, ip, parse, tcp, udp } from './support/frames.ts';
import { Dice, Lab } from './support/lab.ts';
import { settle } from './support/peer.ts';

const FRAMES_PER_ROUND = 300;
const rounds = Number(process.env.ARCBOX_FUZZ_ROUNDS ?? 100);
const seed = Number(process.env.ARCBOX_FUZZ_SEED ?? 20_261_122);

const FLAGS = [
  TCP_ACK,
  TCP_SYN,
  TCP_ACK | TCP_FIN,
  TCP_RST,
  TCP_RST | TCP_ACK,
  TCP_SYN | TCP_ACK,
  TCP_FIN,
  0,
];

function bytes(dice: Dice, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => dice.below(256));
}

/** A segment that may well belong to one of a few connections. */
function segment(dice: Dice, seen: Map<string, { sequence: number; ack: number }>): Uint8Array {
  const six = dice.chance(0.2);
  const fromPort = 1 + dice.below(4);
  const key = `${six} ${fromPort}`;
  const known = seen.get(key) ?? { sequence: dice.u32(), ack: dice.u32() };
  const near = (value: number): number => (dice.chance(0.8) ? value : value + dice.below(3000) - 1500) >>> 0;
  const sequence = dice.chance(0.02) ? dice.u32() : near(known.sequence);
  const flags = dice.chance(0.7) ? TCP_ACK : (FLAGS[dice.below(FLAGS.length)] ?? 0);
  const data = dice.chance(0.5) ? bytes(dice, dice.below(1400)) : new Uint8Array(0);
  const options = dice.chance(0.3) ? [...bytes(dice, 4 * dice.below(11))] : [];
  if (sequence === known.sequence) {
    seen.set(key, { ...known, sequence: (sequence + data.length + (flags & TCP_SYN ? 1 : 0)) >>> 0 });
  }
  return tcp(
    {
      fromPort,
      toPort: 80,
      sequence,
      ack: near(known.ack),
      flags,
      options,
      data,
      window: dice.below(65_536),
    },
    six ? { from: 'fd00::2', to: '2001:db8::1' } : {},
  );
}

function frame(dice: Dice, seen: Map<string, { sequence: number; ack: number }>): Uint8Array {
  const to = ['192.0.2.1', '10.0.0.1', '10.0.0.254', '10.0.0.255', '255.255.255.255'][dice.below(5)] ?? '';
  const kinds = [
    () => segment(dice, seen),
    () => segment(dice, seen),
    () => segment(dice, seen),
    () => udp(dice.below(4), dice.chance(0.1) ? 0 : dice.below(4) + 52, bytes(dice, dice.below(100)), { to }),
    () => icmp(dice.below(20), dice.below(4), [...bytes(dice, dice.below(40))], { to }),
    () =>
      icmp(128 + dice.below(10), 0, [...bytes(dice, dice.below(60))], {
        from: 'fd00::2',
        to: 'ff02::1',
        hopLimit: 255,
      }),
    () =>
      ip(dice.below(256), bytes(dice, dice.below(200)), {
        to,
        id: dice.below(8),
        fragment: dice.below(0x4000),
      }),
    () =>
      ip([0, 43, 44, 60, 59][dice.below(5)] ?? 0, bytes(dice, dice.below(90)), {
        from: 'fd00::2',
        to: 'fd00::1',
      }),
    () => bytes(dice, 14 + dice.below(100)),
  ];
  const made = (kinds[dice.below(kinds.length)] ?? (() => bytes(dice, 60)))();
  // Damage, sometimes: mostly in the headers.
  for (let hits = dice.chance(0.2) ? 1 + dice.below(3) : 0; hits > 0; hits -= 1) {
    made[dice.below(Math.min(made.length, 80))] = dice.below(256);
  }
  const cut = dice.chance(0.1) ? Math.max(14, dice.below(made.length + 1)) : made.length;
  return made.slice(0, cut);
}

test(`${rounds} rounds of frames at random (ARCBOX_FUZZ_SEED=${seed})`, async () => {
  const dice = new Dice(seed);
  let carried = 0;
  let relayed = 0;
  for (let round = 0; round < rounds; round += 1) {
    const lab = new Lab({ seed: dice.u32(), chunks: 96 });
    const seen = new Map<string, { sequence: number; ack: number }>();
    lab.stack.udp.bind(53, ({ payload, hop, version, source, destination, sourcePort }) => {
      const pair = { version, source: destination, destination: source };
      lab.stack.udp.send(hop, pair, 53, sourcePort, payload);
    });
    const { datagrams } = lab.host;
    lab.host.datagrams = (target, events) => {
      assert.notEqual(target.port, 0, 'a host’s socket takes no such port');
      if (dice.chance(0.1)) throw new Error('no descriptors');
      return datagrams.call(lab.host, target, events);
    };
    lab.host.onConnect = (stream) => {
      if (dice.chance(0.1)) stream.events.failed('ECONNREFUSED');
      else stream.events.connected();
    };
    try {
      for (let i = 0; i < FRAMES_PER_ROUND; i += 1) {
        lab.link.deliver(frame(dice, seen));
        await settle();
        for (const answer of lab.take()) {
          // Every answer must be sound: `parse` checks lengths and checksums.
          const read = parse(answer);
          if (read.protocol === 6) {
            const key = `${read.to.includes(':')} ${read.toPort}`;
            seen.set(key, { sequence: read.ack, ack: (read.sequence + read.data.length + 1) >>> 0 });
          }
        }
        for (const stream of lab.host.streams) {
          if (stream.destroyed !== 'no' || dice.chance(0.9)) continue;
          if (stream.reads && dice.chance(0.1)) stream.reads = false;
          else if (!stream.reads && dice.chance(0.3)) stream.release();
          if (!stream.paused && dice.chance(0.5)) stream.events.data(bytes(dice, dice.below(3000)));
          else if (dice.chance(0.05)) stream.events.ended();
          else if (dice.chance(0.02)) stream.events.failed('ECONNRESET');
        }
        if (dice.chance(0.1)) lab.pass(dice.below(5000));
      }
      for (const stream of lab.host.streams) carried += stream.receivedBytes;
      relayed += lab.host.flows.length;
      lab.link.receiver?.closed();
      assert.equal(lab.stack.tcp.size, 0, 'connections');
      assert.equal(lab.stack.udp.size, 0, 'flows');
      assert.equal(lab.arena.freeChunks, lab.arena.chunksTotal, 'chunks');
    } catch (error) {
      throw new Error(`seed ${seed}, round ${round}`, { cause: error });
    }
  }
  // It is no use if it never gets past the handshake.
  assert.ok(carried > 10_000 && relayed > 0, `${carried} bytes reached the host, ${relayed} UDP flows`);
});
