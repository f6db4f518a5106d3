/** What every `inspect` prints: all that were found, as JSON or by a template, and a complaint about each that was not. */
import { complain, print } from './output.ts';
import { compileTemplate } from './template/evaluate.ts';

/** One thing as JSON, or by a template; false when no such format was asked for. */
export function printFormatted(format: string | undefined, thing: Record<string, unknown>): boolean {
  if (format === undefined || format === '' || format === 'table') return false;
  print(format === 'json' ? JSON.stringify(thing) : compileTemplate(format)(thing));
  return true;
}

/** Answers with what to exit with. */
export async function printInspected(
  names: readonly string[],
  options: { readonly format?: string },
  find: (name: string) => Promise<Record<string, unknown>>,
): Promise<number> {
  const found: Record<string, unknown>[] = [];
  let exitCode = 0;
  for (const name of names) {
    try {
      found.push(await find(name));
    } catch (error) {
      complain(error instanceof Error ? error.message : String(error));
      exitCode = 1;
    }
  }
  const { format = '' } = options;
  if (format === '') print(JSON.stringify(found, undefined, 4));
  else if (format === 'json') print(JSON.stringify(found));
  else {
    const template = compileTemplate(format);
    for (const thing of found) print(template(thing));
  }
  return exitCode;
}
