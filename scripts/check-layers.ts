/**
 * The dependency rule: arrows between packages point downwards only.
 *
 * Reads every import of every package and fails on one that points sideways or up, that is not
 * declared in the package's `package.json`, that reaches into another package's files, or that
 * takes `node:ffi` outside `sys`. Circles inside a package are Biome's `noImportCycles`. `check-layers.ts [CHECKOUT]`.
 */
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** From the bottom up; a package may import from the rows before its own. */
const LAYERS: readonly (readonly string[])[] = [
  ['sys', 'protocol'],
  ['vm', 'image', 'net'],
  ['engine'],
  ['api'],
  ['cli'],
];

const IMPORT = /(?:\bfrom\s*|\bimport\s*\(\s*|^\s*import\s+)'([^']+)'/gm;

const root = process.argv[2] ?? path.join(import.meta.dirname, '..');
const layerOf = new Map(LAYERS.flatMap((names, layer) => names.map((name) => [name, layer] as const)));

function declaredDependencies(packageName: string): Set<string> {
  const manifest: unknown = JSON.parse(
    readFileSync(path.join(root, 'packages', packageName, 'package.json'), 'utf8'),
  );
  const { dependencies = {} } = manifest as { dependencies?: Record<string, string> };
  return new Set(Object.keys(dependencies));
}

function problemOf(from: string, file: string, specifier: string, declared: Set<string>): string | undefined {
  if (specifier === 'node:ffi') return from === 'sys' ? undefined : 'only sys imports node:ffi';
  if (specifier.startsWith('node:')) return undefined;
  if (specifier.startsWith('.')) {
    const target = path.relative(
      path.join(root, 'packages', from),
      path.resolve(path.dirname(file), specifier),
    );
    return target.startsWith('..') ? 'reaches out of its package' : undefined;
  }
  const [scope, name] = specifier.split('/');
  const dependency = specifier.startsWith('@') ? `${scope}/${name}` : (scope ?? specifier);
  if (!declared.has(dependency)) return `${dependency} is not a dependency in its package.json`;
  if (scope !== '@arcbox' || name === undefined) return undefined;
  const own = layerOf.get(from) ?? -1;
  const other = layerOf.get(name);
  if (other === undefined) return `${dependency} is in no layer`;
  return other < own ? undefined : `${dependency} is not below ${from}`;
}

const problems: string[] = [];
for (const name of globSync('*', { cwd: path.join(root, 'packages') })) {
  if (!layerOf.has(name)) problems.push(`packages/${name} is in no layer: add it to scripts/check-layers.ts`);
  const declared = declaredDependencies(name);
  for (const file of globSync('src/**/*.ts', { cwd: path.join(root, 'packages', name) })) {
    const full = path.join(root, 'packages', name, file);
    for (const match of readFileSync(full, 'utf8').matchAll(IMPORT)) {
      const specifier = match[1] ?? '';
      const problem = problemOf(name, full, specifier, declared);
      if (problem !== undefined) problems.push(`packages/${name}/${file}: '${specifier}': ${problem}`);
    }
  }
}
if (problems.length > 0) {
  process.stderr.write(`${problems.join('\n')}\n`);
  process.exitCode = 1;
}
