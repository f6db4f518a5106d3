/**
 * Listings as docker prints them: a table, one JSON object a line, or a template for each row. A template that begins
 * with `table` gets a line of headings and columns that are aligned at its tabs.
 */
import { print } from './output.ts';
import { harmless, type ListingOptions } from './table.ts';
import { compileTemplate } from './template/evaluate.ts';

const COLUMN_WIDTH_MIN = 10;
const COLUMN_GAP = 3;

export interface Listing<Row> {
  readonly rows: readonly Row[];
  /** What a template calls `.Name`: text, or a function of a template's arguments. Functions are not in JSON. */
  readonly fields: Readonly<Record<string, (row: Row) => unknown>>;
  /** Headings, where the field's name in capitals is not it. */
  readonly headings?: Readonly<Record<string, string>>;
  /** The table without a wish of the user's: fields, in order. */
  readonly columns: readonly string[];
  /** What `-q` prints. */
  id(row: Row): string;
}

export function printList<Row>(options: ListingOptions, listing: Listing<Row>): void {
  const format = options.format ?? 'table';
  if (options.quiet === true && (format === 'table' || format === 'json')) {
    for (const row of listing.rows) print(listing.id(row));
    return;
  }
  if (format === 'json') {
    for (const row of listing.rows) print(JSON.stringify(rowValue(listing, row)));
    return;
  }
  const text =
    format === 'table' ? `table ${listing.columns.map((name) => `{{.${name}}}`).join('\t')}` : format;
  const isTable = /^table(\s|$)/.test(text);
  const template = compileTemplate(unescapeTabs(isTable ? text.slice('table'.length).trimStart() : text));
  const lines = listing.rows.map((row) => template(rowValue(listing, row)));
  if (!isTable) {
    for (const line of lines) print(line);
    return;
  }
  const headings = Object.fromEntries(
    Object.keys(listing.fields).map((name) => [name, heading(listing, name)]),
  );
  for (const line of align([template(headings), ...lines.map(harmless)])) print(line);
}

/** Columns are separated by tabs; the last one is as long as it is. */
export function align(lines: readonly string[]): string[] {
  const table = lines.map((line) => line.split('\t'));
  const widths: number[] = [];
  for (const cells of table) {
    cells.slice(0, -1).forEach((cell, index) => {
      widths[index] = Math.max(widths[index] ?? COLUMN_WIDTH_MIN, cell.length + COLUMN_GAP);
    });
  }
  return table.map((cells) =>
    cells
      .map((cell, index) => (index === cells.length - 1 ? cell : cell.padEnd(widths[index] ?? 0)))
      .join(''),
  );
}

function rowValue<Row>(listing: Listing<Row>, row: Row): Record<string, unknown> {
  return Object.fromEntries(Object.entries(listing.fields).map(([name, field]) => [name, field(row)]));
}

/** A heading stands for text and, for a field that takes arguments, for its first one. */
function heading<Row>(listing: Listing<Row>, name: string): unknown {
  const text = listing.headings?.[name] ?? name.replace(/([a-z])([A-Z])/g, '$1 $2').toUpperCase();
  const [row] = listing.rows;
  const isMethod = row !== undefined && typeof listing.fields[name]?.(row) === 'function';
  return isMethod ? (argument: unknown) => String(argument ?? text) : text;
}

/** On a command line a tab is written `\t`. */
function unescapeTabs(template: string): string {
  return template.replaceAll('\\t', '\t').replaceAll('\\n', '\n');
}
