/**
 * The C library, called through `node:ffi`. The only file of the project that imports it.
 *
 * A failed call returns -1 and leaves its reason in the thread's `errno`, which is read right after
 * the call, before anything else of ours runs.
 */
import ffi from 'node:ffi';
import { SysError } from './errors.ts';

const C_LIBRARY = process.platform === 'linux' ? 'libc.so.6' : null;
const library = new ffi.DynamicLibrary(C_LIBRARY);

const functions = library.getFunctions({
  __errno_location: { return: 'pointer', arguments: [] },
  close: { return: 'int32', arguments: ['int32'] },
  connect: { return: 'int32', arguments: ['int32', 'pointer', 'uint32'] },
  dup3: { return: 'int32', arguments: ['int32', 'int32', 'int32'] },
  eventfd: { return: 'int32', arguments: ['uint32', 'int32'] },
  flock: { return: 'int32', arguments: ['int32', 'int32'] },
  ioctl: { return: 'int32', arguments: ['int32', 'uint64', 'pointer'] },
  lseek: { return: 'int64', arguments: ['int32', 'int64', 'int32'] },
  sendfile: { return: 'int64', arguments: ['int32', 'int32', 'pointer', 'uint64'] },
  madvise: { return: 'int32', arguments: ['int64', 'uint64', 'int32'] },
  malloc_trim: { return: 'int32', arguments: ['uint64'] },
  memfd_create: { return: 'int32', arguments: ['pointer', 'uint32'] },
  poll: { return: 'int32', arguments: ['pointer', 'uint64', 'int32'] },
  process_vm_readv: {
    return: 'int64',
    arguments: ['int32', 'pointer', 'uint64', 'pointer', 'uint64', 'uint64'],
  },
  // Their results fit 32 bits, and a number costs nothing where a bigint would be made for every packet.
  readv: { return: 'int32', arguments: ['int32', 'pointer', 'int32'] },
  writev: { return: 'int32', arguments: ['int32', 'pointer', 'int32'] },
  recvmsg: { return: 'int64', arguments: ['int32', 'pointer', 'int32'] },
  sendmsg: { return: 'int64', arguments: ['int32', 'pointer', 'int32'] },
  setsockopt: { return: 'int32', arguments: ['int32', 'int32', 'int32', 'pointer', 'uint32'] },
  socket: { return: 'int32', arguments: ['int32', 'int32', 'int32'] },
  syscall: { return: 'int64', arguments: ['int64', 'int64', 'int64', 'int64', 'int64'] },
});

/** Number of the last failed call's error on this thread. */
export function errno(): number {
  return ffi.getInt32(functions.__errno_location());
}

/** The address of a buffer's first byte; good for as long as the caller holds the buffer. */
export function address(view: NodeJS.ArrayBufferView): bigint {
  return ffi.getRawPointer(view);
}

/** Returns `result`, or throws what `errno` says when it is negative. */
export function check(name: string, result: number): number;
export function check(name: string, result: bigint): bigint;
export function check(name: string, result: number | bigint): number | bigint {
  if (result < 0) throw SysError.fromErrno(name, errno());
  return result;
}

export const libc: typeof functions = functions;
