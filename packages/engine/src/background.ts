/** Work that goes on after an answer was given: what goes wrong is logged, and whoever ends waits for it. */
import { messageOf } from './errors.ts';
import type { Logger } from './logger.ts';

export class Background {
  readonly #logger: Logger;
  readonly #work = new Set<Promise<void>>();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  run(what: string, work: Promise<void>): void {
    const guarded = work
      .catch((error: unknown) => {
        this.#logger.warn('background_failed', { what, reason: messageOf(error) });
      })
      .finally(() => this.#work.delete(guarded));
    this.#work.add(guarded);
  }

  /** Resolves when nothing is going on behind anybody's back. */
  async drain(): Promise<void> {
    while (this.#work.size > 0) await Promise.all(this.#work);
  }
}
