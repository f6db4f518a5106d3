/**
 * A container's output: durable first, then to whoever listens.
 *
 * The agent in the guest keeps every byte until we acknowledge it, and we acknowledge what was written to the log. So
 * the log is the truth: whatever happens to this process, the next one finds where it ends (`recoverSegments`), goes on
 * at that offset, and nothing is lost or doubled. Clients get what is in the log and only that; a client's position is
 * a position in the log, and it can resume there with any later daemon.
 *
 * The way of a chunk: `append` copies it into the current block (the view it came in is only valid for the call); one
 * write at a time takes the blocks to the file, off the main loop; a written block goes to the tail, from which the
 * readers that keep up are served without touching the file; then it is acknowledged. A reader that is connected but
 * slow delays the acknowledgement once it is `maxLagBytes` behind, and the removal of old segments in any case, and so
 * in the end makes the container wait. A reader that has gone delays nothing.
 */
import { close, open, write } from 'node:fs';
import { rm } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { EngineError, messageOf } from '../errors.ts';
import {
  LOG_BULK_BYTES,
  LOG_GATHER_BYTES,
  LOG_GATHER_TURNS,
  LOG_RETRY_MS,
  LOG_SEGMENT_BYTES,
  LOG_SEGMENTS,
  LOG_TAIL_BYTES,
} from '../limits.ts';
import { Block, takeBlock } from './blocks.ts';
import { LogReader, type LogReaderOptions, type LogSource } from './log-reader.ts';
import {
  type Channel,
  encodeCheckpoint,
  encodeHeader,
  freshRunState,
  RECORD_HEADER_BYTES,
  type RunState,
} from './record.ts';
import { recoverSegments, type Segment, segmentAt } from './segments.ts';

const openFile = promisify(open);
const closeFile = promisify(close);
const writeFile = promisify(write);

export interface ContainerLogOptions {
  readonly segmentBytes?: number;
  readonly segments?: number;
  /** The bytes before `offset` of `channel` are durable, and no reader is in the way. */
  onDurable?(channel: Channel, offset: number): void;
  /** A write failed; it is tried again. */
  onWriteError?(error: unknown): void;
}

export class ContainerLog implements AsyncDisposable {
  /** Opens the log in `directory`, making it when it is not there, repairing its end. */
  static async open(directory: string, options: ContainerLogOptions = {}): Promise<ContainerLog> {
    const recovered = await recoverSegments(directory);
    return new ContainerLog(directory, options, recovered.segments, recovered.end, recovered.state);
  }

  /** Called when bytes have become durable; replaced for every run. */
  onDurable: (channel: Channel, offset: number) => void;
  readonly #directory: string;
  readonly #segmentBytes: number;
  readonly #segmentsMax: number;
  readonly #onWriteError: (error: unknown) => void;
  readonly #segments: Segment[];
  readonly #state: RunState;
  readonly #readers = new Set<LogReader>();
  /** Position after the last durable record. */
  #end: number;
  #fd: number | undefined;
  /** Full blocks, and last the one being filled. */
  #queue: Block[] = [];
  #flushing: Promise<void> | undefined;
  #tail: Block[] = [];
  #tailBytes = 0;
  #lastBlockBytes = 0;
  readonly #acknowledged: [number, number];
  /** Runs up to this one are over. */
  #endedRun = 0;
  /** Segments from this position on are kept although no reader is connected. */
  #pin: number | undefined;
  #holdTimer: NodeJS.Timeout | undefined;
  #moved = Promise.withResolvers<void>();
  #closed = false;

  private constructor(
    directory: string,
    options: ContainerLogOptions,
    segments: Segment[],
    end: number,
    state: RunState,
  ) {
    this.#directory = directory;
    this.#segmentBytes = options.segmentBytes ?? LOG_SEGMENT_BYTES;
    this.#segmentsMax = options.segments ?? LOG_SEGMENTS;
    this.onDurable = options.onDurable ?? (() => {});
    this.#onWriteError = options.onWriteError ?? (() => {});
    this.#segments = segments;
    this.#end = end;
    this.#state = state;
    const [one, two] = state.channels;
    this.#acknowledged = [one.next, two.next];
  }

  /** Position after the last durable record. */
  get end(): number {
    return this.#end;
  }
  /** Position of the oldest byte that is still there. */
  get start(): number {
    return this.#segments[0]?.base ?? this.#end;
  }
  /** The run that the last records belong to; 0 before the first. */
  get run(): number {
    return this.#state.run;
  }
  /** Whether both channels of the current run have ended. */
  get complete(): boolean {
    return this.#state.channels.every((channel) => channel.eof);
  }
  /** Where to go on reading from the guest. */
  offset(channel: Channel): number {
    return this.#state.channels[channel - 1]?.next ?? 0;
  }
  /** What may be acknowledged: durable, and no reader in the way. */
  acknowledged(channel: Channel): number {
    return this.#acknowledged[channel - 1] ?? 0;
  }
  hasEnded(channel: Channel): boolean {
    return this.#state.channels[channel - 1]?.eof ?? false;
  }

  /** A new run begins: offsets start at zero again. The run before must have been ended. */
  beginRun(run: number): void {
    if (this.#queue.length > 0 || this.#flushing !== undefined) {
      throw new EngineError('ERR_ARCBOX_LOG_CORRUPT', `run ${this.#state.run} has not been written yet`);
    }
    Object.assign(this.#state, freshRunState(run));
    this.#acknowledged.fill(0);
    this.#endedRun = run - 1;
    const record = encodeCheckpoint(this.#state, Date.now());
    record.copy(this.#reserve(record.length));
    this.#kick();
  }

  /** A run that an earlier daemon began goes on. Segments stay for `holdMs`, so that its clients can come back. */
  resumeRun(holdMs: number): void {
    this.#endedRun = this.#state.run - 1;
    this.#pin = this.start;
    this.#holdTimer = setTimeout(() => this.#unpin(), holdMs).unref();
  }

  /**
   * Takes a chunk; `data` is copied. Throws `ERR_ARCBOX_LOG_CORRUPT` when it does not follow what came before: then
   * nothing was taken.
   */
  append(channel: Channel, offset: number, data: Uint8Array, eof: boolean): void {
    const state = this.#state.channels[channel - 1];
    if (state === undefined || state.eof || offset !== state.next) {
      throw new EngineError(
        'ERR_ARCBOX_LOG_CORRUPT',
        `output of channel ${channel} at ${offset} does not follow ${state?.next} in ${this.#directory}`,
      );
    }
    const target = this.#reserve(RECORD_HEADER_BYTES + data.length);
    encodeHeader(target, 0, {
      channel,
      eof,
      run: this.#state.run,
      lengthBytes: data.length,
      offset,
      unixMs: Date.now(),
    });
    target.set(data, RECORD_HEADER_BYTES);
    state.next += data.length;
    state.eof = eof;
    const block = this.#queue.at(-1);
    if (block !== undefined) block.after[channel - 1] = state.next;
    this.#kick();
  }

  /** Resolves when everything that was appended is durable. */
  async flushed(): Promise<void> {
    while (this.#flushing !== undefined) await this.#flushing;
  }

  /** The run is over; readers that follow it end when they have read everything. */
  async endRun(): Promise<void> {
    await this.flushed();
    this.#endedRun = this.#state.run;
    this.#unpin();
    for (const reader of this.#readers) reader.wake();
    await this.#closeFile();
  }

  /** For a log that was opened while nothing runs: runs up to this one are over. */
  closeRuns(run: number): void {
    this.#endedRun = run;
  }

  /**
   * Reads from `cursor` on; see `LogReaderOptions`. Throws `ERR_ARCBOX_LOG_TRUNCATED` when that part of the log has
   * been rotated away.
   */
  reader(options: LogReaderOptions): LogReader {
    const cursor =
      options.cursor === 'start' ? this.start : options.cursor === 'end' ? this.#end : options.cursor;
    if (cursor < this.start) {
      throw new EngineError(
        'ERR_ARCBOX_LOG_TRUNCATED',
        `the log from position ${cursor} on has been rotated away; it begins at ${this.start}`,
      );
    }
    if (cursor > this.#end) {
      throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', `the log ends at ${this.#end}, before ${cursor}`);
    }
    const log = this;
    const source: LogSource = {
      get end() {
        return log.#end;
      },
      runEnded: (run) => run <= log.#endedRun,
      tailAt: (position) => log.#tailAt(position),
      segmentFor: (position) => log.#segments.findLast((segment) => segment.base <= position),
      moved: () => log.#notifyMoved(),
      closed: (reader) => {
        log.#readers.delete(reader);
        log.#notifyMoved();
      },
    };
    const reader = new LogReader(source, cursor, options);
    this.#readers.add(reader);
    return reader;
  }

  /** Writes what is queued and releases everything. Readers end. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#unpin();
    try {
      await this.flushed();
    } finally {
      for (const reader of [...this.#readers]) await reader.close();
      await this.#closeFile();
      this.#dropTail();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Room for a record of `bytes` at the end of the queue. */
  #reserve(bytes: number): Buffer {
    let block = this.#queue.at(-1);
    if (block === undefined || block.buffer.length - block.used < bytes) {
      block = takeBlock(bytes, this.#lastBlockBytes >= LOG_BULK_BYTES, this.#state);
      this.#queue.push(block);
    }
    const target = block.buffer.subarray(block.used, block.used + bytes);
    block.used += bytes;
    return target;
  }

  #kick(): void {
    if (this.#flushing !== undefined) return;
    this.#flushing = this.#flush().finally(() => {
      this.#flushing = undefined;
      if (this.#queue.length > 0 && !this.#closed) this.#kick();
    });
    // Whoever waits for it is told; without anybody it was logged.
    this.#flushing.catch(() => {});
  }

  async #flush(): Promise<void> {
    // Whatever arrives in the same turn of the loop goes with the first write.
    await null;
    while (this.#queue.length > 0) {
      await this.#gather();
      const block = this.#queue.shift();
      if (block === undefined) break;
      this.#lastBlockBytes = block.used;
      await this.#writeBlock(block);
      this.#publish(block);
      while (this.#isHeld((reader) => this.#end - reader.position > reader.maxLagBytes))
        await this.#moved.promise;
      this.#acknowledge(block);
      block.release();
    }
  }

  /** At full speed a turn of the loop brings one small piece: waiting for a few makes one write of them. */
  async #gather(): Promise<void> {
    if (this.#lastBlockBytes < LOG_BULK_BYTES) return;
    for (let turn = 0; turn < LOG_GATHER_TURNS; turn += 1) {
      const used = this.#queue[0]?.used ?? 0;
      if (used >= LOG_GATHER_BYTES) return;
      await nextTurn();
      if (this.#queue[0]?.used === used) return;
    }
  }

  async #writeBlock(block: Block): Promise<void> {
    for (;;) {
      try {
        const fd = await this.#fileFor(block);
        const base = this.#segments.at(-1)?.base ?? 0;
        block.position = this.#end;
        let done = 0;
        while (done < block.used) {
          const { bytesWritten } = await writeFile(
            fd,
            block.buffer,
            done,
            block.used - done,
            this.#end - base + done,
          );
          done += bytesWritten;
        }
        this.#end += block.used;
        return;
      } catch (error) {
        // The container waits meanwhile: nothing is acknowledged, so nothing is lost.
        this.#onWriteError(error);
        if (this.#closed) {
          throw new EngineError(
            'ERR_ARCBOX_LOG_CORRUPT',
            `the log could not be written: ${messageOf(error)}`,
            {
              cause: error,
            },
          );
        }
        await new Promise((resolve) => setTimeout(resolve, LOG_RETRY_MS));
      }
    }
  }

  /** The open file that the block goes to; a new segment when the current one is full. */
  async #fileFor(block: Block): Promise<number> {
    const current = this.#segments.at(-1);
    if (current !== undefined && this.#end - current.base < this.#segmentBytes) {
      this.#fd ??= await openFile(current.path, 'r+', 0o600);
      return this.#fd;
    }
    while (this.#segments.length >= this.#segmentsMax) {
      const [oldest, next] = this.#segments;
      if (oldest === undefined) break;
      const keepFrom = next?.base ?? this.#end;
      if (this.#isHeld((reader) => reader.position < keepFrom, keepFrom)) {
        await this.#moved.promise;
        continue;
      }
      // Before the file goes: who begins to read meanwhile begins behind it.
      this.#segments.shift();
      try {
        // Somebody may have made room by hand.
        await rm(oldest.path, { force: true });
      } catch (error) {
        this.#segments.unshift(oldest);
        throw error;
      }
    }
    await this.#closeFile();
    const segment = segmentAt(this.#directory, this.#end);
    const fd = await openFile(segment.path, 'w+', 0o600);
    // A segment begins with the state before its first record.
    const checkpoint = encodeCheckpoint(block.before, Date.now());
    const { bytesWritten } = await writeFile(fd, checkpoint, 0, checkpoint.length, 0).catch(async (error) => {
      await closeFile(fd);
      throw error;
    });
    if (bytesWritten !== checkpoint.length) {
      await closeFile(fd);
      throw new Error('short write of a checkpoint');
    }
    this.#segments.push(segment);
    this.#fd = fd;
    const position = this.#end;
    this.#end += checkpoint.length;
    const published = new Block(checkpoint, block.before);
    published.used = checkpoint.length;
    published.position = position;
    this.#publish(published);
    published.release();
    return fd;
  }

  #publish(block: Block): void {
    if (this.#readers.size === 0) return;
    this.#tail.push(block.retain());
    this.#tailBytes += block.used;
    const slowest = Math.min(...[...this.#readers].map((reader) => reader.position));
    while (this.#tail.length > 0) {
      const first = this.#tail[0];
      if (first === undefined) break;
      if (this.#tailBytes <= LOG_TAIL_BYTES && first.position + first.used > slowest) break;
      this.#shiftTail();
    }
    for (const reader of this.#readers) reader.wake();
  }

  #tailAt(position: number): { bytes: Buffer; block: Block } | undefined {
    for (const block of this.#tail) {
      if (position >= block.position && position < block.position + block.used) {
        return { bytes: block.buffer.subarray(position - block.position, block.used), block: block.retain() };
      }
    }
    return undefined;
  }

  #shiftTail(): void {
    const block = this.#tail.shift();
    this.#tailBytes -= block?.used ?? 0;
    block?.release();
  }

  #dropTail(): void {
    while (this.#tail.length > 0) this.#shiftTail();
  }

  #acknowledge(block: Block): void {
    for (const channel of [1, 2] as const) {
      const offset = block.after[channel - 1] ?? 0;
      if (offset > (this.#acknowledged[channel - 1] ?? 0)) {
        this.#acknowledged[channel - 1] = offset;
        this.onDurable(channel, offset);
      }
    }
    if (this.#readers.size === 0 && this.#tail.length > 0) this.#dropTail();
  }

  /** Whether a connected reader, or one that is to come back, is in the way; `#moved` tells when to ask again. */
  #isHeld(blocks: (reader: LogReader) => boolean, pinBelow = 0): boolean {
    const pinned = this.#pin !== undefined && this.#pin < pinBelow;
    return !this.#closed && (pinned || [...this.#readers].some(blocks));
  }

  #unpin(): void {
    clearTimeout(this.#holdTimer);
    this.#pin = undefined;
    this.#notifyMoved();
  }

  #notifyMoved(): void {
    const { resolve } = this.#moved;
    this.#moved = Promise.withResolvers<void>();
    resolve();
    // What every reader has taken need not be kept for longer.
    const slowest = Math.min(...[...this.#readers].map((reader) => reader.position));
    while (this.#tail[0] !== undefined && this.#tail[0].position + this.#tail[0].used <= slowest) {
      this.#shiftTail();
    }
  }

  async #closeFile(): Promise<void> {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) await closeFile(fd);
  }
}
