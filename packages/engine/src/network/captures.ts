/** Captures that are under way: several may watch one machine, and its frames are tapped once. */
import type { CapturedFrame } from '@arcbox/net/worker';

export type FrameTaker = (frame: CapturedFrame) => void;

interface Tapped {
  readonly takers: Set<FrameTaker>;
  readonly tap: Promise<AsyncDisposable>;
}

export class Captures {
  readonly #open: (machine: string, take: FrameTaker) => Promise<AsyncDisposable>;
  readonly #tapped = new Map<string, Tapped>();

  /** `open` taps a machine's card; `take` gets its frames until what it gives is disposed of. */
  constructor(open: (machine: string, take: FrameTaker) => Promise<AsyncDisposable>) {
    this.#open = open;
  }

  async start(machine: string, take: FrameTaker): Promise<AsyncDisposable> {
    const tapped = this.#tapped.get(machine) ?? this.#tap(machine);
    tapped.takers.add(take);
    await tapped.tap;
    return {
      [Symbol.asyncDispose]: async () => {
        if (!tapped.takers.delete(take) || tapped.takers.size > 0) return;
        if (this.#tapped.get(machine) === tapped) this.#tapped.delete(machine);
        await (await tapped.tap)[Symbol.asyncDispose]();
      },
    };
  }

  /** The machine's card has gone: nobody waits for frames of it any more. */
  forget(machine: string): void {
    this.#tapped.delete(machine);
  }

  #tap(machine: string): Tapped {
    const takers = new Set<FrameTaker>();
    const tap = this.#open(machine, (frame) => {
      for (const take of takers) take(frame);
    });
    const tapped = { takers, tap };
    this.#tapped.set(machine, tapped);
    tap.catch(() => {
      if (this.#tapped.get(machine) === tapped) this.#tapped.delete(machine);
    });
    return tapped;
  }
}
