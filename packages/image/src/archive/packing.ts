/**
 * The packing around an archive. What a layer may be packed with (gzip, zstd) is unpacked in this process; xz and bzip2,
 * in which people keep archives, by their own programs, like everything that makes much of few bytes: a limit on memory,
 * no descriptors but its pipes, and killed with whoever wanted it.
 */
import { spawn } from 'node:child_process';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { ImageError, messageOf } from '../errors.ts';
import {
  type Compression,
  DETECT_BYTES,
  decompressor,
  detectPacking,
  type Packing,
} from '../layer/compression.ts';
import { STDERR_BYTES_MAX, UNPACK_MEMORY_MIB_MAX } from '../limits.ts';

type Outside = Exclude<Packing, Compression>;

const PROGRAMS: Readonly<Record<Outside, { readonly args: readonly string[]; readonly debian: string }>> = {
  xz: {
    args: ['--decompress', '--stdout', '--threads=1', `--memlimit-decompress=${UNPACK_MEMORY_MIB_MAX}MiB`],
    debian: 'xz-utils',
  },
  // Its largest block takes some 4 MB.
  bzip2: { args: ['--decompress', '--stdout'], debian: 'bzip2' },
};

/**
 * The archive without its packing; one of those in `keep` is left as it is. Throws `ERR_ARCBOX_ARCHIVE_INVALID`, and what
 * reading the input throws.
 */
export async function* unpacked(
  input: AsyncIterable<Buffer>,
  keep: readonly Packing[] = [],
): AsyncGenerator<Buffer, void, undefined> {
  const chunks = startingWith(input, DETECT_BYTES)[Symbol.asyncIterator]();
  const first = await chunks.next();
  if (first.done === true) return;
  const packing = detectPacking(first.value);
  async function* whole(): AsyncGenerator<Buffer, void, undefined> {
    if (first.done !== true) yield first.value;
    yield* { [Symbol.asyncIterator]: () => chunks };
  }
  if (packing === 'none' || keep.includes(packing)) yield* whole();
  else if (packing === 'gzip' || packing === 'zstd') yield* unpackInside(packing, whole());
  else yield* unpackOutside(packing, whole());
}

/** The same chunks, the first of them with at least so many bytes, when there are so many. */
export async function* startingWith(
  input: AsyncIterable<Buffer>,
  bytes: number,
): AsyncGenerator<Buffer, void, undefined> {
  let first: Buffer | undefined = Buffer.alloc(0);
  for await (const chunk of input) {
    if (first === undefined) {
      yield chunk;
      continue;
    }
    first = first.length === 0 ? chunk : Buffer.concat([first, chunk]);
    if (first.length < bytes) continue;
    yield first;
    first = undefined;
  }
  if (first !== undefined && first.length > 0) yield first;
}

async function* unpackInside(
  compression: Exclude<Compression, 'none'>,
  input: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer, void, undefined> {
  const stream = decompressor(compression);
  const feeding = pipeline(input, stream);
  feeding.catch(() => {});
  try {
    yield* stream as AsyncIterable<Buffer>;
    await feeding;
  } catch (error) {
    if (error instanceof ImageError) throw error;
    throw invalid('it is cut off or damaged', error);
  } finally {
    stream.destroy();
  }
}

async function* unpackOutside(
  packing: Outside,
  input: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer, void, undefined> {
  const { args, debian } = PROGRAMS[packing];
  const child = spawn(packing, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH ?? '/usr/bin:/bin' },
  });
  const { promise: ended, resolve } = Promise.withResolvers<number | Error>();
  child.once('error', resolve);
  child.once('close', (code) => resolve(code ?? -1));
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    if (said.length < STDERR_BYTES_MAX) said += text;
  });
  // What is wrong with the input is; that the program did not want all of it says the program.
  let failed: unknown;
  pipeline(Readable.from(input), child.stdin).catch((error: unknown) => {
    if (error instanceof ImageError) failed = error;
  });
  try {
    for await (const chunk of child.stdout as AsyncIterable<Buffer>) yield chunk;
    const end = await ended;
    if (failed !== undefined) throw failed;
    if (end instanceof Error)
      throw invalid(
        `${packing} cannot be run (${messageOf(end)}); install Debian's ${debian}, or unpack it first (${packing} -dc FILE | arcbox …)`,
        end,
      );
    if (end !== 0) throw invalid(firstLine(said) || `${packing} ended with ${end}`);
  } finally {
    child.kill('SIGKILL');
    child.stdin.destroy();
    await ended;
  }
}

/** The rest is advice, for whoever sits before the program itself. */
function firstLine(said: string): string {
  return (said.trim().split('\n')[0] ?? '').replace(/;$/, '');
}

function invalid(why: string, cause?: unknown): ImageError {
  return new ImageError('ERR_ARCBOX_ARCHIVE_INVALID', `the archive cannot be unpacked: ${why}`, { cause });
}
