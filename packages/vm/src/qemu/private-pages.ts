/** The pages of a private file mapping that its process has written: they differ from the file. */
import fs from 'node:fs';
import { type MemoryRange, READ_RANGES_MAX, readProcessMemory } from '@arcbox/sys';
import { VmError } from '../errors.ts';
import { type MemoryMapping, readMappings } from './inspect.ts';

const PAGE_BYTES = 4096;
const ENTRY_BYTES = 8;
/** Bits of an entry's upper half (proc_pid_pagemap(5)): present, swapped, file page or shared. */
const PRESENT = 0x8000_0000;
const SWAPPED = 0x4000_0000;
const FILE_PAGE = 0x2000_0000;
/** Read and written at once, so that the event loop is never held for long. */
const CHUNK_BYTES_MAX = 8 * 1024 * 1024;

/** Writes them to their places in `fd`. The process must not run. Returns the bytes written. */
export async function copyPrivatePages(pid: number, mappedPath: string, fd: number): Promise<number> {
  const mappings = (await readMappings(pid)).filter(
    ({ name }) => name.replace(/ \(deleted\)$/, '') === mappedPath,
  );
  if (mappings.length === 0) {
    throw new VmError('ERR_ARCBOX_VM_SNAPSHOT', `Process ${pid} does not map ${mappedPath}`);
  }
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES_MAX);
  let written = 0;
  for (const mapping of mappings) {
    for (const batch of batches(privateRanges(pid, mapping))) {
      readProcessMemory(pid, batch, buffer);
      let at = 0;
      for (const { start, length } of batch) {
        fs.writeSync(fd, buffer, at, length, Number(start - mapping.start + mapping.fileOffset));
        at += length;
      }
      written += at;
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }
  return written;
}

function* privateRanges(pid: number, mapping: MemoryMapping): Generator<MemoryRange> {
  const pagemap = fs.openSync(`/proc/${pid}/pagemap`, 'r');
  try {
    const pages = Number((mapping.end - mapping.start) / BigInt(PAGE_BYTES));
    const entries = Buffer.alloc(pages * ENTRY_BYTES);
    const at = (mapping.start / BigInt(PAGE_BYTES)) * BigInt(ENTRY_BYTES);
    if (fs.readSync(pagemap, entries, 0, entries.length, at) !== entries.length) {
      throw new VmError('ERR_ARCBOX_VM_SNAPSHOT', `The page map of process ${pid} cannot be read`);
    }
    let first = -1;
    for (let page = 0; page <= pages; page++) {
      const isPrivate = page < pages && isAnonymous(entries.readUInt32LE(page * ENTRY_BYTES + 4));
      const full = first >= 0 && (page - first) * PAGE_BYTES >= CHUNK_BYTES_MAX;
      if (first >= 0 && (!isPrivate || full)) {
        const start = mapping.start + BigInt(first) * BigInt(PAGE_BYTES);
        yield { start, length: (page - first) * PAGE_BYTES };
        first = -1;
      }
      if (isPrivate && first < 0) first = page;
    }
  } finally {
    fs.closeSync(pagemap);
  }
}

function isAnonymous(upperHalf: number): boolean {
  const flags = upperHalf >>> 0;
  return (flags & SWAPPED) !== 0 || ((flags & PRESENT) !== 0 && (flags & FILE_PAGE) === 0);
}

/** Ranges together, as many as one call and the buffer take. */
function* batches(ranges: Iterable<MemoryRange>): Generator<MemoryRange[]> {
  let batch: MemoryRange[] = [];
  let bytes = 0;
  for (const range of ranges) {
    if (batch.length === READ_RANGES_MAX || bytes + range.length > CHUNK_BYTES_MAX) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(range);
    bytes += range.length;
  }
  if (batch.length > 0) yield batch;
}
