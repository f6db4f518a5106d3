/** Go's text/template, cut into text and the tokens of its actions. */
import { CliError } from '../errors.ts';

export type Token =
  /** `joined`: a field right behind what comes before it, as `.B` in `.A.B`. */
  | { readonly kind: 'field'; readonly text: string; readonly joined: boolean }
  | { readonly kind: 'variable' | 'word' | 'symbol'; readonly text: string }
  | { readonly kind: 'string'; readonly value: string }
  | { readonly kind: 'number'; readonly value: number };

export type Piece = { readonly text: string } | { readonly action: readonly Token[] };

const TOKEN =
  /\s*(?:(?<field>\.[A-Za-z_]\w*)|(?<variable>\$\w*)|(?<number>-?\d+(?:\.\d+)?)|(?<quoted>"(?:[^"\\\n]|\\.)*")|(?<raw>`[^`]*`)|(?<word>[A-Za-z_]\w*)|(?<symbol>:=|[|(),=.]))/y;

export function templateError(message: string): CliError {
  return new CliError(`the template is not understood: ${message}`, 1);
}

/** Throws `CliError`. `{{-` and `-}}` take away the white space beside them, comments say nothing. */
export function lex(source: string): Piece[] {
  const pieces: Piece[] = [];
  let at = 0;
  let trimNext = false;
  const text = (part: string): string => (trimNext ? part.trimStart() : part);
  for (;;) {
    const open = source.indexOf('{{', at);
    if (open < 0) break;
    const close = closeOf(source, open + 2);
    let inner = source.slice(open + 2, close);
    let before = text(source.slice(at, open));
    if (/^-\s/.test(inner)) {
      inner = inner.slice(1);
      before = before.trimEnd();
    }
    trimNext = /\s-$/.test(inner);
    if (trimNext) inner = inner.slice(0, -1);
    if (before !== '') pieces.push({ text: before });
    if (!/^\s*\/\*[\s\S]*\*\/\s*$/.test(inner)) pieces.push({ action: tokens(inner) });
    at = close + 2;
  }
  const rest = text(source.slice(at));
  if (rest !== '') pieces.push({ text: rest });
  return pieces;
}

/** Where `}}` is that is in no string. */
function closeOf(source: string, from: number): number {
  const next = /"(?:[^"\\\n]|\\.)*"|`[^`]*`|\}\}/g;
  next.lastIndex = from;
  for (let match = next.exec(source); match !== null; match = next.exec(source)) {
    if (match[0] === '}}') return match.index;
  }
  throw templateError(`{{ without }} in ${JSON.stringify(source.slice(from - 2, from + 20))}`);
}

function tokens(inner: string): Token[] {
  const found: Token[] = [];
  TOKEN.lastIndex = 0;
  const end = inner.trimEnd().length;
  while (TOKEN.lastIndex < end) {
    const at = TOKEN.lastIndex;
    const groups = TOKEN.exec(inner)?.groups;
    if (groups === undefined)
      throw templateError(`${JSON.stringify(inner.slice(at).trim())} in {{${inner}}}`);
    found.push(token(groups, at > 0 && !/\s/.test(inner[at] ?? ' ')));
  }
  if (found.length === 0) throw templateError('{{}} has nothing in it');
  return found;
}

function token(groups: Readonly<Record<string, string | undefined>>, joined: boolean): Token {
  const { field, variable, number, quoted, raw, word } = groups;
  if (field !== undefined) return { kind: 'field', text: field.slice(1), joined };
  if (variable !== undefined) return { kind: 'variable', text: variable };
  if (number !== undefined) return { kind: 'number', value: Number(number) };
  if (quoted !== undefined) return { kind: 'string', value: unquote(quoted) };
  if (raw !== undefined) return { kind: 'string', value: raw.slice(1, -1) };
  if (word !== undefined) return { kind: 'word', text: word };
  return { kind: 'symbol', text: groups.symbol ?? '' };
}

function unquote(quoted: string): string {
  try {
    return JSON.parse(quoted) as string;
  } catch {
    throw templateError(`${quoted} is not a string`);
  }
}
