import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, globSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
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

// What others made is in a cache that set-up has filled: nothing is fetched.
const OFFLINE = ['--offline', '--cache', join(root, 'build', 'npm', 'cache')];
const QUIET = ['--no-audit', '--no-fund', '--logs-max=0', '--loglevel=error'];

const directory = mkdtempSync(join(tmpdir(), 'arcbox-pack-'));
const project = join(directory, 'project');
const prefix = join(directory, 'prefix');
let tarballs: string[];
before(async () => {
  await run('sh', [join(root, 'scripts', 'pack'), join(directory, 'packed')]);
  tarballs = globSync(join(directory, 'packed', '*.tgz'));
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }');
  await Promise.all([
    run('npm', ['install', ...OFFLINE, ...QUIET, ...tarballs], { cwd: project }),
    run('npm', ['install', '--global', '--prefix', prefix, ...OFFLINE, ...QUIET, ...tarballs]),
  ]);
});
after(() => rmSync(directory, { recursive: true }));

test('the packed packages work in an empty project: the libraries and their types', async () => {
  assert.equal(tarballs.length, globSync(join(root, 'packages', '*')).length);
  assert.equal(
    globSync(join(project, 'node_modules/@arcbox/*/**/*.ts')).every((file) => file.endsWith('.d.ts')),
    true,
  );
  const { stdout } = await run(join(project, 'node_modules', '.bin', 'arcbox'), ['version']);
  assert.match(stdout, /^arcbox \d+\.\d+\.\d+ \(Node\.js v26/);

  writeFileSync(join(project, 'uses.mjs'), USES);
  const node = globSync(join(project, 'node_modules/node-*/bin/node'))[0] ?? '';
  assert.equal((await run(node, [join(project, 'uses.mjs')])).stdout, '3\n');
  writeFileSync(join(project, 'typed.ts'), TYPED);
  const options = ['--strict', '--module', 'nodenext', '--target', 'esnext', '--noEmit', '--skipLibCheck'];
  const types = ['--types', 'node', '--typeRoots', join(root, 'node_modules', '@types')];
  await run(join(root, 'node_modules', '.bin', 'tsc'), [...options, ...types, 'typed.ts'], { cwd: project });
});

// As packaging/README.md says, in a home of its own.
test('the command, installed with npm install --global, runs a container from the unpacked boot assets', async () => {
  const home = join(directory, 'home');
  const share = join(home, '.local', 'share', 'arcbox');
  mkdirSync(share, { recursive: true });
  const archives = globSync(join(directory, 'packed', 'arcbox-boot-*.tar.zst'));
  assert.equal(archives.length, 1);
  await run('tar', ['--zstd', '-xf', archives[0] ?? '', '-C', share]);

  // Nothing of this checkout, or of the machine's own ArcBox, is found by accident.
  const env = { PATH: process.env.PATH, HOME: home, ARCBOX_MACHINE_MEMORY: '256m' };
  const arcbox = async (...args: string[]): Promise<string> =>
    (await run(join(prefix, 'bin', 'arcbox'), args, { env })).stdout;
  try {
    assert.ok((await arcbox('doctor')).includes(join(share, 'boot')));
    assert.equal(await arcbox('run', '--rm', 'busybox', 'echo', 'packed'), 'packed\n');
    assert.match(await arcbox('daemon', 'stop'), /has stopped/);
  } finally {
    if (existsSync(join(home, '.arcbox', 'run', 'daemon.pid'))) await arcbox('daemon', 'stop');
  }
});
