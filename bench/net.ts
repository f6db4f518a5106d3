/** The network: the stack alone, and a guest on it, on slirp and on passt in turns. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { createRing, RingConsumer } from '@arcbox/net/ring';
import { NodeNetwork } from '@arcbox/net/stack';
import { GATEWAYS, NetGuest, PEERS, type Peer } from './lib/net-guest.ts';
import { LoopbackService } from './lib/net-probe.ts';
import { MemoryStream, rig } from './lib/net-stack.ts';
import { inContainers } from './lib/net-swarm.ts';
import type { Report } from './lib/report.ts';

const ROUNDS = 20;
const ROUND_BYTES = 128 * 1024 * 1024;
const BATCH_BYTES = 400_000;
const HOST_PORT = 80;

const rate = (bytes: number, startMs: number): number => bytes / 1e6 / (performance.now() - startMs);

interface Shape {
  readonly name: string;
  readonly mtu: number;
  readonly payload: number;
  readonly barUp: number;
}

const SHAPES: readonly Shape[] = [
  { name: '1460', mtu: 1500, payload: 1460, barUp: 0.8 },
  { name: '64k', mtu: 65_520, payload: 65_480, barUp: 3 },
];

/** From the machine into memory, and from memory to the machine. */
async function inMemory(report: Report, shape: Shape): Promise<void> {
  let stream: MemoryStream | undefined;
  const { link } = rig(shape.mtu, () => ({
    connect: (_target, events) => {
      stream = new MemoryStream(events);
      return stream;
    },
    datagrams: () => {
      throw new Error('no datagrams here');
    },
    ping: () => undefined,
  }));
  link.connect(shape.payload, HOST_PORT);
  await new Promise(setImmediate);
  link.acknowledge(HOST_PORT);
  const sink = stream;
  if (sink === undefined || !link.established) throw new Error('the stack did not connect');
  const up: number[] = [];
  const push = link.segments(Math.floor(BATCH_BYTES / shape.payload), shape.payload, HOST_PORT);
  for (let round = 0; round <= ROUNDS; round += 1) {
    const start = performance.now();
    const before = sink.takenBytes;
    while (sink.takenBytes - before < ROUND_BYTES) push();
    up[round] = rate(sink.takenBytes - before, start);
  }
  const down: number[] = [];
  const block = new Uint8Array(65_536).fill(1);
  for (let round = 0; round <= ROUNDS; round += 1) {
    const start = performance.now();
    const before = link.payloadBytes;
    while (link.payloadBytes - before < ROUND_BYTES) {
      sink.give(block);
      sink.give(block);
      sink.give(block);
      sink.give(block);
      link.acknowledge(HOST_PORT);
    }
    down[round] = rate(link.payloadBytes - before, start);
  }
  const bar = { kind: 'at-least', value: shape.barUp } as const;
  const note = `payload in ${shape.payload}-byte segments, one thread, checksums made and checked`;
  report.add({
    bench: 'net',
    metric: `stack_up_${shape.name}`,
    unit: 'GB/s',
    samples: up.slice(1),
    bar,
    note,
  });
  report.add({
    bench: 'net',
    metric: `stack_down_${shape.name}`,
    unit: 'GB/s',
    samples: down.slice(1),
    bar,
    note,
  });
}

/** From the machine into a socket on loopback that this thread reads, too. */
async function intoSocket(report: Report, shape: Shape): Promise<void> {
  let received = 0;
  const server = net.createServer((socket) => {
    socket.on('data', (data) => {
      received += data.length;
    });
    // At the end the stack cuts the connection.
    socket.on('error', () => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const { link, switch: hub } = rig(
    shape.mtu,
    (arena) => new NodeNetwork(arena.view(arena.hostRead, 65_536)),
  );
  try {
    link.connect(shape.payload, port);
    while (!link.established) await new Promise(setImmediate);
    link.acknowledge(port);
    const push = link.segments(Math.floor(BATCH_BYTES / shape.payload), shape.payload, port);
    const batch = Math.floor(BATCH_BYTES / shape.payload) * shape.payload;
    const samples: number[] = [];
    let sent = 0;
    for (let round = 0; round <= ROUNDS; round += 1) {
      const start = performance.now();
      const before = received;
      while (received - before < ROUND_BYTES / 4) {
        // As much as the window of a real peer lets be on its way.
        if (sent - received < 2_000_000) {
          push();
          sent += batch;
        }
        await new Promise(setImmediate);
      }
      samples[round] = rate(received - before, start);
    }
    report.add({
      bench: 'net',
      metric: `stack_into_socket_${shape.name}`,
      unit: 'GB/s',
      samples: samples.slice(1),
      note: 'the reader of the socket shares the thread',
    });
  } finally {
    hub.close();
    server.close();
  }
}

const GUEST_ROUNDS = 20;
const IPERF_SECONDS = 1;
/** Each at its best. */
const MTU: Record<Peer, number> = { ours: 65_520, slirp: 65_520, passt: 65_520 };
const IPERF_PORT_FIRST = 5301;
/** In each round. */
const CONNECTS = 20;
const MODES = [
  { metric: 'guest_to_host', options: '' },
  { metric: 'host_to_guest', options: '-R' },
  { metric: 'guest_to_host_two_streams', options: '-P 2' },
] as const;
/** Of the modes. */
const ONE_STREAM = 0;
const TWO_STREAMS = 2;

type Samples = Record<Peer, number[]>;
const samples = (): Samples => ({ ours: [], slirp: [], passt: [] });

/** The same guest, the same run, three network stacks in turns. */
async function inGuest(report: Report): Promise<void> {
  const boot = process.env.ARCBOX_BOOT_DIR ?? path.join(import.meta.dirname, '..', 'build', 'boot');
  const servers = PEERS.map((_peer, index) => iperfServer(IPERF_PORT_FIRST + index));
  try {
    await using service = await LoopbackService.start();
    await using guest = await NetGuest.start(boot, MTU);
    const rates = MODES.map(samples);
    const pings = samples();
    const connects = samples();
    for (let round = 0; round < GUEST_ROUNDS; round += 1) {
      for (const [index, peer] of PEERS.entries()) {
        for (const [mode, { options }] of MODES.entries()) {
          const port = IPERF_PORT_FIRST + index;
          const out = await guest.run(
            `iperf3 -c ${GATEWAYS[peer]} -p ${port} -t ${IPERF_SECONDS} -f m ${options}`,
          );
          const rate = /([\d.]+) Mbits\/sec\s+receiver\s*$/.exec(
            out.trimEnd().replace(/\s*iperf Done\.$/, ''),
          )?.[1];
          if (rate === undefined) throw new Error(`iperf3 on ${peer} said: ${out.slice(-500)}`);
          rates[mode]?.[peer].push(Number(rate));
        }
        connects[peer].push(...(await connectTimesMs(guest, peer, service.port)));
        // passt does not answer for its gateway.
        if (peer === 'passt') continue;
        const out = await guest.run(`$B ping -c 20 -i 0.01 ${GATEWAYS[peer]}`);
        for (const match of out.matchAll(/time=([\d.]+) ms/g)) pings[peer].push(Number(match[1]));
      }
    }
    for (const [mode, { metric }] of MODES.entries()) {
      const own = rates[mode] ?? samples();
      const note = `iperf3, ${IPERF_SECONDS} s each, every peer at MTU 65520, one guest under emulation`;
      const base = { bench: 'net', unit: 'Mbit/s', samples: own.ours, note };
      const bar = { kind: 'ratio-at-least', value: 1 } as const;
      report.add({ ...base, metric, peer: { name: 'passt', samples: own.passt }, bar });
      report.add({ ...base, metric: `${metric}_slirp`, peer: { name: 'slirp', samples: own.slirp } });
    }
    report.add({
      bench: 'net',
      metric: 'two_streams_over_one',
      unit: 'Mbit/s',
      samples: rates[TWO_STREAMS]?.ours ?? [],
      peer: { name: 'one stream of ours', samples: rates[ONE_STREAM]?.ours ?? [] },
      bar: { kind: 'ratio-at-least', value: 1 },
      note: `iperf3 up, ${IPERF_SECONDS} s each, in turns: both streams together against one alone`,
    });
    for (const peer of ['slirp', 'passt'] as const) {
      report.add({
        bench: 'net',
        metric: `tcp_connect_loopback_${peer}`,
        unit: 'ms',
        samples: connects.ours,
        peer: { name: peer, samples: connects[peer] },
        ...(peer === 'slirp' ? { bar: { kind: 'ratio-at-most', value: 1.2 } as const } : {}),
        note: "from the guest to a service on the host's loopback, one after the other",
      });
    }
    report.add({
      bench: 'net',
      metric: 'ping_gateway',
      unit: 'ms',
      samples: pings.ours,
      peer: { name: 'slirp', samples: pings.slirp },
      bar: { kind: 'ratio-at-most', value: 1.2 },
    });
  } finally {
    for (const server of servers) server.kill();
  }
}

async function connectTimesMs(guest: NetGuest, peer: Peer, port: number): Promise<number[]> {
  const out = await guest.run(`/net-probe connect ${GATEWAYS[peer]} ${port} ${CONNECTS}`);
  // The kernel may say something on the same console, and the shell has a prompt, or the rest of one.
  const times = [...out.matchAll(/^(?:.*#)? *(\d+)$/gm)].map(
    ([, microseconds]) => Number(microseconds) / 1000,
  );
  if (times.length !== CONNECTS) throw new Error(`net-probe on ${peer} said: ${out.slice(-500)}`);
  return times;
}

function iperfServer(port: number): ChildProcess {
  return spawn('iperf3', ['-s', '-B', '127.0.0.1', '-p', String(port)], { stdio: 'ignore' });
}

const RING_BYTES = 4 * 1024 * 1024;
const RING_RECORDS = 20_000;
const RECORD_BYTES = 1500;

/** Frames from one thread to another: the ring, and messages. */
async function betweenThreads(report: Report): Promise<void> {
  const memory = createRing(RING_BYTES);
  const worker = new Worker(new URL('./lib/ring-peer.ts', import.meta.url), {
    workerData: { memory, count: RING_RECORDS, bytes: RECORD_BYTES },
  });
  try {
    await once(worker, 'online');
    const consumer = new RingConsumer(memory);
    const ring: number[] = [];
    const messages: number[] = [];
    for (let round = 0; round <= ROUNDS; round += 1) {
      let start = performance.now();
      worker.postMessage('ring');
      for (let taken = 0; taken < RING_RECORDS; ) {
        taken += consumer.drain(() => {});
        await new Promise(setImmediate);
      }
      ring[round] = ((performance.now() - start) * 1e6) / RING_RECORDS;
      start = performance.now();
      worker.postMessage('messages');
      await new Promise<void>((resolve) => {
        let taken = 0;
        worker.on('message', function take() {
          taken += 1;
          if (taken < RING_RECORDS) return;
          worker.off('message', take);
          resolve();
        });
      });
      messages[round] = ((performance.now() - start) * 1e6) / RING_RECORDS;
    }
    report.add({
      bench: 'net',
      metric: 'ring_record',
      unit: 'ns',
      samples: ring.slice(1),
      peer: { name: 'postMessage', samples: messages.slice(1) },
      bar: { kind: 'ratio-at-most', value: 1 },
      note: `${RECORD_BYTES} bytes, from one thread to another`,
    });
  } finally {
    await worker.terminate();
  }
}

export default {
  summary: 'the network: the stack alone; a guest on it against slirp and passt',
  async run(report: Report): Promise<void> {
    for (const shape of SHAPES) await inMemory(report, shape);
    for (const shape of SHAPES) await intoSocket(report, shape);
    await betweenThreads(report);
    await inGuest(report);
    await inContainers(report);
  },
};
