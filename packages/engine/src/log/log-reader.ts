/** One reader of a container's log, at its own pace: from memory while it keeps up, from the files when it does not. */
import { type FileHandle, open } from 'node:fs/promises';
import { EngineError } from '../errors.ts';
import { LOG_BLOCK_BYTES } from '../limits.ts';
import type { Block } from './blocks.ts';
import { type Channel, forEachRecord, RECORD_HEADER_BYTES } from './record.ts';
import type { Segment } from './segments.ts';

export interface LogRecord {
  readonly channel: Channel;
  /** A view, valid until the next batch is asked for. */
  readonly data: Buffer;
  readonly eof: boolean;
  readonly unixMs: number;
  /** Where the record begins in the log. */
  readonly position: number;
  /** Of its first byte, within its channel and run. */
  readonly offset: number;
  /** Which start of the container wrote it. */
  readonly run: number;
}

export interface LogBatch {
  readonly records: readonly LogRecord[];
  /** Where to resume once the batch was handled. */
  readonly position: number;
}

export interface LogReaderOptions {
  /** A position at which a record begins (such as `LogBatch.position`), or one end of the log. */
  readonly cursor: number | 'start' | 'end';
  /** Follow the log until this run has ended; without it: read what there is. */
  readonly followRun?: number;
  /** A position that it ends at; default, for a reader that follows nothing: where the log ends now. */
  readonly until?: number;
  /** How far the log may be ahead of this reader before the container waits; default: until rotation. */
  readonly maxLagBytes?: number;
}

/** What a reader needs of its log. */
export interface LogSource {
  readonly end: number;
  runEnded(run: number): boolean;
  /** Complete records from `position` on that are in memory; the block is to be released. */
  tailAt(position: number): { readonly bytes: Buffer; readonly block: Block } | undefined;
  segmentFor(position: number): Segment | undefined;
  moved(): void;
  closed(reader: LogReader): void;
}

export class LogReader implements AsyncDisposable {
  readonly maxLagBytes: number;
  readonly #source: LogSource;
  #followRun: number | undefined;
  /** Without a run to follow, what came after this reader was made is not read: the container may write for ever. */
  #until: number;
  /** Everything before it was handled by the caller. */
  #position: number;
  /** Everything before it was given to the caller. */
  #given: number;
  #file: { readonly path: string; readonly handle: FileHandle } | undefined;
  /** What the last batch lies in. */
  #block: Block | undefined;
  #wake: PromiseWithResolvers<void> | undefined;
  #closed = false;

  constructor(source: LogSource, position: number, options: LogReaderOptions) {
    this.#source = source;
    this.#position = position;
    this.#given = position;
    this.#followRun = options.followRun;
    this.#until = options.until ?? (options.followRun === undefined ? source.end : Number.POSITIVE_INFINITY);
    this.maxLagBytes = options.maxLagBytes ?? Number.POSITIVE_INFINITY;
  }

  /** Where this reader stands; what comes after it is kept for it. */
  get position(): number {
    return this.#position;
  }

  /**
   * The next records; asking for them says that those before were handled. Undefined at the end: of the followed run,
   * of the log, or because the reader was closed.
   */
  async read(): Promise<LogBatch | undefined> {
    this.#releaseBlock();
    for (;;) {
      if (this.#given !== this.#position) {
        this.#position = this.#given;
        this.#source.moved();
      }
      if (this.#closed) return undefined;
      if (this.#given < Math.min(this.#source.end, this.#until)) {
        const batch = await this.#next();
        if (batch !== undefined) return batch;
        this.#releaseBlock();
        continue;
      }
      if (this.#followRun === undefined || this.#source.runEnded(this.#followRun)) return undefined;
      this.#wake = Promise.withResolvers<void>();
      await this.#wake.promise;
    }
  }

  /** It follows no longer: it ends where the log ends now, once what comes before that was read. */
  endHere(): void {
    this.#until = Math.min(this.#until, this.#source.end);
    this.#followRun = undefined;
    this.wake();
  }

  /** There is something new, or the run has ended. */
  wake(): void {
    this.#wake?.resolve();
    this.#wake = undefined;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#source.closed(this);
    this.wake();
    this.#releaseBlock();
    await this.#closeFile();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #next(): Promise<LogBatch | undefined> {
    const tail = this.#source.tailAt(this.#given);
    if (tail !== undefined) this.#block = tail.block;
    let bytes: Buffer;
    if (tail === undefined) {
      bytes = await this.#readFile();
    } else {
      bytes = tail.bytes;
      await this.#closeFile();
    }
    if (!this.#closed) return this.#batch(bytes);
    // `close` came in between, and may have found nothing to close yet.
    await this.#closeFile();
    return undefined;
  }

  #batch(bytes: Buffer): LogBatch | undefined {
    const records: LogRecord[] = [];
    const length = forEachRecord(bytes, 0, (header, at) => {
      if (this.#given + at >= this.#until) return false;
      if (header.channel !== 0) {
        const from = at + RECORD_HEADER_BYTES;
        const data = bytes.subarray(from, from + header.lengthBytes);
        const { channel, eof, unixMs, offset, run } = header;
        records.push({ channel, data, eof, unixMs, position: this.#given + at, offset, run });
      }
      return true;
    });
    if (length === 0) {
      throw new EngineError(
        'ERR_ARCBOX_LOG_CORRUPT',
        `no record begins at position ${this.#given} of the log`,
      );
    }
    this.#given += length;
    return records.length === 0 ? undefined : { records, position: this.#given };
  }

  async #readFile(): Promise<Buffer> {
    const segment = this.#source.segmentFor(this.#given);
    if (segment === undefined) {
      throw new EngineError('ERR_ARCBOX_LOG_TRUNCATED', `position ${this.#given} of the log is gone`);
    }
    if (this.#file?.path !== segment.path) {
      await this.#closeFile();
      this.#file = { path: segment.path, handle: await open(segment.path, 'r') };
    }
    // A fresh block each time: the caller may still be sending the one before.
    const block = Buffer.allocUnsafeSlow(Math.min(LOG_BLOCK_BYTES, this.#source.end - this.#given));
    const { bytesRead } = await this.#file.handle.read(block, 0, block.length, this.#given - segment.base);
    return block.subarray(0, bytesRead);
  }

  #releaseBlock(): void {
    this.#block?.release();
    this.#block = undefined;
  }

  async #closeFile(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.handle.close();
  }
}
