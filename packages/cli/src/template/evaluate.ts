/** Running a template over a value, with the functions that docker's users know. */
import { templateError } from './lex.ts';
import { type Expression, type Node, parse } from './parse.ts';
import { printf, show } from './show.ts';

/** A field that a template can call with arguments, such as `.Label "name"`. */
export type Method = (...args: unknown[]) => unknown;

/** Objects whose fields are whatever a user put there: a missing one is no mistake. */
const maps = new WeakSet<object>();

export function goMap<Value>(entries: Readonly<Record<string, Value>>): Readonly<Record<string, Value>> {
  const map = { ...entries };
  maps.add(map);
  return map;
}

export type Template = (value: unknown) => string;

/** Throws `CliError` for what is no template; the result throws `CliError` for a field that is not there. */
export function compileTemplate(source: string): Template {
  const nodes = parse(source);
  return (value) => {
    const out: string[] = [];
    runNodes(nodes, { dot: value, variables: new Map([['$', value]]), out });
    return out.join('');
  };
}

const OUTPUT_PIECES_MAX = 1_000_000;
const BREAK = Symbol('break');
const CONTINUE = Symbol('continue');

interface Scope {
  readonly dot: unknown;
  readonly variables: Map<string, unknown>;
  readonly out: string[];
}

/** What ended it early, in a `range`. */
function runNodes(nodes: readonly Node[], scope: Scope): typeof BREAK | typeof CONTINUE | undefined {
  for (const node of nodes) {
    const ended = runNode(node, scope);
    if (ended !== undefined) return ended;
  }
  return undefined;
}

function runNode(node: Node, scope: Scope): typeof BREAK | typeof CONTINUE | undefined {
  if (scope.out.length > OUTPUT_PIECES_MAX) throw templateError('it prints too much');
  switch (node.kind) {
    case 'text':
      scope.out.push(node.text);
      return undefined;
    case 'print':
      scope.out.push(show(evaluate(node.value, scope)));
      return undefined;
    case 'set':
      if (!node.declare && !scope.variables.has(node.name))
        throw templateError(`${node.name} was not set with :=`);
      scope.variables.set(node.name, evaluate(node.value, scope));
      return undefined;
    case 'if':
      return runNodes(isTrue(evaluate(node.value, scope)) ? node.then : node.otherwise, scope);
    case 'with': {
      const value = evaluate(node.value, scope);
      return isTrue(value) ? runNodes(node.then, { ...scope, dot: value }) : runNodes(node.otherwise, scope);
    }
    case 'range':
      return runRange(node, scope);
    case 'break':
      return BREAK;
    case 'continue':
      return CONTINUE;
  }
}

function runRange(node: Extract<Node, { kind: 'range' }>, scope: Scope): undefined {
  const entries = entriesOf(evaluate(node.value, scope));
  if (entries.length === 0) {
    runNodes(node.otherwise, scope);
    return;
  }
  const [first, second] = node.names;
  for (const [key, element] of entries) {
    if (second !== undefined) scope.variables.set(second, element);
    if (first !== undefined) scope.variables.set(first, second === undefined ? element : key);
    if (runNodes(node.then, { ...scope, dot: element }) === BREAK) return;
  }
}

function entriesOf(value: unknown): (readonly [unknown, unknown])[] {
  if (value === null || value === undefined) return [];
  if (Array.isArray(value)) return value.map((element, index) => [index, element] as const);
  if (typeof value === 'object') return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  if (typeof value === 'number') return Array.from({ length: value }, (_, index) => [index, index] as const);
  throw templateError(`{{range}} over ${show(value)}, which is neither a list nor a map`);
}

function evaluate(expression: Expression, scope: Scope, piped: readonly unknown[] = []): unknown {
  switch (expression.kind) {
    case 'literal':
      return expression.value;
    case 'dot':
      return scope.dot;
    case 'variable':
      if (!scope.variables.has(expression.name)) throw templateError(`${expression.name} is not set`);
      return scope.variables.get(expression.name);
    case 'field': {
      const value = fieldOf(evaluate(expression.of, scope), expression.name);
      return typeof value === 'function' ? (value as Method)(...piped) : value;
    }
    case 'method': {
      const { field, args } = expression;
      if (field.kind !== 'field') throw templateError('that takes no arguments');
      const method = fieldOf(evaluate(field.of, scope), field.name);
      if (typeof method !== 'function') throw templateError(`.${field.name} takes no arguments`);
      return (method as Method)(...args.map((arg) => evaluate(arg, scope)), ...piped);
    }
    case 'call': {
      const run = FUNCTIONS[expression.name];
      if (run === undefined)
        throw templateError(
          `there is no function ${expression.name}; there are ${Object.keys(FUNCTIONS).sort().join(', ')}`,
        );
      return run(...expression.args.map((arg) => evaluate(arg, scope)), ...piped);
    }
    case 'pipe':
      return evaluate(expression.to, scope, [evaluate(expression.from, scope)]);
  }
}

function fieldOf(value: unknown, name: string): unknown {
  if (value === null || value === undefined) throw templateError(`.${name} of nothing`);
  if (typeof value === 'object' && Object.hasOwn(value, name))
    return (value as Record<string, unknown>)[name];
  if (typeof value === 'object' && maps.has(value)) return undefined;
  const known = typeof value === 'object' ? Object.keys(value).sort().join(', ') : '';
  throw templateError(`there is no field ${name}${known === '' ? '' : `; there are ${known}`}`);
}

/** Go's: everything but false, 0, nothing, and what is empty. */
export function isTrue(value: unknown): boolean {
  if (value === null || value === undefined || value === false || value === 0 || value === '') return false;
  if (Array.isArray(value)) return value.length > 0;
  return typeof value === 'object' && maps.has(value) ? Object.keys(value).length > 0 : true;
}

function indexOf(value: unknown, ...keys: unknown[]): unknown {
  return keys.reduce((inner, key) => {
    if (Array.isArray(inner) || typeof inner === 'string') {
      if (typeof key !== 'number' || key < 0 || key >= inner.length)
        throw templateError(`index ${show(key)} is outside of ${show(inner)}`);
      return inner[key] as unknown;
    }
    if (typeof inner !== 'object' || inner === null)
      throw templateError(`index of ${show(inner)}, which is no list or map`);
    return Object.hasOwn(inner, String(key)) ? (inner as Record<string, unknown>)[String(key)] : '';
  }, value);
}

function lengthOf(value: unknown): number {
  if (typeof value === 'string') return Buffer.byteLength(value);
  if (Array.isArray(value)) return value.length;
  if (typeof value === 'object' && value !== null) return Object.keys(value).length;
  if (value === null || value === undefined) return 0;
  throw templateError(`len of ${show(value)}`);
}

function compare(a: unknown, b: unknown): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  if (typeof a === 'string' && typeof b === 'string') return a < b ? -1 : a > b ? 1 : 0;
  throw templateError(`${show(a)} and ${show(b)} cannot be compared`);
}

const text = (value: unknown): string => show(value);

const FUNCTIONS: Readonly<Record<string, (...args: unknown[]) => unknown>> = {
  json: (value) => JSON.stringify(value ?? null),
  join: (list, separator) => (Array.isArray(list) ? list.map(text).join(text(separator)) : text(list)),
  lower: (value) => text(value).toLowerCase(),
  upper: (value) => text(value).toUpperCase(),
  title: (value) => text(value).replace(/(^|\s)\S/g, (letter) => letter.toUpperCase()),
  split: (value, separator) => text(value).split(text(separator)),
  pad: (value, before, after) =>
    value === '' ? '' : `${' '.repeat(Number(before))}${text(value)}${' '.repeat(Number(after))}`,
  truncate: (value, length) => text(value).slice(0, Math.max(0, Number(length))),
  print: (...values) => values.map(text).join(' '),
  println: (...values) => `${values.map(text).join(' ')}\n`,
  printf: (format, ...values) => printf(text(format), values),
  index: indexOf,
  len: lengthOf,
  slice: (value, from = 0, to = undefined) =>
    typeof value === 'string' || Array.isArray(value)
      ? value.slice(Number(from), to === undefined ? undefined : Number(to))
      : templateErrorOf(`slice of ${show(value)}`),
  not: (value) => !isTrue(value),
  and: (...values) => values.find((value) => !isTrue(value)) ?? values.at(-1),
  or: (...values) => values.find((value) => isTrue(value)) ?? values.at(-1),
  eq: (first, ...others) => others.some((other) => other === first),
  ne: (a, b) => a !== b,
  lt: (a, b) => compare(a, b) < 0,
  le: (a, b) => compare(a, b) <= 0,
  gt: (a, b) => compare(a, b) > 0,
  ge: (a, b) => compare(a, b) >= 0,
};

function templateErrorOf(message: string): never {
  throw templateError(message);
}
