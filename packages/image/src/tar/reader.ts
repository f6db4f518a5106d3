/**
 * Reads a tar stream: bytes are pushed in, entries and views of their data come out.
 *
 * Ours, because the parsers on npm turn extended attributes into text, which destroys binary ones (file capabilities),
 * know no sparse files, and make a stream of every entry. Here the data of a file is never looked at, and costs
 * one call for each chunk of input. What ends the archive, and what may stand where, follows what Docker accepts.
 */
import { TAR_ENTRIES_MAX, TAR_EXTENSION_BYTES_MAX, XATTR_BYTES_MAX } from '../limits.ts';
import {
  BLOCK_BYTES,
  invalidTar,
  isZeroBlock,
  NO_XATTRS,
  parseHeader,
  type RawHeader,
  type SparseMap,
  type TarEntry,
  type TarType,
} from './header.ts';
import { parsePax, paxNumber } from './pax.ts';
import {
  checkSparse,
  MapBeforeData,
  oldExtensionPieces,
  oldHeaderPieces,
  oldHeaderRealBytes,
  paxSparse,
} from './sparse.ts';

export interface TarHandler {
  onEntry(entry: TarEntry): void;
  /** A piece of the last entry's data; the view is good until the call returns, unless the handler owns the input. */
  onData(data: Buffer): void;
  /** All of the last entry's data has come. */
  onEntryEnd(): void;
}

const TYPES: Readonly<Record<string, TarType>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  D: 'directory',
  '6': 'fifo',
};
const SCHILY_XATTR = 'SCHILY.xattr.';
const LIBARCHIVE_XATTR = 'LIBARCHIVE.xattr.';

/** What is read next. `block`: a header. `gather`: so many bytes, kept for `#gathered`. */
type State = 'block' | 'gather' | 'data' | 'padding' | 'end';

export class TarReader {
  readonly #handler: TarHandler;
  readonly #limit: number;
  #state: State = 'block';
  /** Bytes still to come in this state. */
  #left = BLOCK_BYTES;
  #padding = 0;
  #parts: Buffer[] = [];
  #gathered: (bytes: Buffer) => void;
  #entries = 0;
  #zeroBlocks = 0;
  // Extended headers that apply to the next entry.
  #records: Map<string, Buffer> | undefined;
  #sparsePairs: Buffer[] = [];
  #longName: string | undefined;
  #longLink: string | undefined;

  constructor(handler: TarHandler, entriesMax = TAR_ENTRIES_MAX) {
    this.#handler = handler;
    this.#limit = entriesMax;
    this.#gathered = (block) => this.#header(block);
  }

  get entries(): number {
    return this.#entries;
  }

  /** Takes the next bytes. Throws `ERR_ARCBOX_LAYER_INVALID`; then the reader is of no more use. */
  write(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#state === 'end') return;
      const take = Math.min(this.#left, chunk.length - at);
      const part = take === chunk.length && at === 0 ? chunk : chunk.subarray(at, at + take);
      at += take;
      this.#left -= take;
      if (this.#state === 'data') {
        this.#handler.onData(part);
        if (this.#left === 0) this.#endOfData();
      } else if (this.#state === 'padding') {
        if (this.#left === 0) this.#wantHeader();
      } else {
        this.#gather(part);
      }
    }
  }

  /** There are no more bytes. Throws when something is missing. */
  end(): void {
    if (this.#state === 'end') return;
    const between = this.#state === 'block' && this.#left === BLOCK_BYTES;
    const pending =
      this.#records !== undefined || this.#longName !== undefined || this.#longLink !== undefined;
    if (!between || pending) throw invalidTar('it ends in the middle of an entry');
  }

  #gather(part: Buffer): void {
    if (this.#left > 0) {
      // The caller may use the chunk's memory again.
      this.#parts.push(Buffer.from(part));
      return;
    }
    let bytes = part;
    if (this.#parts.length > 0) {
      bytes = Buffer.concat([...this.#parts, part]);
      this.#parts = [];
    }
    this.#gathered(bytes);
  }

  /** Asks for `length` bytes in one piece. */
  #want(length: number, then: (bytes: Buffer) => void): void {
    this.#state = 'gather';
    this.#left = length;
    this.#gathered = then;
  }

  #wantHeader(): void {
    this.#state = 'block';
    this.#left = BLOCK_BYTES;
    this.#gathered = (block) => this.#header(block);
  }

  #endOfData(): void {
    this.#handler.onEntryEnd();
    if (this.#padding === 0) {
      this.#wantHeader();
      return;
    }
    this.#state = 'padding';
    this.#left = this.#padding;
  }

  #header(block: Buffer): void {
    if (isZeroBlock(block)) {
      this.#zeroBlocks += 1;
      if (this.#zeroBlocks === 2) this.#state = 'end';
      else this.#wantHeader();
      return;
    }
    if (this.#zeroBlocks > 0) throw invalidTar('there is something after its end');
    const raw = parseHeader(block);
    switch (raw.typeFlag) {
      case 'x':
        this.#extension(raw, (data) => {
          this.#sparsePairs = [];
          this.#records = parsePax(data, (key, value) => {
            if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') {
              this.#sparsePairs.push(Buffer.from(value));
            }
          });
        });
        return;
      // Global headers say nothing about what is in the archive; Docker does not look at them either.
      case 'g':
      case 'V':
        this.#extension(raw, () => {});
        return;
      case 'L':
        this.#extension(raw, (data) => {
          this.#longName = untilZero(data);
        });
        return;
      case 'K':
        this.#extension(raw, (data) => {
          this.#longLink = untilZero(data);
        });
        return;
      case 'S': {
        const pieces: number[] = [];
        const map = { realBytes: oldHeaderRealBytes(block), pieces };
        if (oldHeaderPieces(block, pieces)) this.#sparseExtension(raw, map, pieces);
        else this.#entry(raw, map);
        return;
      }
      default:
        this.#entry(raw, undefined);
    }
  }

  #extension(raw: RawHeader, take: (data: Buffer) => void): void {
    const { sizeBytes } = raw;
    if (sizeBytes < 0 || sizeBytes > TAR_EXTENSION_BYTES_MAX) {
      throw invalidTar(`an extended header has ${sizeBytes} bytes; the limit is ${TAR_EXTENSION_BYTES_MAX}`);
    }
    if (sizeBytes === 0) {
      this.#wantHeader();
      return;
    }
    this.#want(sizeBytes + paddingOf(sizeBytes), (bytes) => {
      // Copied: it is kept until the entry has come.
      take(Buffer.from(bytes.subarray(0, sizeBytes)));
      this.#wantHeader();
    });
  }

  #sparseExtension(raw: RawHeader, map: SparseMap, pieces: number[]): void {
    this.#want(BLOCK_BYTES, (block) => {
      if (oldExtensionPieces(block, pieces)) this.#sparseExtension(raw, map, pieces);
      else this.#entry(raw, map);
    });
  }

  /** Puts together what the header and the extended headers before it say. */
  #entry(raw: RawHeader, oldSparse: SparseMap | undefined): void {
    this.#entries += 1;
    if (this.#entries > this.#limit) throw invalidTar(`it has more than ${this.#limit} entries`);
    const records = this.#records;
    const pairs = this.#sparsePairs;
    let name = this.#longName ?? raw.name;
    let linkName = this.#longLink ?? raw.linkName;
    let { uid, gid, mtime, sizeBytes } = raw;
    let xattrs = NO_XATTRS;
    let sparse = oldSparse;
    let mapInData = false;
    this.#records = undefined;
    this.#sparsePairs = [];
    this.#longName = undefined;
    this.#longLink = undefined;
    if (records !== undefined) {
      const get = (key: string): Buffer | undefined => {
        const value = records.get(key);
        // A record without a value takes back what was said before.
        return value === undefined || value.length === 0 ? undefined : value;
      };
      name = get('path')?.toString('latin1') ?? name;
      linkName = get('linkpath')?.toString('latin1') ?? linkName;
      const numeric = (key: string, fallback: number): number => {
        const value = get(key);
        return value === undefined ? fallback : paxNumber(value, key);
      };
      uid = numeric('uid', uid);
      gid = numeric('gid', gid);
      mtime = numeric('mtime', mtime);
      sizeBytes = numeric('size', sizeBytes);
      xattrs = xattrsOf(records);
      const stated = paxSparse(records, pairs);
      if (stated !== undefined) {
        name = stated.name?.toString('latin1') ?? name;
        mapInData = stated.inData;
        sparse = { realBytes: stated.realBytes, pieces: stated.pieces };
      }
    }
    if (name.includes('\0') || linkName.includes('\0')) throw invalidTar('a name contains a zero byte');
    let type = TYPES[raw.typeFlag];
    if (type === undefined) {
      throw invalidTar(`${printable(name)} is of the unknown type ${JSON.stringify(raw.typeFlag)}`);
    }
    if (type === 'file' && name.endsWith('/')) type = 'directory';
    if (sizeBytes < 0) throw invalidTar(`${printable(name)} has a negative size`);
    if (type !== 'file') {
      // As Go's reader, and so Docker: what only has a header has no data, whatever its size says.
      sizeBytes = 0;
      sparse = undefined;
      mapInData = false;
    }
    const entry: TarEntry = {
      name,
      type,
      mode: raw.mode & 0o7777,
      uid,
      gid,
      sizeBytes,
      mtime,
      linkName,
      devMajor: raw.devMajor,
      devMinor: raw.devMinor,
      xattrs,
      ...(sparse === undefined ? {} : { sparse }),
    };
    if (mapInData && sparse !== undefined) this.#mapInData(entry, sparse.realBytes, new MapBeforeData());
    else this.#begin(entry, sizeBytes);
  }

  /** Form 1.0 of sparse files: the map is read block by block, since its length is in it. */
  #mapInData(entry: TarEntry, realBytes: number, map: MapBeforeData): void {
    if (map.bytes + BLOCK_BYTES > entry.sizeBytes) {
      throw invalidTar(`the map of the sparse file ${printable(entry.name)} is incomplete`);
    }
    this.#want(BLOCK_BYTES, (block) => {
      if (!map.take(block)) {
        this.#mapInData(entry, realBytes, map);
        return;
      }
      const sizeBytes = entry.sizeBytes - map.bytes;
      this.#begin({ ...entry, sizeBytes, sparse: { realBytes, pieces: map.pieces } }, sizeBytes);
    });
  }

  #begin(entry: TarEntry, sizeBytes: number): void {
    if (entry.sparse !== undefined) checkSparse(entry.sparse, sizeBytes);
    this.#handler.onEntry(entry);
    this.#padding = paddingOf(sizeBytes);
    if (sizeBytes === 0) {
      this.#handler.onEntryEnd();
      this.#wantHeader();
      return;
    }
    this.#state = 'data';
    this.#left = sizeBytes;
  }
}

function xattrsOf(records: ReadonlyMap<string, Buffer>): ReadonlyMap<string, Buffer> {
  let found: Map<string, Buffer> | undefined;
  for (const [key, value] of records) {
    let name: string;
    let bytes = value;
    if (key.startsWith(SCHILY_XATTR)) {
      name = key.slice(SCHILY_XATTR.length);
    } else if (key.startsWith(LIBARCHIVE_XATTR)) {
      name = decodeURIComponentOr(key.slice(LIBARCHIVE_XATTR.length));
      if (records.has(SCHILY_XATTR + name)) continue;
      bytes = Buffer.from(value.toString('latin1'), 'base64');
    } else {
      continue;
    }
    if (bytes.length > XATTR_BYTES_MAX) {
      throw invalidTar(`the extended attribute ${printable(name)} has ${bytes.length} bytes`);
    }
    // Decoded it may be what no record can say.
    if (/[\0=]/.test(name)) throw invalidTar(`${printable(name)} is no name of an extended attribute`);
    found ??= new Map();
    // Copied: directories keep theirs to the end, and the view would keep all of the header.
    found.set(name, Buffer.from(bytes));
  }
  return found ?? NO_XATTRS;
}

/** Latin1 again, one character a byte. */
function decodeURIComponentOr(name: string): string {
  try {
    return Buffer.from(decodeURIComponent(name)).toString('latin1');
  } catch {
    return name;
  }
}

function untilZero(data: Buffer): string {
  const end = data.indexOf(0);
  return data.toString('latin1', 0, end < 0 ? data.length : end);
}

export function paddingOf(sizeBytes: number): number {
  return (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
}

/** A name for a message: UTF-8 where it is, escaped where it would disturb. */
export function printable(name: string): string {
  return JSON.stringify(Buffer.from(name, 'latin1').toString('utf8').slice(0, 200));
}
