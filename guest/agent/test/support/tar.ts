/** Entries of a ustar archive by hand, so that they can be wrong. */
export interface TarEntry {
  readonly name: string;
  /** Default: a file. */
  readonly type?: '0' | '1' | '2' | '3' | '5' | '6' | 'x' | 'g' | 'L';
  readonly link?: string;
  readonly data?: Uint8Array;
  readonly mode?: number;
  /** What the header says, instead of the size of `data`. */
  readonly size?: number;
  readonly checksum?: number;
}

const BLOCK = 512;

function octal(value: number, width: number): string {
  return `${value.toString(8).padStart(width - 1, '0')}\0`;
}

export function tarEntry(entry: TarEntry): Buffer {
  const { name, type = '0', link = '', data = new Uint8Array(0), mode = 0o644, size = data.length } = entry;
  const header = Buffer.alloc(BLOCK);
  header.write(name, 0, 100);
  header.write(octal(mode, 8), 100);
  header.write(octal(0, 8), 108);
  header.write(octal(0, 8), 116);
  header.write(octal(size, 12), 124);
  header.write(octal(1_700_000_000, 12), 136);
  header.write('        ', 148);
  header.write(type, 156);
  header.write(link, 157, 100);
  header.write('ustar\u000000', 257);
  const sum = entry.checksum ?? header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return Buffer.concat([header, data, Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK)]);
}

export function tar(...entries: TarEntry[]): Buffer {
  return Buffer.concat([...entries.map(tarEntry), Buffer.alloc(2 * BLOCK)]);
}
