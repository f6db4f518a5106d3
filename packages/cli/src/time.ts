/** Points in time as people write them: an RFC 3339 time, Unix seconds, or how long ago (`10m`, `1h30m`). */
import { CliError } from './errors.ts';

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds since 1970. Throws `CliError` naming what was wrong. */
export function parseTime(text: string, nowMs: number = Date.now()): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Math.floor(Number(text) * 1000);
  const ago = parseDuration(text);
  if (ago !== undefined) return nowMs - ago;
  // A date and time without a zone is local time, as for docker; a date alone, too.
  const ms = Date.parse(/^\d{4}-\d{2}-\d{2}$/.test(text) ? `${text}T00:00:00` : text);
  if (/^\d{4}-/.test(text) && !Number.isNaN(ms)) return ms;
  throw new CliError(
    `${JSON.stringify(text)} is no time; write 2026-01-31T12:00:00Z, seconds since 1970, or how long ago, such as 10m`,
    1,
  );
}

/** Milliseconds of `1h30m`, `500ms`, `2s`; undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, value, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g))
    total += Number(value) * (UNITS[unit ?? ''] ?? 0);
  return Math.round(total);
}
