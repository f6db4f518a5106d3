/** Values as Go's fmt prints them. */

/** As `%v`. */
export function show(value: unknown): string {
  if (value === undefined) return '<no value>';
  if (value === null) return '<nil>';
  if (Array.isArray(value)) return `[${value.map(show).join(' ')}]`;
  if (typeof value === 'object') {
    const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return `map[${entries.map(([key, inner]) => `${key}:${show(inner)}`).join(' ')}]`;
  }
  return String(value);
}

/** `%s %v %d %q %t %x %f %%`, with flags, widths and precisions. */
export function printf(format: string, values: readonly unknown[]): string {
  let next = 0;
  return format.replace(
    /%([-+0 ]*)(\d*)(?:\.(\d+))?([a-zA-Z%])/g,
    (whole, flags: string, width: string, precision: string | undefined, verb: string) => {
      if (verb === '%') return '%';
      if (next >= values.length) return `%!${verb}(MISSING)`;
      const value = values[next];
      next += 1;
      const shown = verbOf(verb, value, precision === undefined ? undefined : Number(precision));
      if (shown === undefined) return `%!${whole.at(-1)}(${show(value)})`;
      const length = Number(width || 0);
      if (flags.includes('-')) return shown.padEnd(length);
      return shown.padStart(length, flags.includes('0') && verb !== 's' ? '0' : ' ');
    },
  );
}

function verbOf(verb: string, value: unknown, precision: number | undefined): string | undefined {
  switch (verb) {
    case 's':
    case 'v':
      return precision === undefined ? show(value) : show(value).slice(0, precision);
    case 'q':
      return JSON.stringify(show(value));
    case 't':
      return typeof value === 'boolean' ? String(value) : undefined;
    case 'd':
      return typeof value === 'number' ? String(Math.trunc(value)) : undefined;
    case 'x':
      return typeof value === 'number'
        ? Math.trunc(value).toString(16)
        : Buffer.from(show(value)).toString('hex');
    case 'f':
      return typeof value === 'number' ? value.toFixed(precision ?? 6) : undefined;
    default:
      return undefined;
  }
}
