/** Extended headers of pax (POSIX.1-2001, *pax Interchange Format*): records of the form `LENGTH KEY=VALUE\n`. */
import { invalidTar } from './header.ts';

/** Values as bytes, since extended attributes are. A later record of the same key wins, except for `onRecord`. */
export function parsePax(
  data: Buffer,
  onRecord: (key: string, value: Buffer) => void = () => {},
): Map<string, Buffer> {
  const records = new Map<string, Buffer>();
  for (let at = 0; at < data.length; ) {
    const space = data.indexOf(0x20, at);
    const digits = space < 0 ? '' : data.toString('latin1', at, space);
    const length = /^[1-9][0-9]{0,8}$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    const equals = data.indexOf(0x3d, space);
    if (length === 0 || end > data.length || equals < 0 || equals >= end || data[end - 1] !== 0x0a) {
      throw invalidTar('an extended header is not made of records');
    }
    const key = data.toString('latin1', space + 1, equals);
    const value = data.subarray(equals + 1, end - 1);
    if (key === '') throw invalidTar('a record of an extended header has no key');
    onRecord(key, value);
    records.set(key, value);
    at = end;
  }
  return records;
}

/** One record; its length counts itself. */
export function paxRecord(key: string, value: Buffer | string): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'latin1') : value;
  const rest = 1 + Buffer.byteLength(key, 'latin1') + 1 + bytes.length + 1;
  let length = rest + String(rest).length;
  if (rest + String(length).length !== length) length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`, 'latin1'), bytes, Buffer.from('\n')]);
}

/** A decimal number of a record. Fractions (of times) are cut off. */
export function paxNumber(value: Buffer, what: string): number {
  const digits = value.toString('latin1');
  if (!/^-?[0-9]{1,20}(\.[0-9]*)?$/.test(digits)) throw invalidTar(`its ${what} is not a number`);
  const result = Math.floor(Number(digits));
  if (!Number.isSafeInteger(result)) throw invalidTar(`its ${what} is too large`);
  return result;
}
