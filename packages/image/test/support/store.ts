/** An image store in directories of its own, which leaves nothing behind. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { sha256 } from '../../src/digest.ts';
import { IMAGE_TABLES, ImageStore, type ImageStoreOptions, type RegistryConfig } from '../../src/index.ts';
import { tar } from './tars.ts';

export interface TestStore {
  readonly store: ImageStore;
  readonly boot: string;
  readonly home: string;
  readonly database: DatabaseSync;
  /** IDs of containers that count as running. */
  readonly running: Set<string>;
  /** A store on the same directories, after the first one was closed. */
  reopen(): ImageStore;
}

/** Boot assets with an embedded image whose one file has the text. */
export async function writeBoot(directory: string, text = 'hello'): Promise<void> {
  await mkdir(directory, { recursive: true });
  const layer = tar({ name: 'bin/sh', data: text, mode: 0o755 });
  const config = {
    architecture: 'amd64',
    os: 'linux',
    config: { Cmd: ['sh'], Env: ['PATH=/bin'], Labels: { a: 'b' } },
    rootfs: { type: 'layers', diff_ids: [sha256(layer)] },
    history: [{ created: '1970-01-01T00:00:00Z', created_by: 'test' }],
  };
  writeFileSync(join(directory, 'busybox.json'), JSON.stringify(config));
  rmSync(join(directory, 'busybox.tar'), { force: true });
  writeFileSync(join(directory, 'busybox.tar'), layer);
  rmSync(join(directory, 'busybox.squashfs'), { force: true });
  execFileSync('sqfstar', ['-quiet', '-no-progress', join(directory, 'busybox.squashfs')], { input: layer });
}

/** `embeddedLater`: the store finds no embedded image when it opens. */
export async function withStore(
  run: (test: TestStore) => Promise<void>,
  options: {
    embeddedLater?: boolean;
    registries?: RegistryConfig;
    onEvent?: ImageStoreOptions['onEvent'];
    limits?: ImageStoreOptions['limits'];
  } = {},
): Promise<void> {
  const home = mkdtempSync(join(tmpdir(), 'arcbox-image-'));
  const boot = join(home, 'boot');
  const database = new DatabaseSync(':memory:');
  database.exec(IMAGE_TABLES);
  const running = new Set<string>();
  const stores: ImageStore[] = [];
  const reopen = (): ImageStore => {
    const store = new ImageStore({
      database,
      directory: join(home, 'content'),
      bootDirectory: boot,
      isRunning: (id) => running.has(id),
      ...(options.onEvent === undefined ? {} : { onEvent: options.onEvent }),
      ...(options.limits === undefined ? {} : { limits: options.limits }),
      ...(options.registries === undefined ? {} : { registries: options.registries }),
    });
    stores.push(store);
    return store;
  };
  try {
    if (options.embeddedLater !== true) await writeBoot(boot);
    const store = reopen();
    await store.collect();
    if (options.embeddedLater === true) await writeBoot(boot);
    await run({ store, boot, home, database, running, reopen });
    await Promise.all(stores.map((each) => each.close()));
    assertTidy(home, database);
  } finally {
    await Promise.all(stores.map((each) => each.close()));
    database.close();
    rmSync(home, { recursive: true });
  }
}

/** What is on the disk is what the tables know, and nobody works any more. */
export function assertTidy(home: string, database: DatabaseSync): void {
  const column = (sql: string): string[] =>
    database
      .prepare(sql)
      .all()
      .map((row) => String(Object.values(row)[0]).replace('sha256:', ''))
      .sort();
  const files = (name: string): string[] => readdirSync(join(home, 'content', name)).sort();
  assert.deepEqual(files('tmp'), []);
  assert.deepEqual(files('sha256'), column('SELECT digest FROM image_blobs'));
  assert.deepEqual(files('layers'), column('SELECT diff_id FROM image_layers'));
  assert.deepEqual(column(`SELECT holder FROM "references" WHERE holder LIKE 'lease:%'`), []);
}
