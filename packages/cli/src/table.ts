/** Listings: a table for people, JSON for programs, IDs alone with `-q`. */
import { CliError } from './errors.ts';
import { print } from './output.ts';

export interface ListingOptions {
  readonly format?: string;
  readonly quiet?: boolean;
}

export function printListing<Row>(
  options: ListingOptions,
  rows: readonly Row[],
  id: (row: Row) => string,
  columns: Readonly<Record<string, (row: Row) => string>>,
): void {
  const format = options.format ?? 'table';
  if (options.quiet === true) {
    for (const row of rows) print(id(row));
  } else if (format === 'json') {
    for (const row of rows) print(JSON.stringify(row));
  } else if (format === 'table') {
    const lines = [
      Object.keys(columns),
      ...rows.map((row) => Object.values(columns).map((column) => harmless(column(row)))),
    ];
    const widths = Object.keys(columns).map((_, index) =>
      Math.max(...lines.map((line) => line[index]?.length ?? 0)),
    );
    for (const line of lines) {
      print(
        line
          .map((cell, index) => (index === line.length - 1 ? cell : cell.padEnd((widths[index] ?? 0) + 3)))
          .join(''),
      );
    }
  } else {
    throw new CliError(`${JSON.stringify(format)} is not a format; there are table and json`, 1);
  }
}

/** What a terminal would obey as spaces; images and containers bring texts of strangers. Tabs and line feeds stay. */
export function harmless(text: string): string {
  return text.replace(/[^\P{Cc}\t\n]/gu, ' ');
}

/** `key=value,other=value`. */
export function labelText(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}

export function shortId(id: string): string {
  return id.replace(/^sha256:/, '').slice(0, 12);
}

/** How long ago, in the largest unit that fits. */
export function ago(unixMs: number): string {
  const seconds = Math.max(0, Math.floor((Date.now() - unixMs) / 1000));
  const units: readonly [number, string][] = [
    [31_536_000, 'year'],
    [2_592_000, 'month'],
    [604_800, 'week'],
    [86_400, 'day'],
    [3600, 'hour'],
    [60, 'minute'],
    [1, 'second'],
  ];
  for (const [length, name] of units) {
    const count = Math.floor(seconds / length);
    if (count > 0) return `${count} ${name}${count === 1 ? '' : 's'}`;
  }
  return 'less than a second';
}
