/** `--filter KEY=VALUE` of listings. Values of one key are alternatives, but for labels; different keys all count. */
import { CliError } from './errors.ts';

/** By key: whether the row is one of those that the value means. */
export type RowFilters<Row> = Readonly<
  Record<string, (row: Row, value: string, all: readonly Row[]) => boolean>
>;

/** Values by key. Throws `CliError` for a filter that there is not. */
export function parseFilters<Row>(
  filters: readonly string[],
  known: RowFilters<Row>,
): ReadonlyMap<string, readonly string[]> {
  const wanted = new Map<string, string[]>();
  for (const filter of filters) {
    const equals = filter.indexOf('=');
    const name = filter.slice(0, Math.max(0, equals));
    if (known[name] === undefined)
      throw new CliError(
        `${JSON.stringify(filter)} is no filter; there are ${Object.keys(known)
          .map((key) => `${key}=…`)
          .join(', ')}`,
        1,
      );
    wanted.set(name, [...(wanted.get(name) ?? []), filter.slice(equals + 1)]);
  }
  return wanted;
}

export function filterRows<Row>(
  rows: readonly Row[],
  wanted: ReadonlyMap<string, readonly string[]>,
  known: RowFilters<Row>,
): Row[] {
  return rows.filter((row) =>
    [...wanted].every(([name, values]) => {
      const matches = (value: string): boolean => known[name]?.(row, value, rows) ?? false;
      return name === 'label' ? values.every(matches) : values.some(matches);
    }),
  );
}

/** `key` or `key=value`. */
export function hasLabel(labels: Readonly<Record<string, string>> | undefined, value: string): boolean {
  const equals = value.indexOf('=');
  if (equals < 0) return labels !== undefined && value in labels;
  return labels?.[value.slice(0, equals)] === value.slice(equals + 1);
}

/** Throws `CliError` unless it says yes or no. */
export function truth(filter: string, value: string): boolean {
  if (/^(1|true)$/i.test(value)) return true;
  if (/^(0|false)$/i.test(value)) return false;
  throw new CliError(`the filter ${filter} is true or false, not ${JSON.stringify(value)}`, 1);
}
