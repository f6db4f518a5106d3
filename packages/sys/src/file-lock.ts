/**
 * A lock on a file (flock(2)): one holder at a time, released by the kernel however the holder ends.
 * The holder writes its process into the file, so that others can say who it is.
 */
import fs from 'node:fs';
import { SysError } from './errors.ts';
import { errno, libc } from './libc.ts';
import { processStartTime } from './process.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;
const EWOULDBLOCK = 11;
/** A holder's line is `PID STARTTIME\n`. */
const HOLDER_BYTES_MAX = 64;

/** Who holds a lock: what the holder wrote, or `undefined` when it had not written yet. */
export interface LockHolder {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat. */
  readonly startTime: string;
}

export type LockResult =
  | { readonly held: true; readonly lock: FileLock }
  | { readonly held: false; readonly holder: LockHolder | undefined };

export class FileLock implements Disposable {
  readonly path: string;
  #fd: number;

  private constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
  }

  /**
   * Takes the lock if nobody has it; never waits. The file is made when missing (mode 0600) and
   * stays: removing it would let two processes lock two files of one name.
   *
   * @throws {SysError} when locking fails for another reason than a holder.
   */
  static tryAcquire(path: string): LockResult {
    const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
    try {
      if (libc.flock(fd, LOCK_EX | LOCK_NB) < 0) {
        const number = errno();
        if (number !== EWOULDBLOCK) throw SysError.fromErrno('flock', number);
        const holder = readHolder(fd);
        fs.closeSync(fd);
        return { held: false, holder };
      }
      fs.ftruncateSync(fd, 0);
      fs.writeSync(fd, `${process.pid} ${processStartTime(process.pid)}\n`, 0);
      return { held: true, lock: new FileLock(path, fd) };
    } catch (error) {
      fs.closeSync(fd);
      throw error;
    }
  }

  /** Releases the lock; again is without effect. */
  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    fs.ftruncateSync(this.#fd, 0);
    fs.closeSync(this.#fd);
    this.#fd = -1;
  }
}

function readHolder(fd: number): LockHolder | undefined {
  const buffer = Buffer.alloc(HOLDER_BYTES_MAX);
  const length = fs.readSync(fd, buffer, 0, buffer.length, 0);
  const match = /^([0-9]+) ([0-9]+)\n/.exec(buffer.toString('latin1', 0, length));
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  return { pid: Number(match[1]), startTime: match[2] };
}
