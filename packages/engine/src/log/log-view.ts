/**
 * A part of a container's log: its last lines, what was written since or until some time.
 *
 * For the last lines the log is read once to find where they begin; what is kept of that pass is one place for each line
 * wanted. A line belongs to its stream: what both streams wrote in turns is counted by the ends of their lines.
 */
import { LOG_TAIL_LINES_MAX } from '../limits.ts';
import type { LogBatch, LogReader, LogRecord } from './log-reader.ts';
import type { Channel } from './record.ts';

export interface LogRange {
  /** Milliseconds since 1970; both ends belong to it. */
  readonly sinceMs?: number;
  readonly untilMs?: number;
}

/** Where a line begins. */
export interface LogPlace {
  /** Of the record, in the log. */
  readonly position: number;
  readonly channel: Channel;
  /** Bytes of the record that belong to earlier lines. */
  readonly skipBytes: number;
}

const NEWLINE = 10;

/**
 * Where the last `lines` lines of the range begin; undefined when it has no more than those. `reader` reads from the
 * range's beginning to the end of what there is.
 */
export async function findTail(
  reader: LogReader,
  lines: number,
  range: LogRange,
): Promise<LogPlace | undefined> {
  const wanted = Math.min(lines, LOG_TAIL_LINES_MAX);
  // A ring: the place of line n is at n modulo its length.
  const places: LogPlace[] = [];
  let count = 0;
  const isMidLine: Record<Channel, boolean> = { 1: false, 2: false };
  const view = new LogView(reader, range);
  for (let batch = await view.read(); batch !== undefined; batch = await view.read()) {
    for (const { channel, data, position } of batch.records) {
      for (let at = 0; at < data.length; ) {
        if (!isMidLine[channel]) {
          places[count % wanted] = { position, channel, skipBytes: at };
          count += 1;
        }
        const end = data.indexOf(NEWLINE, at);
        isMidLine[channel] = end < 0;
        at = end < 0 ? data.length : end + 1;
      }
    }
  }
  return count > wanted ? places[count % wanted] : undefined;
}

/** What a reader gives, within a range. */
export class LogView {
  readonly #reader: LogReader;
  readonly #range: LogRange;
  readonly #from: LogPlace | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ended = false;

  /** With `from` it begins with that line; the reader has to stand at its record. */
  constructor(reader: LogReader, range: LogRange, from?: LogPlace) {
    this.#reader = reader;
    this.#range = range;
    this.#from = from;
  }

  /** For a reader that follows: when the range's end has come it ends with what was written until then. */
  endInTime(): void {
    const { untilMs } = this.#range;
    if (untilMs === undefined) return;
    const leftMs = Math.min(Math.max(0, untilMs - Date.now() + 1), 2 ** 31 - 1);
    this.#timer = setTimeout(() => this.#reader.endHere(), leftMs).unref();
  }

  async read(): Promise<LogBatch | undefined> {
    const { sinceMs = 0, untilMs = Number.POSITIVE_INFINITY } = this.#range;
    while (!this.#ended) {
      const batch = await this.#reader.read();
      if (batch === undefined) break;
      const records: LogRecord[] = [];
      for (const record of batch.records) {
        if (record.unixMs < sinceMs) continue;
        if (record.unixMs > untilMs) {
          this.#ended = true;
          break;
        }
        records.push(this.#cut(record));
      }
      if (records.length > 0) return { records, position: batch.position };
    }
    clearTimeout(this.#timer);
    return undefined;
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#reader.close();
  }

  #cut(record: LogRecord): LogRecord {
    const from = this.#from;
    if (from === undefined || record.position !== from.position) return record;
    return {
      ...record,
      data: record.data.subarray(from.skipBytes),
      offset: record.offset + from.skipBytes,
    };
  }
}
