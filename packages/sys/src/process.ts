/** Processes by identity: a pid alone is reused; a pid with its start time, or a pidfd, is not. */
import fs from 'node:fs';
import { SysError } from './errors.ts';
import { check, errno, libc } from './libc.ts';

// The same on every architecture: they came after the tables were unified.
const SYS_PIDFD_SEND_SIGNAL = 424n;
const SYS_PIDFD_OPEN = 434n;
const ESRCH = 3;

/**
 * Field 22 of /proc/PID/stat, in clock ticks since boot.
 *
 * @throws {SysError} ESRCH when there is no such process.
 */
export function processStartTime(pid: number): string {
  let text: string;
  try {
    text = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    throw SysError.fromErrno(`reading the start time of process ${pid}`, ESRCH);
  }
  // The second field may hold spaces and parentheses.
  const startTime = text.slice(text.lastIndexOf(')') + 2).split(' ')[19];
  if (startTime === undefined) throw SysError.fromErrno(`reading /proc/${pid}/stat`, ESRCH);
  return startTime;
}

/** A reference to one process, for good. */
export class PidFd implements Disposable {
  readonly pid: number;
  #fd: number;

  private constructor(pid: number, fd: number) {
    this.pid = pid;
    this.#fd = fd;
  }

  /**
   * With `startTime` the process must be that one.
   *
   * @throws {SysError} ESRCH when there is no such process.
   */
  static open(pid: number, startTime?: string): PidFd {
    const pidfd = new PidFd(
      pid,
      Number(check('pidfd_open', libc.syscall(SYS_PIDFD_OPEN, BigInt(pid), 0n, 0n, 0n))),
    );
    try {
      // After the open: from here on the pid cannot be reused unnoticed.
      if (startTime !== undefined && processStartTime(pid) !== startTime) {
        throw SysError.fromErrno(`pidfd_open: process ${pid} is another one by now`, ESRCH);
      }
      return pidfd;
    } catch (error) {
      pidfd[Symbol.dispose]();
      throw error;
    }
  }

  /** The descriptor: readable when the process has ended. */
  get fd(): number {
    return this.#fd;
  }

  /** Sends a signal (0: only asks). False when the process has ended. */
  signal(signal: number): boolean {
    const result = libc.syscall(SYS_PIDFD_SEND_SIGNAL, BigInt(this.#fd), BigInt(signal), 0n, 0n);
    if (result >= 0n) return true;
    const number = errno();
    if (number === ESRCH) return false;
    throw SysError.fromErrno('pidfd_send_signal', number);
  }

  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    libc.close(this.#fd);
    this.#fd = -1;
  }
}
