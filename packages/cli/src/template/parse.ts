/** From the tokens of a template to its tree. */
import { lex, type Piece, type Token, templateError } from './lex.ts';

export type Expression =
  | { readonly kind: 'literal'; readonly value: unknown }
  | { readonly kind: 'dot' }
  | { readonly kind: 'variable'; readonly name: string }
  | { readonly kind: 'field'; readonly of: Expression; readonly name: string }
  | { readonly kind: 'call'; readonly name: string; readonly args: readonly Expression[] }
  /** A field that is a function of what follows it. */
  | { readonly kind: 'method'; readonly field: Expression; readonly args: readonly Expression[] }
  /** The last argument of the second is the value of the first. */
  | { readonly kind: 'pipe'; readonly from: Expression; readonly to: Expression };

export type Node =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'print'; readonly value: Expression }
  | { readonly kind: 'set'; readonly name: string; readonly value: Expression; readonly declare: boolean }
  | {
      readonly kind: 'if' | 'with';
      readonly value: Expression;
      readonly then: Node[];
      readonly otherwise: Node[];
    }
  | {
      readonly kind: 'range';
      /** `$index, $element`, or the element alone. */
      readonly names: readonly string[];
      readonly value: Expression;
      readonly then: Node[];
      readonly otherwise: Node[];
    }
  | { readonly kind: 'break' | 'continue' };

const UNSUPPORTED = new Set(['define', 'template', 'block']);
const DEPTH_MAX = 64;

/** Throws `CliError` for what is no template, or uses what we do not have. */
export function parse(source: string): Node[] {
  const pieces = lex(source);
  const cursor = { at: 0 };
  const { nodes, end } = parseUntil(pieces, cursor, 0);
  if (end !== '') throw templateError(`{{${end}}} without a beginning`);
  return nodes;
}

/** Up to `{{end}}` or `{{else …}}`, whose tokens after the word are `rest`. */
function parseUntil(
  pieces: readonly Piece[],
  cursor: { at: number },
  depth: number,
): { nodes: Node[]; end: string; rest: readonly Token[] } {
  if (depth > DEPTH_MAX) throw templateError(`more than ${DEPTH_MAX} actions in each other`);
  const nodes: Node[] = [];
  while (cursor.at < pieces.length) {
    const piece = pieces[cursor.at];
    cursor.at += 1;
    if (piece === undefined) break;
    if ('text' in piece) {
      nodes.push({ kind: 'text', text: piece.text });
      continue;
    }
    const [first, ...rest] = piece.action;
    const word = first?.kind === 'word' ? first.text : '';
    if (word === 'end' || word === 'else') return { nodes, end: word, rest };
    if (UNSUPPORTED.has(word)) throw templateError(`{{${word}}} is not supported`);
    if (word === 'break' || word === 'continue') nodes.push({ kind: word });
    else if (word === 'if' || word === 'with' || word === 'range')
      nodes.push(parseBlock(word, rest, pieces, cursor, depth));
    else nodes.push(parseAction(piece.action));
  }
  return { nodes, end: '', rest: [] };
}

function parseBlock(
  word: 'if' | 'with' | 'range',
  head: readonly Token[],
  pieces: readonly Piece[],
  cursor: { at: number },
  depth: number,
): Node {
  const { names, tokens } = word === 'range' ? rangeNames(head) : { names: [], tokens: head };
  const value = parsePipeline(tokens);
  const { nodes: then, end, rest } = parseUntil(pieces, cursor, depth + 1);
  let otherwise: Node[] = [];
  if (end === 'else') {
    const [next, ...more] = rest;
    if (next?.kind === 'word' && (next.text === 'if' || next.text === 'with')) {
      // Its {{end}} is ours.
      otherwise = [parseBlock(next.text, more, pieces, cursor, depth + 1)];
    } else {
      const last = parseUntil(pieces, cursor, depth + 1);
      if (last.end !== 'end') throw templateError(`{{${word}}} without {{end}}`);
      otherwise = last.nodes;
    }
  } else if (end !== 'end') {
    throw templateError(`{{${word}}} without {{end}}`);
  }
  return word === 'range'
    ? { kind: word, names, value, then, otherwise }
    : { kind: word, value, then, otherwise };
}

function rangeNames(tokens: readonly Token[]): { names: string[]; tokens: readonly Token[] } {
  const assign = tokens.findIndex((token) => token.kind === 'symbol' && token.text === ':=');
  if (assign < 0) return { names: [], tokens };
  const names = tokens.slice(0, assign).flatMap((token) => (token.kind === 'variable' ? [token.text] : []));
  if (names.length < 1 || names.length > 2) throw templateError('{{range}} sets one or two variables');
  return { names, tokens: tokens.slice(assign + 1) };
}

function parseAction(tokens: readonly Token[]): Node {
  const [first, second] = tokens;
  if (
    first?.kind === 'variable' &&
    second?.kind === 'symbol' &&
    (second.text === ':=' || second.text === '=')
  ) {
    return {
      kind: 'set',
      name: first.text,
      value: parsePipeline(tokens.slice(2)),
      declare: second.text === ':=',
    };
  }
  return { kind: 'print', value: parsePipeline(tokens) };
}

function parsePipeline(tokens: readonly Token[]): Expression {
  const reader = { tokens, at: 0 };
  const value = readPipeline(reader);
  if (reader.at < tokens.length) throw templateError(`${describe(tokens[reader.at])} is out of place`);
  return value;
}

interface Reader {
  readonly tokens: readonly Token[];
  at: number;
}

function readPipeline(reader: Reader): Expression {
  let value = readCommand(reader);
  while (isSymbol(reader.tokens[reader.at], '|')) {
    reader.at += 1;
    value = { kind: 'pipe', from: value, to: readCommand(reader) };
  }
  return value;
}

/** An operand, or a function with its arguments. */
function readCommand(reader: Reader): Expression {
  const first = reader.tokens[reader.at];
  if (first?.kind === 'word' && !['true', 'false', 'nil'].includes(first.text)) {
    reader.at += 1;
    return { kind: 'call', name: first.text, args: readOperands(reader) };
  }
  const operand = readOperand(reader);
  if (operand === undefined) throw templateError(`${describe(first)} where a value is expected`);
  const args = readOperands(reader);
  if (args.length === 0) return operand;
  if (operand.kind !== 'field') throw templateError(`${describe(first)} takes no arguments`);
  return { kind: 'method', field: operand, args };
}

function readOperands(reader: Reader): Expression[] {
  const args: Expression[] = [];
  for (let operand = readOperand(reader); operand !== undefined; operand = readOperand(reader))
    args.push(operand);
  return args;
}

function readOperand(reader: Reader): Expression | undefined {
  const token = reader.tokens[reader.at];
  if (token === undefined) return undefined;
  let value: Expression;
  if (token.kind === 'string' || token.kind === 'number') value = { kind: 'literal', value: token.value };
  else if (token.kind === 'variable') value = { kind: 'variable', name: token.text };
  else if (token.kind === 'field') value = { kind: 'field', of: { kind: 'dot' }, name: token.text };
  else if (token.kind === 'word') {
    const literals: Readonly<Record<string, unknown>> = { true: true, false: false, nil: null };
    // A function without arguments of its own, as an argument.
    value =
      token.text in literals
        ? { kind: 'literal', value: literals[token.text] }
        : { kind: 'call', name: token.text, args: [] };
  } else if (token.text === '.') value = { kind: 'dot' };
  else if (token.text === '(') {
    reader.at += 1;
    value = readPipeline(reader);
    if (!isSymbol(reader.tokens[reader.at], ')')) throw templateError('( without )');
  } else return undefined;
  reader.at += 1;
  for (
    let next = reader.tokens[reader.at];
    next?.kind === 'field' && next.joined;
    next = reader.tokens[reader.at]
  ) {
    value = { kind: 'field', of: value, name: next.text };
    reader.at += 1;
  }
  return value;
}

function isSymbol(token: Token | undefined, text: string): boolean {
  return token?.kind === 'symbol' && token.text === text;
}

function describe(token: Token | undefined): string {
  if (token === undefined) return 'the end';
  return JSON.stringify('value' in token ? token.value : token.text);
}
