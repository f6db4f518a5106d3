const FIRST_MS = 1;
const LAST_MS = 100;
/** Nothing is slower for it but a failure. */
const TOTAL_MS = 60_000;

/** Calls `check` until it does not throw, backing off from one millisecond. For what gives no event. */
export async function eventually<T>(check: () => T | Promise<T>): Promise<T> {
  const deadline = performance.now() + TOTAL_MS;
  for (let delayMs = FIRST_MS; ; delayMs = Math.min(delayMs * 2, LAST_MS)) {
    try {
      return await check();
    } catch (error) {
      if (performance.now() > deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, delayMs));
  }
}
