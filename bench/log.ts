/**
 * A container's output on its way to the disk: our binary records, against lines of JSON in the form of Docker's
 * json-file driver, both written by one process, acknowledged once written.
 */
import { mkdtemp, open, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { ContainerLog } from '../packages/engine/src/log/container-log.ts';
import type { Benchmark } from './lib/main.ts';

const RUNS = 10;
const MB = 1e6;
const CHUNK_BYTES = 64 * 1024;
const CHUNKS = 1024;
const LINE = `${'the quick brown fox jumps over the lazy dog; '.repeat(2)}\n`;
const NEWLINE = 10;

const log: Benchmark = {
  summary: "a container's log: binary records against JSON lines, MB/s",
  async run(report) {
    const directory = await mkdtemp(path.join(os.tmpdir(), 'arcbox-log-'));
    const chunk = Buffer.from(LINE.repeat(Math.ceil(CHUNK_BYTES / LINE.length))).subarray(0, CHUNK_BYTES);
    const records: number[] = [];
    const json: number[] = [];
    try {
      for (let run = 0; run < RUNS; run += 1) {
        records.push(await writeRecords(path.join(directory, `r${run}`), chunk));
        json.push(await writeJson(path.join(directory, `j${run}`), chunk));
      }
    } finally {
      await rm(directory, { recursive: true });
    }
    report.add({
      bench: 'log',
      metric: 'written',
      unit: 'MB/s',
      samples: records,
      peer: { name: 'JSON lines', samples: json },
      note: 'payload; text lines of 91 bytes, chunks of 64 KiB',
    });
  },
};

async function writeRecords(directory: string, chunk: Buffer): Promise<number> {
  await using target = await ContainerLog.open(directory, { segments: 100 });
  target.beginRun(1);
  const began = performance.now();
  for (let n = 0; n < CHUNKS; n += 1) {
    target.append(1, n * chunk.length, chunk, false);
    if (n % 8 === 7) await target.flushed();
  }
  await target.flushed();
  return rate(chunk, began);
}

async function writeJson(file: string, chunk: Buffer): Promise<number> {
  await using target = await open(file, 'w');
  const began = performance.now();
  let rest: Buffer = Buffer.alloc(0);
  for (let n = 0; n < CHUNKS; n += 1) {
    const data = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const time = new Date().toISOString();
    let out = '';
    let at = 0;
    for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE, at)) {
      out += `${JSON.stringify({ log: data.toString('utf8', at, end + 1), stream: 'stdout', time })}\n`;
      at = end + 1;
    }
    rest = data.subarray(at);
    await target.write(out);
  }
  return rate(chunk, began);
}

function rate(chunk: Buffer, began: number): number {
  return (chunk.length * CHUNKS) / MB / ((performance.now() - began) / 1000);
}

export default log;
