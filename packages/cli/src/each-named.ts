/** Commands that do one thing to each of what they name. */
import { complain, print } from './output.ts';

/** Goes on past one that fails, and prints those that it was done to, but for a `false`. Answers with what to exit with. */
export async function eachNamed(
  names: readonly string[],
  act: (name: string) => Promise<unknown>,
): Promise<number> {
  let exitCode = 0;
  for (const name of names) {
    try {
      if ((await act(name)) !== false) print(name);
    } catch (error) {
      complain(error instanceof Error ? error.message : String(error));
      exitCode = 1;
    }
  }
  return exitCode;
}
