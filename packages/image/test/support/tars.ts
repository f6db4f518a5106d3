/** Tars for tests, made entry by entry with the writer, or by hand where the writer would not make them. */
import { NO_XATTRS, type TarEntry } from '../../src/tar/header.ts';
import { paddingOf } from '../../src/tar/reader.ts';
import { encodeHeader, TAR_END } from '../../src/tar/writer.ts';

export type EntryInput = Partial<TarEntry> & { readonly name: string; readonly data?: string | Buffer };

export function entry(input: EntryInput): Buffer {
  const data = Buffer.from(input.data ?? '');
  const header = encodeHeader({
    type: 'file',
    mode: input.type === 'directory' ? 0o755 : 0o644,
    uid: 0,
    gid: 0,
    mtime: 1,
    linkName: '',
    devMajor: 0,
    devMinor: 0,
    xattrs: NO_XATTRS,
    ...input,
    sizeBytes: input.sizeBytes ?? data.length,
  });
  return Buffer.concat([header, data, Buffer.alloc(paddingOf(data.length))]);
}

export function tar(...entries: readonly EntryInput[]): Buffer {
  return Buffer.concat([...entries.map(entry), TAR_END]);
}

/** Writes fields into a finished header block and mends its check sum. */
export function patchHeader(block: Buffer, patch: (block: Buffer) => void): Buffer {
  patch(block);
  block.write('        ', 148, 'latin1');
  let sum = 0;
  for (const byte of block.subarray(0, 512)) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** An extended header before the next entry. */
export function paxHeader(records: Buffer): Buffer {
  return patchHeader(entry({ name: 'PaxHeaders/x', data: records }), (block) => block.write('x', 156));
}
