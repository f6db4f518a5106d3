import { test as nodeTest, type TestOptions } from 'node:test';

type Body = () => Promise<void>;

/**
 * `test` of node:test, but what is reported of a test that failed is why it failed, and not what its clean-up found
 * after that.
 */
export function test(name: string, ...rest: [Body] | [TestOptions, Body]): void {
  const [options, body] = rest.length === 1 ? [{}, rest[0]] : rest;
  void nodeTest(name, options, async () => {
    try {
      await body();
    } catch (caught) {
      let error = caught;
      while (error instanceof SuppressedError) error = error.suppressed;
      throw error;
    }
  });
}
