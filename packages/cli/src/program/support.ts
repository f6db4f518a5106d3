/** What the definitions of commands share. */
import type { Context } from '../context.ts';

/** How the exit code of a failure is chosen. */
export const exits = {
  /** `engine`: the error's own, 125 at most; `command`: 126 and 127 when the command is to blame, otherwise 1. */
  kind: 'plain' as 'plain' | 'engine' | 'command',
};

export interface Definitions {
  readonly context: Context;
}

/** For options that may be given many times. */
export const collect = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value];

/** Runs a command and sets what we exit with. */
export const action =
  <Arguments extends unknown[]>(act: (...args: Arguments) => Promise<number>, kind = exits.kind) =>
  async (...args: Arguments): Promise<void> => {
    exits.kind = kind;
    process.exitCode = await act(...args);
  };
