/**
 * From what the compiler emitted to packages that npm can pack: Node strips no types below node_modules, so what is
 * installed is JavaScript. `pack.ts COMPILED STAGE`; called by scripts/pack.
 */
import { cpSync, existsSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly exports: Readonly<Record<string, string>>;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly [key: string]: unknown;
}

const NODE_MIN = '>=26';
const root = path.join(import.meta.dirname, '..');
const [compiled = '', stage = ''] = process.argv.slice(2);
const { optionalDependencies } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as {
  optionalDependencies: Record<string, string>;
};

rmSync(stage, { recursive: true, force: true });
for (const name of globSync('*', { cwd: path.join(root, 'packages') })) {
  const from = path.join(compiled, name, 'src');
  if (!existsSync(from)) throw new Error(`${from} was not compiled`);
  const to = path.join(stage, name);
  mkdirSync(to, { recursive: true });
  cpSync(from, path.join(to, 'dist'), { recursive: true });
  for (const file of globSync('dist/**/*.{js,d.ts}', { cwd: to })) rewrite(path.join(to, file));
  for (const licence of ['LICENSE-MIT', 'LICENSE-APACHE'])
    cpSync(path.join(root, licence), path.join(to, licence));
  const manifest = JSON.parse(
    readFileSync(path.join(root, 'packages', name, 'package.json'), 'utf8'),
  ) as Manifest;
  writeFileSync(path.join(to, 'package.json'), `${JSON.stringify(published(manifest), undefined, 2)}\n`);
  if (name === 'cli')
    cpSync(path.join(root, 'packaging', 'arcbox'), path.join(to, 'bin', 'arcbox'), { recursive: true });
}

/** What the compiler leaves: names of modules in strings, and relative imports in declarations. */
function rewrite(file: string): void {
  const text = readFileSync(file, 'utf8');
  const done = text
    .replace(/new URL\('(\.\.?\/[^']+)\.ts', import\.meta\.url\)/g, "new URL('$1.js', import.meta.url)")
    .replace(/((?:from|import)\s*\(?\s*['"]\.\.?\/[^'"]+)\.ts(['"])/g, '$1.js$2');
  if (done !== text) writeFileSync(file, done);
}

function published(manifest: Manifest): object {
  const exports = Object.fromEntries(
    Object.entries(manifest.exports).map(([key, source]) => {
      const target = source.replace('./src/', './dist/').replace(/\.ts$/, '');
      return [key, { types: `${target}.d.ts`, default: `${target}.js` }];
    }),
  );
  const { dependencies, ...rest } = manifest;
  return {
    ...rest,
    exports,
    files: ['dist', 'bin', 'LICENSE-*'],
    engines: { node: NODE_MIN },
    dependencies,
    // The command brings the Node.js that it was made for; the libraries run on whatever is there.
    ...(manifest.name === '@arcbox/cli'
      ? { bin: { arcbox: 'bin/arcbox' }, engines: {}, optionalDependencies }
      : {}),
  };
}
