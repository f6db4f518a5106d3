/** Environment variables and labels as the command line and files give them. */
import { readFileSync } from 'node:fs';
import { CliError } from './errors.ts';

/**
 * Files first, then the command line. `KEY` alone takes the value from our own environment; a variable that is not set
 * there is left out, as docker does.
 */
export function environment(entries: readonly string[] = [], files: readonly string[] = []): string[] {
  return [...files.flatMap(linesOf), ...entries].flatMap((entry) => {
    if (entry.includes('=')) return [entry];
    const value = process.env[entry];
    return value === undefined ? [] : [`${entry}=${value}`];
  });
}

/** `KEY=VALUE`, or `KEY` for an empty value; the command line wins over files. */
export function labels(
  entries: readonly string[] = [],
  files: readonly string[] = [],
): Record<string, string> {
  return Object.fromEntries(
    [...files.flatMap(linesOf), ...entries].map((entry) => {
      const equals = entry.indexOf('=');
      const key = equals < 0 ? entry : entry.slice(0, equals);
      if (key === '') throw new CliError(`the label ${JSON.stringify(entry)} has no name`);
      return [key, equals < 0 ? '' : entry.slice(equals + 1)];
    }),
  );
}

/** Lines that say something: neither empty nor comments. */
function linesOf(path: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new CliError(`cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
  return text
    .replace(/^\ufeff/, '')
    .split('\n')
    .map((line) => line.replace(/\r$/, '').trimStart())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      if (/^[^=]*\s[^=]*=/.test(line))
        throw new CliError(`${path}: the name in ${JSON.stringify(line)} has white space`);
      return line;
    });
}
