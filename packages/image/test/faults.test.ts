/** Death before every side effect: what is listed afterwards is true, nothing lies about, and it can be done again. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { dockerArchive, testImage } from './support/archives.ts';
import { openStore, operate } from './support/fault-child.ts';
import { DockerRegistry } from './support/registry.ts';
import { assertTidy, writeBoot } from './support/store.ts';
import { tar } from './support/tars.ts';

process.env.DOCKER_CONFIG = '/nonexistent';
const CHILD = new URL('./support/fault-child.ts', import.meta.url).pathname;
const image = testImage([[{ name: 'a', data: 'x'.repeat(200_000) }], [{ name: 'b' }]]);

let registry: DockerRegistry;
let template: string;
let archive: string;
let layer: string;
before(async () => {
  registry = await DockerRegistry.start();
  template = mkdtempSync(join(tmpdir(), 'arcbox-faults-'));
  await writeBoot(join(template, 'boot'));
  archive = join(template, 'archive.tar');
  layer = join(template, 'layer.tar');
  writeFileSync(archive, dockerArchive(image, [`${registry.host}/app:1`, 'app:1']));
  writeFileSync(layer, tar({ name: 'new' }));
  const { store, database } = openStore(template);
  await operate(store, 'load', archive);
  await store.push(`${registry.host}/app:1`);
  // What is pulled later is not here.
  await store.remove(`${registry.host}/app:1`);
  await store.remove('app:1');
  await store.close();
  database.close();
});
after(async () => {
  await registry[Symbol.asyncDispose]();
  rmSync(template, { recursive: true });
});

/** Does it in a process that dies at the point; then looks, and does it again here. */
async function dies(
  point: string,
  what: string,
  argument: string,
  prepare?: [string, string],
): Promise<void> {
  const home = mkdtempSync(join(tmpdir(), 'arcbox-faults-'));
  try {
    cpSync(template, home, { recursive: true });
    if (prepare !== undefined) {
      const { store, database } = openStore(home);
      await operate(store, ...prepare);
      await store.close();
      database.close();
    }
    const child = spawn(process.execPath, [...process.execArgv, CHILD, home, what, argument], {
      env: { ...process.env, ARCBOX_FAULT_POINT: point },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const [, signal] = (await once(child, 'exit')) as [number | null, string | null];
    assert.equal(signal, 'SIGKILL', `${what} did not come to ${point}`);
    await processesGone(home);
    const { store, database } = openStore(home);
    try {
      await store.collect();
      assertTidy(home, database);
      for (const { id, layers } of await store.list()) {
        assert.equal((await store.resolve(id)).layers.length, layers.length);
        for (const { path, sizeBytes } of layers) assert.equal(readFileSync(path).length, sizeBytes);
      }
      if (what !== 'remove' || (await store.list()).length > 1) await operate(store, what, argument);
      assertTidy(home, database);
    } finally {
      await store.close();
      database.close();
    }
  } finally {
    rmSync(home, { recursive: true });
  }
}

/** Children of a dead daemon see the end of their input, and go. */
async function processesGone(home: string): Promise<void> {
  const alive = (): boolean =>
    readdirSync('/proc').some((name) => {
      if (!/^\d+$/.test(name)) return false;
      try {
        return readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(home);
      } catch {
        return false;
      }
    });
  const deadline = Date.now() + 60_000;
  for (let delayMs = 1; alive(); delayMs = Math.min(delayMs * 2, 50)) {
    assert.ok(Date.now() < deadline, 'a process goes on');
    await new Promise((resolve) => setTimeout(resolve, delayMs));
  }
}

const COMMIT = [
  'image.commit.blob',
  'image.commit.blob:2',
  'image.commit.layer',
  'image.commit.sync',
  'image.commit.tables',
];

test('load', async () => {
  for (const point of ['image.load.ingest', 'image.load.ingest:2', 'image.load.commit', ...COMMIT]) {
    await dies(point, 'load', archive);
  }
});

test('pull', async () => {
  for (const point of ['image.pull.download', 'image.pull.extract', 'image.pull.commit', ...COMMIT]) {
    await dies(point, 'pull', `${registry.host}/app:1`);
  }
});

test('import', async () => {
  for (const point of [
    'image.layer.ingest',
    'image.layer.finish',
    'image.create.commit',
    'image.commit.tables',
  ]) {
    await dies(point, 'import', layer);
  }
});

test('push', async () => {
  for (const point of ['pack', 'blob', 'config', 'manifest', 'commit']) {
    const name = `${registry.host}/pushed-${point}:1`;
    await dies(`image.push.${point}`, 'push', name, ['tag', name]);
  }
});

test('tag and removal', async () => {
  await dies('image.tag', 'tag', 'other:1');
  for (const point of ['image.collect.blob', 'image.collect.layer']) {
    await dies(point, 'remove', 'new:1', ['import', layer]);
  }
});
