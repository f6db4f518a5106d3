/** Builds the program that the network benchmarks run in a guest. */
import { execFileSync } from 'node:child_process';
import path from 'node:path';

/** Static, so that it runs wherever it is put. */
export function buildNetProbe(output: string): void {
  const source = path.join(import.meta.dirname, '..', 'native', 'net-probe.c');
  execFileSync('cc', ['-static', '-O2', '-s', '-Wall', '-Werror', '-o', output, source]);
}
