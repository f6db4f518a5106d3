/** Order statistics and bootstrap intervals; the resampling is seeded, so a report can be recomputed. */

const RESAMPLES = 2_000;
const SEED = 0x9e3779b9;

/** The nearest-rank percentile of `samples`, `p` in (0, 100]. */
export function percentile(samples: readonly number[], p: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const value = sorted[Math.max(0, Math.ceil((p / 100) * sorted.length) - 1)];
  if (value === undefined) throw new RangeError('percentile of no samples');
  return value;
}

export function median(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const high = sorted[Math.floor(sorted.length / 2)];
  const low = sorted[Math.ceil(sorted.length / 2) - 1];
  if (high === undefined || low === undefined) throw new RangeError('median of no samples');
  return (low + high) / 2;
}

/** xorshift32: small, and the same everywhere. */
function randomIndices(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

function resample(samples: readonly number[], index: (below: number) => number): number[] {
  return samples.map(() => samples[index(samples.length)] ?? Number.NaN);
}

/** The 95 % bootstrap interval of the median of `samples`, or of its ratio to the peer's median. */
export function interval95(samples: readonly number[], peer?: readonly number[]): readonly [number, number] {
  const index = randomIndices(SEED);
  const estimates: number[] = [];
  for (let i = 0; i < RESAMPLES; i += 1) {
    const own = median(resample(samples, index));
    estimates.push(peer === undefined ? own : own / median(resample(peer, index)));
  }
  return [percentile(estimates, 2.5), percentile(estimates, 97.5)];
}
