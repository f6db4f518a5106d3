/**
 * What happened, in order: every change of an entity's state, with a sequence number.
 *
 * Events are rows of a table of bounded length in a database of their own (`events.db`; write-ahead, `synchronous =
 * NORMAL`: a crash of the daemon loses none, one of the host perhaps the last). A reader is a sequence number: it reads
 * rows after it and sleeps when there are none. So a slow reader holds nothing in memory and slows nobody down; when the
 * rows that it would have read next are gone, it is told how many there were.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { EngineError, messageOf } from '../errors.ts';
import { EVENT_BATCH, EVENTS_MAX, EVENTS_TRIM_EVERY } from '../limits.ts';
import { type EventFilters, matches } from './filters.ts';

export type EventType = 'container' | 'image' | 'machine' | 'network' | 'volume' | 'daemon';

export interface EngineEvent {
  /** Counts from 1, without gaps, as long as the data directory lives. */
  readonly seq: number;
  /** Milliseconds since 1970. */
  readonly timeMs: number;
  readonly type: EventType;
  /** `create`, `start`, `die`, …: docker's word where docker has one. */
  readonly action: string;
  /** Of the entity: a container's ID, a volume's or machine's name. */
  readonly id: string;
  readonly attributes: Readonly<Record<string, string>>;
}

export interface EventQuery {
  /** Events after this one; 0: from the oldest that is still there. Default: only those to come. */
  readonly afterSeq?: number;
  /** Not before, and not after, in ms since 1970. Without `afterSeq`, `sinceMs` begins with the oldest. */
  readonly sinceMs?: number;
  /** Ends then; without it the reader goes on for ever. */
  readonly untilMs?: number;
  readonly filters?: EventFilters;
  readonly signal?: AbortSignal;
}

export interface EventBatch {
  readonly events: readonly EngineEvent[];
  /** How many events were gone before this reader came to them. */
  readonly lost: number;
  /** Where to go on (`afterSeq`), also past events that the filters left out. */
  readonly seq: number;
}

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS events (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms     INTEGER NOT NULL,
    type        TEXT NOT NULL,
    action      TEXT NOT NULL,
    id          TEXT NOT NULL,
    attributes  TEXT NOT NULL
  ) STRICT;
`;

export class EventLog implements Disposable {
  readonly #database: DatabaseSync;
  readonly #insert: StatementSync;
  readonly #select: StatementSync;
  readonly #trim: StatementSync;
  readonly #eventsMax: number;
  readonly #onWriteError: (error: unknown) => void;
  #lastSeq: number;
  #oldestSeq: number;
  #lost = 0;
  #readers = 0;
  #closed = false;
  #news = Promise.withResolvers<void>();

  /** Opens the log at `path` (`:memory:` in tests). */
  constructor(
    path: string,
    options: { readonly eventsMax?: number; readonly onWriteError?: (error: unknown) => void } = {},
  ) {
    this.#eventsMax = options.eventsMax ?? EVENTS_MAX;
    this.#onWriteError = options.onWriteError ?? (() => {});
    try {
      this.#database = new DatabaseSync(path);
      this.#database.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; ${SCHEMA}`);
      this.#insert = this.#database.prepare(
        'INSERT INTO events (time_ms, type, action, id, attributes) VALUES (?, ?, ?, ?, ?)',
      );
      this.#select = this.#database.prepare(
        `SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ${EVENT_BATCH}`,
      );
      this.#trim = this.#database.prepare('DELETE FROM events WHERE seq <= ?');
      const range = this.#database.prepare('SELECT min(seq) AS oldest, max(seq) AS last FROM events').get();
      this.#lastSeq = Number(range?.last ?? 0);
      this.#oldestSeq = Number(range?.oldest ?? 1);
    } catch (error) {
      throw new EngineError('ERR_ARCBOX_STATE_DB', `cannot open ${path}: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  /** Sequence number of the newest event; 0 before the first. */
  get lastSeq(): number {
    return this.#lastSeq;
  }
  /** Events that readers did not get because they were gone before, since this daemon started. */
  get lost(): number {
    return this.#lost;
  }
  get readers(): number {
    return this.#readers;
  }

  /**
   * Writes an event down and wakes whoever waits for one. It tells of something that has happened, which one that cannot
   * be written (a full disk) does not undo: that is told to `onWriteError`, and never thrown.
   */
  emit(type: EventType, action: string, id: string, attributes: Readonly<Record<string, string>> = {}): void {
    // What still ends while the daemon does has nobody left to be told.
    if (this.#closed) return;
    try {
      const { lastInsertRowid } = this.#insert.run(Date.now(), type, action, id, JSON.stringify(attributes));
      this.#lastSeq = Number(lastInsertRowid);
      if (this.#lastSeq % EVENTS_TRIM_EVERY === 0) this.#forgetOldest();
    } catch (error) {
      this.#onWriteError(error);
    }
    this.#wake();
  }

  /** Events as they come, in batches; a batch may be empty of events when only its `lost` or `seq` is news. */
  async *read(query: EventQuery = {}): AsyncGenerator<EventBatch> {
    const { sinceMs, untilMs, filters, signal } = query;
    let seq = query.afterSeq ?? (sinceMs === undefined ? this.#lastSeq : 0);
    if (seq > this.#lastSeq) {
      throw new EngineError(
        'ERR_ARCBOX_INVALID_ARGUMENT',
        `the last event is ${this.#lastSeq}; there is none after ${seq} yet`,
      );
    }
    // Who asks for the beginning of time wants what there is, and has missed nothing.
    if (query.afterSeq === undefined || seq === 0) seq = Math.max(seq, this.#oldestSeq - 1);
    this.#readers += 1;
    try {
      for (;;) {
        if (this.#closed || signal?.aborted) return;
        const news = this.#news.promise;
        const lost = Math.max(0, this.#oldestSeq - 1 - seq);
        this.#lost += lost;
        seq += lost;
        const rows = this.#select.all(seq).map(toEvent);
        seq = rows.at(-1)?.seq ?? seq;
        const events = rows.filter(
          (event) =>
            (sinceMs === undefined || event.timeMs >= sinceMs) &&
            (untilMs === undefined || event.timeMs <= untilMs) &&
            (filters === undefined || matches(event, filters)),
        );
        if (events.length > 0 || lost > 0) yield { events, lost, seq };
        if (rows.length > 0) {
          if (untilMs !== undefined && (rows.at(-1)?.timeMs ?? 0) > untilMs) return;
          continue;
        }
        const leftMs = untilMs === undefined ? undefined : untilMs - Date.now();
        if (leftMs !== undefined && leftMs <= 0) return;
        await waitFor(news, signal, leftMs);
      }
    } finally {
      this.#readers -= 1;
    }
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#wake();
    this.#database.close();
  }

  #forgetOldest(): void {
    const keepFrom = this.#lastSeq - this.#eventsMax + 1;
    if (keepFrom <= this.#oldestSeq) return;
    this.#trim.run(keepFrom - 1);
    this.#oldestSeq = keepFrom;
  }

  #wake(): void {
    const { resolve } = this.#news;
    this.#news = Promise.withResolvers<void>();
    resolve();
  }
}

function toEvent(row: Record<string, unknown>): EngineEvent {
  return {
    seq: Number(row.seq),
    timeMs: Number(row.time_ms),
    type: String(row.type) as EventType,
    action: String(row.action),
    id: String(row.id),
    attributes: JSON.parse(String(row.attributes)) as Record<string, string>,
  };
}

const TIMER_MS_MAX = 2 ** 31 - 1;

async function waitFor(
  news: Promise<void>,
  signal: AbortSignal | undefined,
  timeoutMs: number | undefined,
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const wake = (): void => resolve();
  const timer =
    timeoutMs === undefined ? undefined : setTimeout(wake, Math.min(Math.ceil(timeoutMs), TIMER_MS_MAX));
  signal?.addEventListener('abort', wake, { once: true });
  try {
    await Promise.race([news, promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', wake);
  }
}
