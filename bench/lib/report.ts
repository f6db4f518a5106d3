/**
 * One metric, one JSON object on one line of standard output; a table row for people on standard
 * error. A bar is missed only when the 95 % interval excludes it: times here are noisy.
 */
import { execFileSync } from 'node:child_process';
import os from 'node:os';
import { interval95, median, percentile } from './statistics.ts';

export interface Metric {
  readonly bench: string;
  readonly metric: string;
  readonly unit: string;
  readonly samples: readonly number[];
  /** Measured in the same run, interleaved. */
  readonly peer?: { readonly name: string; readonly samples: readonly number[] };
  /** `at-most`/`at-least` on the median, `ratio-…` on the ratio to the peer's median. */
  readonly bar?: Bar;
  /** What a reader must know to understand the number. */
  readonly note?: string;
}

export interface Bar {
  readonly kind: 'at-most' | 'at-least' | 'ratio-at-most' | 'ratio-at-least';
  readonly value: number;
}

export interface MetricRecord {
  readonly bench: string;
  readonly metric: string;
  readonly unit: string;
  readonly n: number;
  readonly p50: number;
  readonly p95: number;
  readonly peer?: string;
  readonly peer_p50?: number;
  readonly ratio?: number;
  /** Of the ratio when the bar is on it, otherwise of the median. */
  readonly ci95: readonly [number, number];
  readonly bar?: number;
  readonly bar_kind?: Bar['kind'];
  readonly ok: boolean;
  readonly note?: string;
  readonly git: string;
  readonly host: string;
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}

export function holds(bar: Bar, ci95: readonly [number, number]): boolean {
  return bar.kind.endsWith('at-most') ? ci95[0] <= bar.value : ci95[1] >= bar.value;
}

export function recordOf(metric: Metric, git: string, host: string): MetricRecord {
  const { peer, bar, note } = metric;
  const p50 = median(metric.samples);
  const onRatio = bar?.kind.startsWith('ratio') ?? false;
  const ci95 = interval95(metric.samples, onRatio ? peer?.samples : undefined);
  const peerP50 = peer === undefined ? undefined : median(peer.samples);
  return {
    bench: metric.bench,
    metric: metric.metric,
    unit: metric.unit,
    n: metric.samples.length,
    p50: round(p50),
    p95: round(percentile(metric.samples, 95)),
    ...(peer !== undefined && peerP50 !== undefined
      ? { peer: peer.name, peer_p50: round(peerP50), ratio: round(p50 / peerP50) }
      : {}),
    ci95: [round(ci95[0]), round(ci95[1])],
    ...(bar === undefined ? {} : { bar: bar.value, bar_kind: bar.kind }),
    ok: bar === undefined || holds(bar, ci95),
    ...(note === undefined ? {} : { note }),
    git,
    host,
  };
}

function revision(): string {
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: import.meta.dirname, encoding: 'utf8' }).trim();
  return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain') === '' ? '' : '-dirty');
}

function describeHost(): string {
  const cpus = os.cpus();
  return `${cpus.length}x ${cpus[0]?.model ?? 'unknown'}, ${Math.round(os.totalmem() / 2 ** 30)} GiB, Linux ${os.release()}`;
}

export class Report {
  readonly #git = revision();
  readonly #host = describeHost();
  #missed = 0;

  get missed(): number {
    return this.#missed;
  }

  add(metric: Metric): void {
    const record = recordOf(metric, this.#git, this.#host);
    if (!record.ok) this.#missed += 1;
    process.stdout.write(`${JSON.stringify(record)}\n`);
    const peer =
      record.peer === undefined ? '' : `; ${record.peer} ${record.peer_p50}, ratio ${record.ratio}`;
    const bar =
      metric.bar === undefined
        ? ''
        : `; bar ${metric.bar.kind.replaceAll('-', ' ')} ${metric.bar.value}: ${record.ok ? 'met' : 'MISSED'}`;
    process.stderr.write(
      `${record.bench} ${record.metric}: p50 ${record.p50} ${record.unit}, p95 ${record.p95}, n ${record.n}, ` +
        `95 % ${record.ci95[0]}–${record.ci95[1]}${peer}${bar}\n`,
    );
  }
}
