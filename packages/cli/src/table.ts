/** What listings have in common: the wishes of their users, and cells of their tables. */

export interface ListingOptions {
  readonly format?: string;
  readonly quiet?: boolean;
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
