import { getSystemErrorMap } from 'node:util';

/** A failed system call. `errno` is its number, `name` of the code as in `<errno.h>`. */
export class SysError extends Error {
  override readonly name = 'SysError';
  readonly code: string;
  readonly errno: number;
  /** The call that failed. */
  readonly syscall: string;

  constructor(syscall: string, code: string, errno: number, description: string) {
    super(`${syscall} failed: ${description} (${code})`);
    this.syscall = syscall;
    this.code = code;
    this.errno = errno;
  }

  static fromErrno(syscall: string, errno: number): SysError {
    // libuv's map has negated numbers.
    const [code, description] = getSystemErrorMap().get(-errno) ?? [`E${errno}`, `error ${errno}`];
    return new SysError(syscall, code, errno, description);
  }
}
