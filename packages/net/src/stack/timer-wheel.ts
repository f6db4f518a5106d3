/**
 * Timers for thousands of connections: a wheel of doubly linked lists. Setting, moving and clearing one takes constant
 * time and no memory. A timer that was moved to later stays where it is until its old time comes, and is put where it
 * belongs then: moving to later, which every acknowledgement does, is one assignment.
 */

const SLOT_MS = 8;
const SLOTS = 1024;

/** What a timed thing extends. */
export abstract class Timed {
  /** When to be called, in ms; `Infinity`: never. */
  deadlineMs: number = Number.POSITIVE_INFINITY;
  /** Where the wheel has it: tick number, or -1. */
  wheelTick = -1;
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  abstract expired(nowMs: number): void;
}

class Head extends Timed {
  expired(): void {}
}

export class TimerWheel {
  readonly #heads: readonly Head[];
  readonly #earlier: (atMs: number) => void;
  #count = 0;
  /** When the owner will call, as far as it was told. */
  #armedTick = Number.POSITIVE_INFINITY;
  /** Every slot before this tick has been visited. */
  #tick: number;

  /** `earlier` is called when `advance` has to be called at `atMs`, earlier than was known. */
  constructor(nowMs: number, earlier: (atMs: number) => void = () => {}) {
    this.#earlier = earlier;
    this.#tick = Math.floor(nowMs / SLOT_MS);
    this.#heads = Array.from({ length: SLOTS }, () => {
      const head = new Head();
      head.wheelNext = head;
      head.wheelPrevious = head;
      return head;
    });
  }

  /** Calls `timed.expired` when `deadlineMs` has come, in place of what was set before. */
  set(timed: Timed, deadlineMs: number): void {
    timed.deadlineMs = deadlineMs;
    if (deadlineMs === Number.POSITIVE_INFINITY) {
      // It stays in its list, and is found to be without a deadline when its turn comes.
      return;
    }
    // Rounded up: nothing expires early. Beyond one turn of the wheel it waits in the last slot, and moves on.
    const tick = Math.min(Math.max(Math.ceil(deadlineMs / SLOT_MS), this.#tick + 1), this.#tick + SLOTS - 1);
    if (timed.wheelTick >= 0 && timed.wheelTick <= tick) return;
    this.#unlink(timed);
    this.#link(timed, tick);
    if (tick < this.#armedTick) {
      this.#armedTick = tick;
      this.#earlier(tick * SLOT_MS);
    }
  }

  /** Forgets it. */
  clear(timed: Timed): void {
    timed.deadlineMs = Number.POSITIVE_INFINITY;
    this.#unlink(timed);
  }

  /** Calls everything whose time has come. */
  advance(nowMs: number): void {
    const until = Math.floor(nowMs / SLOT_MS);
    if (this.#count === 0) {
      this.#tick = Math.max(this.#tick, until);
      return;
    }
    if (until - this.#tick > SLOTS) {
      // A long sleep: every slot is visited once.
      this.#tick = until - SLOTS;
    }
    while (this.#tick < until) {
      this.#tick += 1;
      const head = this.#heads[this.#tick & (SLOTS - 1)] as Head;
      // What is linked in meanwhile goes to later slots: `set` never takes the current tick.
      for (let timed = head.wheelNext; timed !== undefined && timed !== head; timed = head.wheelNext) {
        this.#unlink(timed);
        if (timed.deadlineMs === Number.POSITIVE_INFINITY) continue;
        if (timed.deadlineMs > nowMs) this.set(timed, timed.deadlineMs);
        else timed.expired(nowMs);
      }
    }
  }

  /** When `advance` should be called next at the latest; `Infinity` when nothing is set. Arms for it. */
  nextMs(): number {
    const atMs = this.#nextMs();
    this.#armedTick = atMs / SLOT_MS;
    return atMs;
  }

  #nextMs(): number {
    if (this.#count === 0) return Number.POSITIVE_INFINITY;
    // What is further away than the last slot waits there: that is when to look again.
    for (let tick = this.#tick + 1; tick < this.#tick + SLOTS - 1; tick += 1) {
      const head = this.#heads[tick & (SLOTS - 1)] as Head;
      for (let timed = head.wheelNext; timed !== undefined && timed !== head; ) {
        const next: Timed | undefined = timed.wheelNext;
        if (timed.deadlineMs === Number.POSITIVE_INFINITY) this.#unlink(timed);
        else if (timed.deadlineMs > tick * SLOT_MS) this.set(this.#unlink(timed), timed.deadlineMs);
        else return tick * SLOT_MS;
        timed = next;
      }
    }
    return this.#count === 0 ? Number.POSITIVE_INFINITY : (this.#tick + SLOTS - 1) * SLOT_MS;
  }

  #link(timed: Timed, tick: number): void {
    const head = this.#heads[tick & (SLOTS - 1)] as Head;
    const last = head.wheelPrevious as Timed;
    timed.wheelTick = tick;
    timed.wheelNext = head;
    timed.wheelPrevious = last;
    last.wheelNext = timed;
    head.wheelPrevious = timed;
    this.#count += 1;
  }

  #unlink(timed: Timed): Timed {
    if (timed.wheelTick < 0) return timed;
    const { wheelNext, wheelPrevious } = timed;
    if (wheelNext !== undefined) wheelNext.wheelPrevious = wheelPrevious;
    if (wheelPrevious !== undefined) wheelPrevious.wheelNext = wheelNext;
    timed.wheelTick = -1;
    timed.wheelNext = undefined;
    timed.wheelPrevious = undefined;
    this.#count -= 1;
    return timed;
  }
}
