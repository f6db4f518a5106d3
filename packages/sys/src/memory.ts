/** Memory as files: memfd, sparse copies, and reading another process's memory. */
import { readFileSync } from 'node:fs';
import { SysError } from './errors.ts';
import { address, check, errno, libc } from './libc.ts';

const MFD_CLOEXEC = 1;
const MADV_DONTNEED = 4;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const ENXIO = 6;
/** One call copies at most this much, so that the event loop is never held for long. */
const COPY_BYTES_MAX = 8 * 1024 * 1024;
/** IOV_MAX of Linux. */
export const READ_RANGES_MAX = 1024;

/**
 * An anonymous file in memory; the name is for /proc only. The caller closes the descriptor.
 *
 * @throws {SysError}
 */
export function memfdCreate(name: string): number {
  return check('memfd_create', libc.memfd_create(name, MFD_CLOEXEC));
}

/**
 * Copies the data of a sparse file over another one, holes left out. Both positions are moved. Gives the event
 * loop a turn after every 8 MiB. Returns the bytes copied.
 *
 * @throws {SysError}
 */
export async function copySparse(from: number, to: number): Promise<number> {
  let copied = 0;
  for (let at = 0n; ; ) {
    const data = libc.lseek(from, at, SEEK_DATA);
    if (data < 0n) {
      const number = errno();
      if (number === ENXIO) return copied; // no data after this
      throw SysError.fromErrno('lseek', number);
    }
    const hole = check('lseek', libc.lseek(from, data, SEEK_HOLE));
    check('lseek', libc.lseek(from, data, 0));
    check('lseek', libc.lseek(to, data, 0));
    for (let left = hole - data; left > 0n; ) {
      const part = left < BigInt(COPY_BYTES_MAX) ? left : BigInt(COPY_BYTES_MAX);
      const sent = check('sendfile', libc.sendfile(to, from, null, part));
      if (sent === 0n) throw SysError.fromErrno('sendfile: the file became shorter', 5);
      left -= sent;
      copied += Number(sent);
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    at = hole;
  }
}

export interface MemoryRange {
  readonly start: bigint;
  /** Bytes. */
  readonly length: number;
}

/**
 * Reads up to 1024 ranges of a process's memory, one after the other into `into`, as ptrace would be
 * allowed to.
 *
 * @throws {SysError} also when not all of it could be read.
 */
export function readProcessMemory(pid: number, ranges: readonly MemoryRange[], into: Uint8Array): void {
  if (ranges.length > READ_RANGES_MAX) throw new RangeError(`cannot read ${ranges.length} ranges at once`);
  const total = ranges.reduce((sum, range) => sum + range.length, 0);
  if (total > into.byteLength) throw new RangeError(`${total} bytes do not fit into ${into.byteLength}`);
  const local = Buffer.alloc(16);
  local.writeBigUInt64LE(address(into), 0);
  local.writeBigUInt64LE(BigInt(total), 8);
  const remote = Buffer.alloc(16 * ranges.length);
  for (const [i, range] of ranges.entries()) {
    remote.writeBigUInt64LE(range.start, i * 16);
    remote.writeBigUInt64LE(BigInt(range.length), i * 16 + 8);
  }
  const read = check(
    'process_vm_readv',
    libc.process_vm_readv(pid, local, 1n, remote, BigInt(ranges.length), 0n),
  );
  if (Number(read) !== total) throw SysError.fromErrno('process_vm_readv: only a part was read', 14);
}

/** Gives back what the C library keeps of freed memory, of all threads: 3 to 7 MB after a start, in half a millisecond. */
export function trimFreedMemory(): void {
  libc.malloc_trim(0n);
}

/**
 * Gives back what this process has mapped of programs and libraries and not changed. Start-up touches, and the kernel
 * maps around what is touched, far more of Node's binary than is used later; what is used again comes back from the
 * page cache, 64 KiB a fault. Returns the bytes that were mapped.
 *
 * @throws {SysError}
 */
export function dropCleanFilePages(): number {
  let dropped = 0;
  for (const { start, end, rssBytes } of cleanFileMappings(readFileSync('/proc/self/smaps', 'utf8'))) {
    check('madvise', libc.madvise(start, end - start, MADV_DONTNEED));
    dropped += rssBytes;
  }
  return dropped;
}

interface Mapping {
  readonly start: bigint;
  readonly end: bigint;
  readonly rssBytes: number;
}

/** The private, read-only file mappings in a text as of /proc/self/smaps that have no page of their own. */
export function cleanFileMappings(smaps: string): Mapping[] {
  const mappings: Mapping[] = [];
  const entry = /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ \S+ [1-9][0-9]* +\/.*\n((?:[A-Z].*\n)*)/gm;
  for (const [, start, end, fields] of smaps.matchAll(entry)) {
    const kilobytes = (field: string): number =>
      Number(new RegExp(`^${field}: +([0-9]+) kB$`, 'm').exec(fields ?? '')?.[1] ?? Number.NaN);
    // A page of our own (relocated, or written by a debugger) would be lost, also one that is swapped out: then it is
    // in no other field. Dirty pages that are not anonymous are the file's: it was just installed, and is not on its disk
    // yet.
    const own = ['Anonymous', 'Swap'].some((field) => kilobytes(field) !== 0);
    if (own || !(kilobytes('Rss') > 0)) continue;
    mappings.push({
      start: BigInt(`0x${start}`),
      end: BigInt(`0x${end}`),
      rssBytes: kilobytes('Rss') * 1024,
    });
  }
  return mappings;
}
