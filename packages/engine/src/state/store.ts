/**
 * What must survive: entities in SQLite, in write-ahead mode and fully synchronous. A method returns when the change
 * would survive a power loss. One process has the database open (the daemon holds the data directory's lock).
 */
import { DatabaseSync, type SQLOutputValue, type StatementSync } from 'node:sqlite';
import type { ContainerRecord } from '../container/container-record.ts';
import { DEFAULT_HOST_OPTIONS } from '../container/host-options.ts';
import { DEFAULT_LIFE } from '../container/life-options.ts';
import { EngineError, messageOf } from '../errors.ts';
import { PolicyTable } from '../network/policy-table.ts';
import type { VolumeRecord } from '../volume/volume-record.ts';
import { MachineTable } from './machine-table.ts';
import { MIGRATIONS } from './migrations.ts';
import { NetworkTable, type Statements } from './network-table.ts';

type Row = Record<string, SQLOutputValue>;

/** How long SQLite waits for a reader of ours (such as a person with the sqlite3 shell), in ms. */
const BUSY_TIMEOUT_MS = 2000;

export class Store implements Disposable {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  readonly #access: Statements = {
    all: (sql, ...parameters) => this.#statement(sql).all(...parameters),
    run: (sql, ...parameters) => Number(this.#statement(sql).run(...parameters).lastInsertRowid),
  };
  readonly machines = new MachineTable(this.#access);
  readonly networks = new NetworkTable(this.#access);
  readonly policies = new PolicyTable(this.#access);

  /** Opens the database at `path` (`:memory:` in tests) and brings its schema up to date. */
  constructor(path: string) {
    try {
      this.#database = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
      this.#database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;');
      this.#migrate(path);
    } catch (error) {
      if (error instanceof EngineError) throw error;
      throw new EngineError('ERR_ARCBOX_STATE_DB', `cannot open ${path}: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  /** For the image store, which keeps its tables in the same database. */
  get database(): DatabaseSync {
    return this.#database;
  }

  // --- Layers -----------------------------------------------------------------------------------

  /** The layer's number, given out on first sight. */
  layerNumber(digest: string): number {
    this.#run('INSERT INTO layers (digest) VALUES (?) ON CONFLICT (digest) DO NOTHING', digest);
    return Number(this.#get('SELECT number FROM layers WHERE digest = ?', digest)?.number);
  }

  // --- Containers -------------------------------------------------------------------------------

  /** Throws `ERR_ARCBOX_CONTAINER_NAME_IN_USE`. */
  insertContainer(record: ContainerRecord, idempotencyKey: string | undefined): void {
    const taken = this.#get('SELECT id FROM containers WHERE name = ?', record.name);
    if (taken !== undefined) {
      throw new EngineError(
        'ERR_ARCBOX_CONTAINER_NAME_IN_USE',
        `the container name ${record.name} is in use by ${String(taken.id).slice(0, 12)}; remove or rename that container first`,
      );
    }
    this.#run(
      `INSERT INTO containers (id, name, state, run, machine, image_id, config, idempotency_key, created_ms,
         started_ms, finished_ms, exit_code, error, restarts, stopped_by_user)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      record.id,
      record.name,
      record.state,
      record.run,
      record.machine,
      record.imageId,
      JSON.stringify(record.config),
      idempotencyKey ?? null,
      record.createdMs,
      record.startedMs ?? null,
      record.finishedMs ?? null,
      record.exitCode ?? null,
      record.error,
      record.restarts,
      Number(record.stoppedByUser),
    );
  }

  /** Writes what can change after creation. */
  updateContainer(record: ContainerRecord): void {
    this.#run(
      'UPDATE containers SET name = ?, config = ?, state = ?, run = ?, started_ms = ?, finished_ms = ?, exit_code = ?, error = ?, restarts = ?, stopped_by_user = ? WHERE id = ?',
      record.name,
      JSON.stringify(record.config),
      record.state,
      record.run,
      record.startedMs ?? null,
      record.finishedMs ?? null,
      record.exitCode ?? null,
      record.error,
      record.restarts,
      Number(record.stoppedByUser),
      record.id,
    );
  }

  deleteContainer(id: string): void {
    this.#run('DELETE FROM containers WHERE id = ?', id);
  }

  containers(): ContainerRecord[] {
    return this.#statement('SELECT * FROM containers ORDER BY created_ms, id').all().map(toContainer);
  }

  containerIdByKey(idempotencyKey: string): string | undefined {
    const row = this.#get('SELECT id FROM containers WHERE idempotency_key = ?', idempotencyKey);
    return typeof row?.id === 'string' ? row.id : undefined;
  }

  // --- Volumes ----------------------------------------------------------------------------------

  /** Answers with its number. */
  insertVolume(record: Omit<VolumeRecord, 'number'>): number {
    const { lastInsertRowid } = this.#statement(
      'INSERT INTO volumes (name, state, anonymous, labels, size_bytes, created_ms) VALUES (?, ?, ?, ?, ?, ?)',
    ).run(
      record.name,
      record.state,
      Number(record.anonymous),
      JSON.stringify(record.labels),
      record.sizeBytes,
      record.createdMs,
    );
    return Number(lastInsertRowid);
  }

  setVolumeState(number: number, state: VolumeRecord['state']): void {
    this.#run('UPDATE volumes SET state = ? WHERE number = ?', state, number);
  }

  deleteVolume(number: number): void {
    this.#run('DELETE FROM volumes WHERE number = ?', number);
  }

  volumes(): VolumeRecord[] {
    return this.#statement('SELECT * FROM volumes ORDER BY name')
      .all()
      .map((row) => ({
        number: Number(row.number),
        name: String(row.name),
        state: String(row.state) as VolumeRecord['state'],
        anonymous: Number(row.anonymous) !== 0,
        labels: JSON.parse(String(row.labels)) as Record<string, string>,
        sizeBytes: Number(row.size_bytes),
        createdMs: Number(row.created_ms),
      }));
  }

  /** All of what `work` writes, or nothing of it. */
  transaction<T>(work: () => T): T {
    this.#database.exec('BEGIN IMMEDIATE');
    try {
      const result = work();
      this.#database.exec('COMMIT');
      return result;
    } catch (error) {
      this.#database.exec('ROLLBACK');
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#statements.clear();
    this.#database.close();
  }

  #migrate(path: string): void {
    const version = Number(this.#database.prepare('PRAGMA user_version').get()?.user_version);
    if (version > MIGRATIONS.length) {
      throw new EngineError(
        'ERR_ARCBOX_STATE_DB',
        `${path} was written by a newer ArcBox (schema ${version}, this one knows ${MIGRATIONS.length}); use that version`,
      );
    }
    MIGRATIONS.slice(version).forEach((step, index) => {
      this.#database.exec(`BEGIN; ${step}; PRAGMA user_version = ${version + index + 1}; COMMIT;`);
    });
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #get(sql: string, ...parameters: (string | number)[]): Row | undefined {
    return this.#statement(sql).get(...parameters);
  }

  #run(sql: string, ...parameters: (string | number | null)[]): void {
    this.#statement(sql).run(...parameters);
  }
}

function toContainer(row: Row): ContainerRecord {
  const number = (value: SQLOutputValue | undefined): number | undefined =>
    value === null || value === undefined ? undefined : Number(value);
  return {
    id: String(row.id),
    name: String(row.name),
    state: String(row.state) as ContainerRecord['state'],
    run: Number(row.run),
    machine: String(row.machine),
    imageId: String(row.image_id),
    config: toConfig(String(row.config)),
    createdMs: Number(row.created_ms),
    startedMs: number(row.started_ms),
    finishedMs: number(row.finished_ms),
    exitCode: number(row.exit_code),
    error: String(row.error),
    restarts: Number(row.restarts),
    stoppedByUser: Number(row.stopped_by_user) !== 0,
  };
}

/** What an earlier version did not write has its default. */
function toConfig(json: string): ContainerRecord['config'] {
  const stored = JSON.parse(json) as ContainerRecord['config'];
  return {
    ...{ domainname: '', stdinOnce: false },
    ...stored,
    life: stored.life ?? DEFAULT_LIFE,
    mounts: stored.mounts ?? [],
    exposedPorts: stored.exposedPorts ?? [],
    host: { ...DEFAULT_HOST_OPTIONS, ...stored.host },
  };
}
