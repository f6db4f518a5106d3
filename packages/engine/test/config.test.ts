import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { HostLayout, loadConfig } from '../src/index.ts';

async function withDirectory(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'arcbox-config-'));
  try {
    await run(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

const CONFIG_ERROR = { code: 'ERR_ARCBOX_CONFIG' };

test('the first place that says something counts: the flag, the variable, the file', async () => {
  await withDirectory(async (directory) => {
    const file = join(directory, 'config.toml');
    await writeFile(file, 'orphan_grace_s = 1\n[machine]\ncpus = 1\nmemory = "1g"\n');
    const { machine, orphanGraceS } = await loadConfig({
      flags: { 'machine.cpus': '3' },
      environment: { ARCBOX_MACHINE_CPUS: '2', ARCBOX_ORPHAN_GRACE_S: 'infinite' },
      file,
    });
    assert.deepEqual(
      { machine, orphanGraceS },
      { machine: { cpus: 3, memoryMib: 1024, diskBytes: 64 * 1024 ** 3, idleS: 60 }, orphanGraceS: Infinity },
    );
  });
});

test('what is misspelt or no such value is refused, whatever it is', async () => {
  await withDirectory(async (directory) => {
    const file = join(directory, 'config.toml');
    for (const text of [
      'machine.cpu = 1',
      'machine.cpus = 0',
      'machine.cpus = "x"',
      'machine.cpus = 1.5',
      'machine.cpus = 2026-01-01',
      'machine.cpus = [1]',
      'machine.memory = 1024',
      'machine.memory = "1k"',
      'when = 2026-01-01',
      '= 1',
    ]) {
      await writeFile(file, `${text}\n`);
      await assert.rejects(loadConfig({ environment: {}, file }), CONFIG_ERROR, text);
    }
  });
});

test("the data directory is the owner's alone; one that others use is left as it is", async () => {
  await withDirectory(async (directory) => {
    const layout = new HostLayout(join(directory, 'new', 'home'));
    await layout.prepare();
    await chmod(layout.home, 0o755);
    await layout.prepare();
    for (const path of [layout.home, layout.run, layout.logs]) {
      assert.equal((await stat(path)).mode & 0o777, 0o700, path);
    }
    await chmod(layout.home, 0o1777);
    await assert.rejects(layout.prepare(), CONFIG_ERROR);
    assert.equal((await stat(layout.home)).mode & 0o7777, 0o1777);
  });
  if (process.getuid?.() !== 0) await assert.rejects(new HostLayout('/var').prepare(), CONFIG_ERROR);
  assert.throws(() => new HostLayout(`/${'x'.repeat(100)}`), CONFIG_ERROR);
});

test('registries: mirrors and hosts without TLS, as words or as a list', async () => {
  const load = (environment: NodeJS.ProcessEnv) => loadConfig({ environment, file: '/nonexistent' });
  assert.deepEqual((await load({})).registries, { mirrors: [], insecure: [] });
  const { registries } = await load({
    ARCBOX_REGISTRY_MIRRORS: 'https://a.example.com, http://127.0.0.1:5000/',
    ARCBOX_REGISTRY_INSECURE: 'b.example.com:5000',
  });
  assert.deepEqual(registries, {
    mirrors: ['https://a.example.com', 'http://127.0.0.1:5000/'],
    insecure: ['b.example.com:5000'],
  });
  await assert.rejects(load({ ARCBOX_REGISTRY_MIRRORS: 'a.example.com' }), /URLs such as/);
});
