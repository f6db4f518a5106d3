/**
 * A container with a thousand connections at once to the host, a megabyte there and back on each; and one that gets a
 * gigabyte and sends it back. What is watched is the daemon, which has the network stack: the other ends are in
 * processes of their own.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { ArcBox } from './command.ts';
import { buildNetProbe } from './net-probe.ts';
import type { Report } from './report.ts';

const MB = 1e6;
const CONNECTIONS = 1000;
const BYTES = 1024 * 1024;
const BULK_BYTES = 1024 * 1024 * 1024;
const SAMPLE_MS = 50;
const SETTLE_MS = 5000;
const WARM_UP_CONNECTIONS = 1;
const ROUNDS = 2;
const ECHO_LIMIT_MS = 300_000;
const IMAGE = 'net-probe';
const GATEWAY = '172.20.0.1';

export async function inContainers(report: Report): Promise<void> {
  await using arcbox = await ArcBox.create({ ARCBOX_MACHINE_MEMORY: '1g' });
  await importProbe(arcbox);
  await manyConnections(report, arcbox);
  await bulk(report, arcbox);
}

async function manyConnections(report: Report, arcbox: ArcBox): Promise<void> {
  // Whatever is there once, for the first container and the first connection, is not what a connection costs.
  await echo(arcbox, WARM_UP_CONNECTIONS, BYTES);
  const daemon = await arcbox.daemonPid();
  await sleep(SETTLE_MS);
  // What the first thousand take, later ones find there: the most of all rounds counts, against before the first.
  const before = await pssBytes(daemon);
  let most = before;
  const intact: number[] = [];
  let seconds = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const over = new AbortController();
    const watching = (async () => {
      while (!over.signal.aborted) {
        most = Math.max(most, await pssBytes(daemon));
        await sleep(SAMPLE_MS);
      }
    })();
    const result = await echo(arcbox, CONNECTIONS, BYTES).finally(() => over.abort());
    await watching;
    intact.push(result.intact);
    seconds = result.seconds;
  }
  const note = `a container, ${CONNECTIONS} connections at once to a service on the host's loopback, 1 MiB there and back on each`;
  report.add({
    bench: 'net',
    metric: 'connections_1000_memory',
    unit: 'MB',
    samples: [(most - before) / MB],
    bar: { kind: 'at-most', value: 64 },
    note: `${note}; the most that the daemon's PSS was above what it was before the first of ${ROUNDS} rounds; the last round took ${seconds.toFixed(1)} s`,
  });
  report.add({
    bench: 'net',
    metric: 'connections_1000_intact',
    unit: 'connections',
    samples: intact,
    bar: { kind: 'at-least', value: CONNECTIONS },
    note: `${note}; SHA-256 of what came back`,
  });
}

async function bulk(report: Report, arcbox: ArcBox): Promise<void> {
  const { intact, seconds } = await echo(arcbox, 1, BULK_BYTES);
  const note =
    '1 GiB from the host’s loopback to a container and back on one connection, SHA-256 of what came back';
  report.add({
    bench: 'net',
    metric: 'bulk_1gib_intact',
    unit: 'connections',
    samples: [intact],
    bar: { kind: 'at-least', value: 1 },
    note,
  });
  report.add({ bench: 'net', metric: 'bulk_1gib', unit: 's', samples: [seconds], note });
}

/** One of an image that has nothing but the program. */
async function importProbe(arcbox: ArcBox): Promise<void> {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'arcbox-bench-probe-'));
  try {
    const root = path.join(directory, 'root');
    mkdirSync(root);
    buildNetProbe(path.join(root, 'net-probe'));
    const archive = path.join(directory, 'root.tar');
    execFileSync('tar', ['--create', '--file', archive, '-C', root, '.']);
    await arcbox.run('import', archive, IMAGE);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function echo(
  arcbox: ArcBox,
  count: number,
  bytes: number,
): Promise<{ readonly intact: number; readonly seconds: number }> {
  const peer = spawn(
    process.execPath,
    [
      '--disable-warning=ExperimentalWarning',
      path.join(import.meta.dirname, 'swarm-peer.ts'),
      String(count),
      String(bytes),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const exit = once(peer, 'exit');
  try {
    const lines = createInterface({ input: peer.stdout })[Symbol.asyncIterator]();
    const port = String((await lines.next()).value);
    const limits = ['--ulimit', `nofile=${4 * CONNECTIONS}`];
    const probe = ['/net-probe', 'echo', GATEWAY, port, String(count)];
    const run = arcbox.start(['run', '--rm', ...limits, IMAGE, ...probe], { timeout: ECHO_LIMIT_MS });
    const [code, signal] = (await once(run, 'exit')) as [number | null, string | null];
    if (code !== 0) throw new Error(`the container with ${count} connections ended with ${code ?? signal}`);
    return JSON.parse(String((await lines.next()).value)) as { intact: number; seconds: number };
  } finally {
    peer.kill();
    await exit;
  }
}

async function pssBytes(pid: number): Promise<number> {
  const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Pss:\s+(\d+) kB$/m.exec(rollup)?.[1] ?? Number.NaN) * 1024;
}
