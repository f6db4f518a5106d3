/**
 * A few disjoint ranges of sequence numbers, in order: what was received beyond a gap, or what the peer said it has.
 * Bounded: a range that would be one too many is refused.
 */
import { TCP_RANGES_MAX } from '../limits.ts';
import { after, before, distance } from './sequence.ts';

const NONE = new Int32Array(0);

export class Ranges {
  /** Start and end (exclusive) of each range; made for the first one, for most connections never have any. */
  #edges: Int32Array = NONE;
  count = 0;
  /** Index of the range that was added to last (RFC 2018 wants it first in a SACK option). */
  latest = 0;

  start(index: number): number {
    return this.#edges[2 * index] as number;
  }

  end(index: number): number {
    return this.#edges[2 * index + 1] as number;
  }

  clear(): void {
    this.count = 0;
    this.latest = 0;
  }

  /** Adds `[start, end)`, joined with what it touches. False when there is no room for one more. */
  add(start: number, end: number): boolean {
    if (this.#edges === NONE) this.#edges = new Int32Array(2 * TCP_RANGES_MAX);
    const edges = this.#edges;
    let first = 0;
    while (first < this.count && before(edges[2 * first + 1] as number, start)) first += 1;
    let last = first;
    let from = start;
    let to = end;
    while (last < this.count && !after(edges[2 * last] as number, end)) {
      if (before(edges[2 * last] as number, from)) from = edges[2 * last] as number;
      if (after(edges[2 * last + 1] as number, to)) to = edges[2 * last + 1] as number;
      last += 1;
    }
    if (last === first) {
      if (this.count === TCP_RANGES_MAX) return false;
      edges.copyWithin(2 * first + 2, 2 * first, 2 * this.count);
      this.count += 1;
    } else if (last - first > 1) {
      edges.copyWithin(2 * first + 2, 2 * last, 2 * this.count);
      this.count -= last - first - 1;
    }
    edges[2 * first] = from;
    edges[2 * first + 1] = to;
    this.latest = first;
    return true;
  }

  /** Forgets everything before `edge`. */
  dropBefore(edge: number): void {
    const edges = this.#edges;
    let first = 0;
    while (first < this.count && !after(edges[2 * first + 1] as number, edge)) first += 1;
    if (first > 0) {
      edges.copyWithin(0, 2 * first, 2 * this.count);
      this.count -= first;
      this.latest = Math.max(0, this.latest - first);
    }
    if (this.count > 0 && before(edges[0] as number, edge)) edges[0] = edge;
  }

  /** Bytes in all ranges. */
  get total(): number {
    let sum = 0;
    for (let i = 0; i < this.count; i += 1) sum += distance(this.end(i), this.start(i));
    return sum;
  }

  /** The first number from `from` on that is in no range. */
  nextGap(from: number): number {
    let at = from;
    for (let i = 0; i < this.count; i += 1) {
      if (before(at, this.start(i))) break;
      if (before(at, this.end(i))) at = this.end(i);
    }
    return at;
  }

  /** Start of the first range that begins after `from`, or `fallback`. */
  nextStart(from: number, fallback: number): number {
    for (let i = 0; i < this.count; i += 1) if (after(this.start(i), from)) return this.start(i);
    return fallback;
  }
}
