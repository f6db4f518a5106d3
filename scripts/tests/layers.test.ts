/** The dependency rule fails on an import that goes up, sideways or in a circle. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

let checkout: string;
beforeEach(() => {
  checkout = mkdtempSync(join(tmpdir(), 'arcbox-layers-'));
});
afterEach(() => rmSync(checkout, { recursive: true }));

/** Makes a package of these files, which declares every other one. */
function make(name: string, files: Readonly<Record<string, string>>): void {
  const directory = join(checkout, 'packages', name);
  mkdirSync(join(directory, 'src'), { recursive: true });
  const dependencies = Object.fromEntries(
    ['sys', 'vm', 'image', 'engine'].map((other) => [`@arcbox/${other}`, '*']),
  );
  writeFileSync(join(directory, 'package.json'), JSON.stringify({ dependencies }));
  for (const [file, text] of Object.entries(files)) writeFileSync(join(directory, 'src', file), text);
}

function outcome(program: string, args: readonly string[]): Promise<{ code: unknown; output: string }> {
  return new Promise((resolve) => {
    execFile(program, args, { cwd: checkout }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : error.code, output: stdout + stderr }),
    );
  });
}
const layers = (): Promise<{ code: unknown; output: string }> =>
  outcome(process.execPath, [join(root, 'scripts', 'check-layers.ts'), checkout]);

test('imports downwards are as they should be', async () => {
  make('sys', { 'index.ts': `import { open } from 'node:ffi';\nexport const a = open;\n` });
  make('vm', { 'index.ts': `export { a } from '@arcbox/sys';\n` });
  make('engine', {
    'index.ts': `import { a } from '@arcbox/vm';\nexport const b = await import('@arcbox/sys');\n`,
  });
  assert.deepEqual(await layers(), { code: 0, output: '' });
});

test('an import upwards fails', async () => {
  make('engine', { 'index.ts': 'export const a = 1;\n' });
  make('vm', { 'index.ts': `export { a } from '@arcbox/engine';\n` });
  const { code, output } = await layers();
  assert.equal(code, 1);
  assert.equal(output, `packages/vm/src/index.ts: '@arcbox/engine': @arcbox/engine is not below vm\n`);
});

test('a circle of two packages fails, whichever way it is drawn', async () => {
  make('vm', { 'index.ts': `import '@arcbox/image';\n` });
  make('image', { 'index.ts': `export const vm = import('@arcbox/vm');\n` });
  const { code, output } = await layers();
  assert.equal(code, 1);
  assert.match(output, /@arcbox\/image is not below vm/);
  assert.match(output, /@arcbox\/vm is not below image/);
});

test('a package that nothing places, one that is not declared, and files of another one fail', async () => {
  make('vm', { 'index.ts': `import 'undeclared';\nimport '../../sys/src/index.ts';\nimport 'node:ffi';\n` });
  make('new', { 'index.ts': '' });
  const { code, output } = await layers();
  assert.equal(code, 1);
  assert.match(output, /undeclared is not a dependency/);
  assert.match(output, /reaches out of its package/);
  assert.match(output, /only sys imports node:ffi/);
  assert.match(output, /packages\/new is in no layer/);
});

test('a circle of files inside a package fails the lint', async () => {
  cpSync(join(root, 'biome.json'), join(checkout, 'biome.json'));
  make('vm', {
    'a.ts': `import { b } from './b.ts';\n\nexport const a = (): number => b();\n`,
    'b.ts': `import { a } from './a.ts';\n\nexport const b = (): number => a();\n`,
  });
  const biome = join(root, 'node_modules', '.bin', 'biome');
  const { code, output } = await outcome(biome, ['check', '--vcs-enabled=false', 'packages/vm/src']);
  assert.equal(code, 1, output);
  assert.match(output, /noImportCycles/);
});
