/** A capture that is being written: packets go to a stream for as long as it keeps up, and are counted when not. */
import type { Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import {
  type CaptureInterface,
  type Direction,
  interfaceDescription,
  interfaceStatistics,
  LINK_TYPE_ETHERNET,
  packet,
  sectionHeader,
} from './blocks.ts';

/** What may wait for a slow disk or reader; what comes then is dropped, so that capturing never slows the network. */
export const CAPTURE_QUEUE_BYTES_MAX = 8 * 1024 * 1024;
/** The largest frame of a link with an MTU of 65,520. */
export const SNAP_BYTES_DEFAULT = 65_536;

export interface CaptureOptions {
  readonly application?: string;
  readonly snapBytes?: number;
  /** Nanoseconds since 1970. */
  readonly nowNs?: () => bigint;
}

interface Place {
  readonly index: number;
  readonly snapBytes: number;
  received: number;
  dropped: number;
}

const epochNs = BigInt(Math.round(performance.timeOrigin * 1e6));
const originNs = process.hrtime.bigint() - BigInt(Math.round(performance.now() * 1e6));
/** The wall clock at this process's start, plus what a steady clock counted since. */
export const wallClockNs = (): bigint => epochNs + (process.hrtime.bigint() - originNs);

export class Capture implements AsyncDisposable {
  readonly #out: Writable;
  readonly #snapBytes: number;
  readonly #nowNs: () => bigint;
  readonly #places = new Map<string, Place>();
  #ended: Promise<void> | undefined;

  /** Writes to `out`, and ends it. An error of the stream is reported by `end()`; packets are dropped from then on. */
  constructor(out: Writable, options: CaptureOptions = {}) {
    this.#out = out;
    this.#snapBytes = options.snapBytes ?? SNAP_BYTES_DEFAULT;
    this.#nowNs = options.nowNs ?? wallClockNs;
    out.on('error', () => {}); // end() has it
    out.write(sectionHeader(options.application ?? 'ArcBox'));
  }

  /** Packets that did not get into the file. */
  get dropped(): number {
    let sum = 0;
    for (const place of this.#places.values()) sum += place.dropped;
    return sum;
  }

  get captured(): number {
    let sum = 0;
    for (const place of this.#places.values()) sum += place.received - place.dropped;
    return sum;
  }

  /** Names a place of capture and says more of it than its name; one that is not named here is plain Ethernet. */
  describe(described: Omit<CaptureInterface, 'snapBytes'>): void {
    if (this.#places.has(described.name)) return;
    const snapBytes = this.#snapBytes;
    this.#places.set(described.name, { index: this.#places.size, snapBytes, received: 0, dropped: 0 });
    if (this.#writable()) this.#out.write(interfaceDescription({ ...described, snapBytes }));
  }

  /** Takes a copy of a frame. Never waits and never throws. */
  frame(place: string, bytes: Uint8Array, direction?: Direction, timeNs: bigint = this.#nowNs()): void {
    let at = this.#places.get(place);
    if (at === undefined) {
      this.describe({ name: place, linkType: LINK_TYPE_ETHERNET });
      at = this.#places.get(place);
      if (at === undefined) return;
    }
    at.received++;
    if (!this.#writable() || this.#out.writableLength + bytes.length > CAPTURE_QUEUE_BYTES_MAX) {
      at.dropped++;
      return;
    }
    this.#out.write(packet(at.index, timeNs, bytes, at.snapBytes, direction));
  }

  /** Writes the counts and waits until everything is out. Rejects with the stream's error. */
  end(): Promise<void> {
    this.#ended ??= this.#end();
    return this.#ended;
  }

  async #end(): Promise<void> {
    const timeNs = this.#nowNs();
    if (this.#writable()) {
      for (const place of this.#places.values()) {
        this.#out.write(interfaceStatistics(place.index, timeNs, place));
      }
    }
    const done = finished(this.#out, { readable: false });
    this.#out.end();
    await done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }

  #writable(): boolean {
    return this.#out.writable && this.#out.errored === null;
  }
}
