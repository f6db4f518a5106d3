/** The agent protocol over a Unix socket, against the bare socket. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { AgentClient, type Attachment } from '@arcbox/protocol';
import type { Report } from './lib/report.ts';

const BYTES = 512 * 1024 * 1024;
const ROUNDS = 20;
const CALLS = 2000;

const gbPerSecond = (startMs: number): number => BYTES / 1e6 / (performance.now() - startMs);

async function connect(path: string): Promise<net.Socket> {
  const socket = net.connect(path);
  await once(socket, 'connect');
  return socket;
}

async function output(client: AgentClient, id: string): Promise<number> {
  const start = performance.now();
  let attachment: Attachment | undefined;
  let received = 0;
  attachment = await client.attach(id, {
    onChunk({ channel, offset, data }) {
      received += data.length;
      attachment?.ack(channel, offset + data.length);
    },
  });
  attachment.ack(1, received);
  await attachment.closed;
  if (received !== BYTES) throw new Error(`${received} bytes came instead of ${BYTES}`);
  return gbPerSecond(start);
}

async function input(client: AgentClient, id: string): Promise<number> {
  const start = performance.now();
  const block = Buffer.alloc(64 * 1024);
  const attachment = await client.attach(id, { onChunk() {} });
  for (let at = 0; at < BYTES; at += block.length) await attachment.write(block);
  await attachment.write(Buffer.alloc(0), { eof: true });
  await attachment.closed;
  return gbPerSecond(start);
}

async function bare(path: string): Promise<number> {
  const start = performance.now();
  const socket = await connect(path);
  let received = 0;
  socket.on('data', (data) => {
    received += data.length;
  });
  await once(socket, 'close');
  if (received !== BYTES) throw new Error(`${received} bytes came instead of ${BYTES}`);
  return gbPerSecond(start);
}

async function calls(client: AgentClient): Promise<number> {
  const start = performance.now();
  for (let call = 0; call < CALLS; call++) await client.batch([{ case: 'sync', value: {} }]);
  return ((performance.now() - start) * 1000) / CALLS;
}

async function peer(directory: string, kind: 'served' | 'raw'): Promise<{ path: string; worker: Worker }> {
  const path = join(directory, kind);
  const worker = new Worker(new URL('./lib/protocol-peer.ts', import.meta.url), {
    workerData: { path, kind, bytes: BYTES },
  });
  await once(worker, 'message');
  return { path, worker };
}

export default {
  summary: 'the agent protocol over a Unix socket: throughput both ways, time of a call',
  async run(report: Report): Promise<void> {
    const directory = await mkdtemp(join(tmpdir(), 'bench-protocol-'));
    const served = await peer(directory, 'served');
    const raw = await peer(directory, 'raw');
    try {
      await using client = await AgentClient.connect(await connect(served.path), {
        secret: new Uint8Array(16),
        timeoutMs: 5000,
      });
      const samples = { output: [0], input: [0], bare: [0], call: [0] };
      for (let round = 0; round <= ROUNDS; round++) {
        samples.output[round] = await output(client, `source/${round}`);
        samples.bare[round] = await bare(raw.path);
        samples.input[round] = await input(client, `sink/${round}`);
        samples.call[round] = await calls(client);
      }
      const note = 'both ends in Node, one thread each';
      // The first round compiles.
      const bareSamples = { name: 'bare socket', samples: samples.bare.slice(1) };
      const bar = { kind: 'at-least', value: 1 } as const;
      const bench = 'protocol';
      const unit = 'GB/s';
      report.add({
        bench,
        metric: 'output',
        unit,
        samples: samples.output.slice(1),
        peer: bareSamples,
        bar,
        note,
      });
      report.add({
        bench,
        metric: 'input',
        unit,
        samples: samples.input.slice(1),
        peer: bareSamples,
        bar,
        note,
      });
      report.add({ bench, metric: 'call', unit: 'µs', samples: samples.call.slice(1), note });
    } finally {
      await served.worker.terminate();
      await raw.worker.terminate();
      await rm(directory, { recursive: true });
    }
  },
};
