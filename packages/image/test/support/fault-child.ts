/** A process with a store that does one thing: for tests that let it die in the middle of it. */
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { IMAGE_TABLES, ImageStore } from '../../src/index.ts';

/** A store on a database in a file. */
export function openStore(home: string): { store: ImageStore; database: DatabaseSync } {
  const database = new DatabaseSync(join(home, 'state.db'));
  database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL');
  if (database.prepare('PRAGMA user_version').get()?.user_version === 0) {
    database.exec(`BEGIN; ${IMAGE_TABLES}; PRAGMA user_version = 1; COMMIT`);
  }
  const store = new ImageStore({
    database,
    directory: join(home, 'content'),
    bootDirectory: join(home, 'boot'),
  });
  return { store, database };
}

export async function operate(store: ImageStore, what: string, argument: string): Promise<void> {
  if (what === 'load') await store.load(createReadStream(argument));
  else if (what === 'import')
    await store.createFromLayer({ layer: createReadStream(argument), names: ['new:1'] });
  else if (what === 'pull') await store.pull(argument);
  else if (what === 'push') await store.push(argument);
  else if (what === 'tag') await store.tag('busybox', argument);
  else if (what === 'remove') await store.remove(argument);
  else throw new Error(`no operation ${what}`);
}

const [home, what, argument] = process.argv.slice(2);
if (import.meta.main && home !== undefined && what !== undefined && argument !== undefined) {
  const { store } = openStore(home);
  await store.collect();
  await operate(store, what, argument);
  await store.close();
}
