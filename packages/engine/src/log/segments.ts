/** The files of a log: named by the position of their first byte, found and repaired when a log is opened. */
import { type FileHandle, mkdir, open, readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { LOG_BLOCK_BYTES } from '../limits.ts';
import { applyRecord, CHECKPOINT_BYTES, forEachRecord, freshRunState, type RunState } from './record.ts';

export interface Segment {
  /** Position, in the log, of the file's first byte. */
  readonly base: number;
  readonly path: string;
}

export interface RecoveredLog {
  /** Oldest first. */
  readonly segments: Segment[];
  /** Position after the last complete record. */
  readonly end: number;
  readonly state: RunState;
  /** Bytes of an incomplete record that were cut off. */
  readonly cutBytes: number;
}

export function segmentAt(directory: string, base: number): Segment {
  return { base, path: join(directory, `${String(base).padStart(16, '0')}.log`) };
}

/**
 * Finds the segments in `directory` and cuts off what is incomplete at the end of the newest. A newest file without
 * its checkpoint was being started when the crash came: it holds nothing and is removed.
 */
export async function recoverSegments(directory: string): Promise<RecoveredLog> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const segments = (await readdir(directory))
    .filter((name) => /^\d{16}\.log$/.test(name))
    .sort()
    .map((name) => segmentAt(directory, Number.parseInt(name, 10)));
  let cutBytes = 0;
  for (;;) {
    const newest = segments.at(-1);
    if (newest === undefined) return { segments, end: 0, state: freshRunState(0), cutBytes };
    await using file = await open(newest.path, 'r+');
    const { size } = await file.stat();
    const state = freshRunState(0);
    const valid = await scan(file, size, state);
    cutBytes += size - valid;
    if (valid >= CHECKPOINT_BYTES) {
      if (valid < size) await file.truncate(valid);
      return { segments, end: newest.base + valid, state, cutBytes };
    }
    await unlink(newest.path);
    segments.pop();
  }
}

/** Length of the valid beginning; `state` is what its records say. */
async function scan(file: FileHandle, size: number, state: RunState): Promise<number> {
  const block = Buffer.allocUnsafeSlow(Math.min(LOG_BLOCK_BYTES, Math.max(size, 1)));
  let valid = 0;
  while (valid < size) {
    const { bytesRead } = await file.read(block, 0, Math.min(block.length, size - valid), valid);
    if (bytesRead === 0) break;
    const whole = forEachRecord(block.subarray(0, bytesRead), 0, (header, at) => {
      if (valid + at === 0 && header.channel !== 0) return false;
      return applyRecord(state, header, block, at);
    });
    if (whole === 0) break;
    valid += whole;
  }
  return valid;
}
