/** `npm run -s bench -- NAME…`: JSON lines on standard output, words for people on standard error. */
import { globSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { Report } from './report.ts';

/** What a file `bench/NAME.ts` exports. */
export interface Benchmark {
  /** One line for the listing. */
  readonly summary: string;
  run(report: Report): Promise<void>;
}

const directory = path.join(import.meta.dirname, '..');
const known = globSync('*.ts', { cwd: directory })
  .map((file) => path.basename(file, '.ts'))
  .sort();

async function load(name: string): Promise<Benchmark> {
  const module: unknown = await import(pathToFileURL(path.join(directory, `${name}.ts`)).href);
  return (module as { default: Benchmark }).default;
}

const names = process.argv.slice(2);
const unknown = names.filter((name) => !known.includes(name));
if (names.length === 0 || unknown.length > 0) {
  if (unknown.length > 0) process.stderr.write(`no benchmark is called ${unknown.join(', ')}\n`);
  process.stderr.write('usage: npm run -s bench -- NAME…\n');
  for (const name of known) process.stderr.write(`  ${name.padEnd(12)} ${(await load(name)).summary}\n`);
  process.exit(2);
}
// When nobody reads any further (`| head`) the benchmark goes on all the same, to its end, where it takes its daemon with it.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});
const report = new Report();
for (const name of names) await (await load(name)).run(report);
process.exit(report.missed > 0 ? 1 : 0);
