/** One at a time, in the order of asking. */
export class Mutex {
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  /** Somebody has it, or waits for it. */
  get busy(): boolean {
    return this.#waiting > 0;
  }

  async run<T>(task: () => Promise<T>): Promise<T> {
    const before = this.#last;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last = promise;
    this.#waiting += 1;
    await before;
    try {
      return await task();
    } finally {
      this.#waiting -= 1;
      resolve();
    }
  }
}
