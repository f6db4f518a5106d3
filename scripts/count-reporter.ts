/**
 * A reporter that writes what has failed and why, and as its last line `PASSED FAILED SKIPPED`: several runs can be added
 * up, and what failed in any of them be said once more where a reader looks first, at the end.
 */
import path from 'node:path';
import type { TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';

/** Lines of a reason: enough for a comparison of two structures, and for the frames that lead to it. */
const REASON_LINES = 40;

export default async function* countReporter(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  let passed = 0;
  let failed = 0;
  let skipped = 0;
  for await (const event of source) {
    if (event.type !== 'test:pass' && event.type !== 'test:fail') continue;
    if (event.data.details.type === 'suite') continue;
    // The runner says `pass` of what it has not run, too.
    if (event.data.skip !== undefined || event.data.todo !== undefined) skipped += 1;
    else if (event.type === 'test:pass') passed += 1;
    else {
      failed += 1;
      const { name, file, line, details } = event.data;
      const place = file === undefined ? '' : ` (${path.relative(process.cwd(), file)}:${line})`;
      const reason = inspect(details.error.cause ?? details.error).split('\n', REASON_LINES);
      yield `✖ ${name}${place}\n${reason.map((text) => `  ${text}\n`).join('')}`;
    }
  }
  yield `${passed} ${failed} ${skipped}\n`;
}
