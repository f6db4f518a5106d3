/** Asking before something is removed. */
import { createInterface } from 'node:readline';
import { CliError } from './errors.ts';
import { put } from './output.ts';

/**
 * Whether to go on: without `force` standard input is asked, be it a terminal or `yes |`, as docker does. Throws `CliError`
 * when it ends without an answer, so that a script that forgot `--force` is told.
 */
export async function agreed(force: boolean | undefined, what: readonly string[]): Promise<boolean> {
  if (force === true) return true;
  const lines = createInterface({ input: process.stdin });
  try {
    put(process.stdout, `This removes:\n${what.map((line) => `  - ${line}\n`).join('')}Go on? [y/N] `);
    for await (const line of lines) return /^y(es)?$/i.test(line.trim());
  } finally {
    lines.close();
  }
  put(process.stdout, '\n');
  throw new CliError('nobody answered, so nothing was removed; --force asks nothing', 1);
}
