import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));
const TYPED = `
import { type Config, loadConfig } from '@arcbox/engine';
import { parseReference } from '@arcbox/image';
import { callStream, type DaemonControl } from '@arcbox/api/client';
export const config: Promise<Config> = loadConfig({ environment: {}, file: '/nowhere/config.toml' });
export const name: string = parseReference('busybox').path;
export type Event = Awaited<ReturnType<ReturnType<typeof callStream<'SystemService/Events'>>['next']>>;
export declare const daemon: DaemonControl;
// @ts-expect-error: types are there, so this is seen.
export const wrong: number = parseReference('busybox').path;
`;
const USES = `
import { loadConfig } from '@arcbox/engine';
const { machine } = await loadConfig({ environment: { ARCBOX_MACHINE_CPUS: '3' }, file: '/nowhere/config.toml' });
console.log(machine.cpus);
`;

test('the packed packages work in an empty project: the command, the libraries, and their types', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'arcbox-pack-'));
  const home = join(directory, 'home');
  // Nothing of this checkout is found by accident but the boot assets, which are named.
  const environment = {
    PATH: process.env.PATH,
    HOME: process.env.HOME,
    ARCBOX_HOME: home,
    ARCBOX_BOOT_DIR: process.env.ARCBOX_BOOT_DIR ?? join(root, 'build', 'boot'),
    ARCBOX_MACHINE_MEMORY: '256m',
  };
  const arcbox = join(directory, 'node_modules', '.bin', 'arcbox');
  const command = async (...args: string[]): Promise<string> =>
    (await run(arcbox, args, { env: environment })).stdout;
  try {
    await run('sh', [join(root, 'scripts', 'pack'), join(directory, 'packed'), 'npm']);
    writeFileSync(join(directory, 'package.json'), '{ "private": true, "type": "module" }');
    const tarballs = globSync(join(directory, 'packed', '*.tgz'));
    assert.equal(tarballs.length, globSync(join(root, 'packages', '*')).length);
    await run('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', ...tarballs], {
      cwd: directory,
    });
    assert.equal(
      globSync(join(directory, 'node_modules/@arcbox/*/**/*.ts')).every((file) => file.endsWith('.d.ts')),
      true,
    );
    assert.match(await command('version'), /^arcbox \d+\.\d+\.\d+ \(Node\.js v26/);
    assert.equal(await command('run', '--rm', 'busybox', 'echo', 'packed'), 'packed\n');
    assert.match(await command('daemon', 'stop'), /has stopped/);

    writeFileSync(join(directory, 'uses.mjs'), USES);
    const node = globSync(join(directory, 'node_modules/node-*/bin/node'))[0] ?? '';
    assert.equal((await run(node, [join(directory, 'uses.mjs')])).stdout, '3\n');
    writeFileSync(join(directory, 'typed.ts'), TYPED);
    const options = ['--strict', '--module', 'nodenext', '--target', 'esnext', '--noEmit', '--skipLibCheck'];
    const types = ['--types', 'node', '--typeRoots', join(root, 'node_modules', '@types')];
    await run(join(root, 'node_modules', '.bin', 'tsc'), [...options, ...types, 'typed.ts'], {
      cwd: directory,
    });
  } finally {
    if (existsSync(join(home, 'run', 'daemon.pid'))) await command('daemon', 'stop');
    rmSync(directory, { recursive: true });
  }
});
