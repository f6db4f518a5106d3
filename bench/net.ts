/** The network: the stack alone. */
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { NodeNetwork } from '@arcbox/net/stack';
import { MemoryStream, rig } from './lib/net-stack.ts';
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

export default {
  summary: 'the network stack: payload a second without a machine',
  async run(report: Report): Promise<void> {
    for (const shape of SHAPES) await inMemory(report, shape);
    for (const shape of SHAPES) await intoSocket(report, shape);
  },
};
