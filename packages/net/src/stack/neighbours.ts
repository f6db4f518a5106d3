/**
 * Who has which address: learned from ARP, neighbour discovery and the first packet of a flow. Needed only where we
 * begin to speak (published ports); an answer goes where the question came from.
 */
import { NEIGHBOUR_ASK_MS, NEIGHBOUR_ASKS_MAX, NEIGHBOUR_WAITERS_MAX, NEIGHBOURS_MAX } from '../limits.ts';
import { sameMac } from '../wire/ethernet.ts';
import type { Hop } from './hop.ts';
import { Timed, type TimerWheel } from './timer-wheel.ts';

/** Asks everybody of the network who has an address. */
export type AskNeighbour = (address: string) => void;

class Question extends Timed {
  readonly address: string;
  readonly waiters: ((hop: Hop | undefined) => void)[] = [];
  asked = 1;
  readonly #again: (question: Question, nowMs: number) => void;

  constructor(address: string, again: (question: Question, nowMs: number) => void) {
    super();
    this.address = address;
    this.#again = again;
  }

  expired(nowMs: number): void {
    this.#again(this, nowMs);
  }
}

export class Neighbours {
  readonly #hops = new Map<string, Hop>();
  readonly #questions = new Map<string, Question>();
  readonly #wheel: TimerWheel;
  readonly #nowMs: () => number;
  readonly #ask: AskNeighbour;
  #waiters = 0;
  /** Whether an address may be where somebody says it is; undefined: anybody may say so. */
  accepts: ((address: string, hop: Hop) => boolean) | undefined;

  constructor(wheel: TimerWheel, nowMs: () => number, ask: AskNeighbour) {
    this.#wheel = wheel;
    this.#nowMs = nowMs;
    this.#ask = ask;
  }

  get(address: string): Hop | undefined {
    return this.#hops.get(address);
  }

  /** Remembers, and tells those who waited; unless it is not to be believed. */
  learn(address: string, hop: Hop): void {
    const known = this.#hops.get(address);
    if (
      !(known?.port === hop.port && sameMac(known.mac, 0, hop.mac, 0)) &&
      this.accepts?.(address, hop) === false
    )
      return;
    // The youngest last, so that the oldest is the first to go.
    this.#hops.delete(address);
    this.#hops.set(address, hop);
    if (this.#hops.size > NEIGHBOURS_MAX) {
      for (const oldest of this.#hops.keys()) {
        this.#hops.delete(oldest);
        break;
      }
    }
    this.#answer(address, hop);
  }

  /** Calls `then` with the way to an address; asks the network when it is not known, and gives up after three times. */
  find(address: string, then: (hop: Hop | undefined) => void): void {
    const hop = this.#hops.get(address);
    if (hop?.port.open) {
      then(hop);
      return;
    }
    if (this.#waiters >= NEIGHBOUR_WAITERS_MAX) {
      then(undefined);
      return;
    }
    let question = this.#questions.get(address);
    if (question === undefined) {
      question = new Question(address, (asked, nowMs) => this.#again(asked, nowMs));
      this.#questions.set(address, question);
      this.#wheel.set(question, this.#nowMs() + NEIGHBOUR_ASK_MS);
      this.#ask(address);
    }
    question.waiters.push(then);
    this.#waiters += 1;
  }

  /** Forgets where an address is: it is somebody else's now. */
  forget(address: string): void {
    this.#hops.delete(address);
  }

  /** Forgets the addresses behind a link that is gone. */
  unplug(isGone: (hop: Hop) => boolean): void {
    for (const [address, hop] of this.#hops) if (isGone(hop)) this.#hops.delete(address);
  }

  #again(question: Question, nowMs: number): void {
    if (question.asked >= NEIGHBOUR_ASKS_MAX) {
      this.#answer(question.address, undefined);
      return;
    }
    question.asked += 1;
    this.#wheel.set(question, nowMs + NEIGHBOUR_ASK_MS);
    this.#ask(question.address);
  }

  #answer(address: string, hop: Hop | undefined): void {
    const question = this.#questions.get(address);
    if (question === undefined) return;
    this.#questions.delete(address);
    this.#wheel.clear(question);
    this.#waiters -= question.waiters.length;
    for (const waiter of question.waiters) waiter(hop);
  }
}
