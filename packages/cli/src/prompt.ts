/** Asking whoever sits at the terminal. */
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { CliError } from './errors.ts';
import { put } from './output.ts';

export async function askLine(question: string): Promise<string> {
  return (await ask(question, process.stderr)).trim();
}

/** What is typed after the question has appeared is not shown. */
export async function askHidden(question: string): Promise<string> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const answer = await ask('', nowhere, () => put(process.stderr, question));
  put(process.stderr, '\n');
  return answer;
}

/** `ready`: the terminal is ours, and does not show by itself what is typed. */
async function ask(
  question: string,
  output: NodeJS.WritableStream,
  ready: () => void = () => {},
): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output, terminal: true });
  const { promise, reject } = Promise.withResolvers<never>();
  // At the end of input, or ^C, nothing is answered any more.
  terminal.once('close', () => reject(new CliError('nothing was entered', 1)));
  promise.catch(() => {});
  try {
    ready();
    return await Promise.race([terminal.question(question), promise]);
  } finally {
    terminal.close();
  }
}
