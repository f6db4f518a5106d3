/** Sizes as people write and read them; the same rules as in the configuration file. */
export { formatSize, parseSize } from '@arcbox/engine/size';

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'];
const DIGITS = 3;

/** As docker prints images: `4.26MB`, powers of 1000, three digits. */
export function decimalSize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${Number(value.toPrecision(DIGITS))}${UNITS[unit]}`;
}
