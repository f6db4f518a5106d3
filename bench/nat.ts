/**
 * The NAT engine on packets in memory: what one takes on the fast path and on the slow one, and a checksum changed by
 * what changed against one that is calculated again.
 */
import { adjust, delta32, Fate, NatEngine } from '@arcbox/net/nat';
import { checksum, putU16, putU32, sum16, writeIpv4, writeTcp } from '@arcbox/net/wire';
import type { Report } from './lib/report.ts';

const ROUNDS = 30;
const PACKETS = 200_000;
const PAYLOAD = 1460;
const VM = 0x0a070002;
const OUTSIDE = 0xc0000201;
const WORLD = 0xc6290004;

function segment(
  bytes: Uint8Array,
  source: number,
  destination: number,
  ports: readonly [number, number],
  flags: number,
) {
  const total = 40 + PAYLOAD;
  const tcp = writeIpv4(bytes, 0, total, 6, source, destination, 1);
  writeTcp(bytes, tcp, 20, ports[0], ports[1], 1, 1, flags, 1000);
  putU16(bytes, tcp + 16, checksum(bytes, tcp, total));
}

/** Nanoseconds for each of `PACKETS` calls. */
function time(run: () => void): number {
  const began = process.hrtime.bigint();
  run();
  return Number(process.hrtime.bigint() - began) / PACKETS;
}

/** An engine with `connections` open, and their packets, to be sent again and again. */
function engine(connections: number): { nat: NatEngine; packets: Uint8Array[] } {
  const nat = new NatEngine({ inside: ['10.7.0.0/16'], gateway: '10.7.0.1', outside: '192.0.2.1' });
  nat.tick(1);
  const packets = Array.from({ length: connections }, (_, index) => {
    const bytes = new Uint8Array(40 + PAYLOAD);
    const ports = [20_000 + (index % 40_000), 443] as const;
    const host = VM + Math.floor(index / 10_000);
    const world = WORLD + (index & 0xff);
    segment(bytes, host, world, ports, 2);
    if (nat.outbound(bytes, 0, bytes.length) !== Fate.forward) throw new Error('a SYN was not forwarded');
    segment(bytes, host, world, ports, 16);
    return bytes;
  });
  return { nat, packets };
}

/** Sends packets round and round. Each is put back as it was (four words), which is part of the time. */
function sendAll(nat: NatEngine, packets: readonly Uint8Array[]): number {
  const words = packets.map((bytes) => new Int32Array(bytes.buffer, 0, 10));
  const kept = words.map((header) => Int32Array.from(header));
  const length = 40 + PAYLOAD;
  return time(() => {
    let at = 0;
    for (let i = 0; i < PACKETS; i++) {
      if (nat.outbound(packets[at] as Uint8Array, 0, length) !== Fate.forward)
        throw new Error('not forwarded');
      const header = words[at] as Int32Array;
      const original = kept[at] as Int32Array;
      header[2] = original[2] as number;
      header[3] = original[3] as number;
      header[5] = original[5] as number;
      header[9] = original[9] as number;
      at = at + 1 === packets.length ? 0 : at + 1;
    }
  });
}

export default {
  summary: 'the NAT engine: fast path, slow path, incremental checksums',
  async run(report: Report): Promise<void> {
    const few = engine(32);
    const many = engine(40_000);
    const bytes = Uint8Array.from(few.packets[0] ?? []);
    const delta = delta32(VM | 0, OUTSIDE | 0);
    const fast: number[] = [];
    const slow: number[] = [];
    const changed: number[] = [];
    const header: number[] = [];
    const whole: number[] = [];
    let sink = 0;
    for (let round = 0; round <= ROUNDS; round++) {
      fast[round] = sendAll(few.nat, few.packets);
      slow[round] = sendAll(many.nat, many.packets);
      changed[round] = time(() => {
        for (let i = 0; i < PACKETS; i++) adjust(bytes, 10, (delta + i) & 0xffff);
      });
      header[round] = time(() => {
        for (let i = 0; i < PACKETS; i++) {
          putU32(bytes, 12, i);
          putU16(bytes, 10, 0);
          putU16(bytes, 10, checksum(bytes, 0, 20));
        }
      });
      whole[round] =
        time(() => {
          for (let i = 0; i < PACKETS / 20; i++) sink += sum16(bytes, 20, bytes.length, i);
        }) * 20;
    }
    if (sink === 0) throw new Error('nothing was calculated');
    if (few.nat.counters.fast < ROUNDS * PACKETS * 0.8) throw new Error('the fast path was not taken');
    if (many.nat.counters.fast > many.nat.counters.forwardedOut * 0.2)
      throw new Error('the slow path was not taken');
    const bench = 'nat';
    const unit = 'ns';
    const add = (metric: string, samples: number[], bar?: number, peer?: number[], note?: string): void =>
      report.add({
        bench,
        metric,
        unit,
        // The first round compiles.
        samples: samples.slice(1),
        ...(bar === undefined ? {} : { bar: { kind: 'at-most', value: bar } as const }),
        ...(peer === undefined ? {} : { peer: { name: 'calculated again', samples: peer.slice(1) } }),
        ...(note === undefined ? {} : { note }),
      });
    add(
      'fast path',
      fast,
      100,
      undefined,
      '32 connections, 1460-byte segments; putting the packet back is included',
    );
    add(
      'slow path',
      slow,
      undefined,
      undefined,
      '40,000 connections in turn: header verified, hash table, cold memory',
    );
    add('checksum, IP header', changed, 10, header, 'one address changed');
    add('checksum, TCP', changed, undefined, whole, 'against the sum over a 1460-byte segment');
  },
};
