/**
 * Descriptors over Unix sockets (unix(7), SCM_RIGHTS).
 *
 * The structures are those of 64-bit Linux, the same on x86-64 and arm64:
 *   msghdr   name 0, namelen 8, iov 16, iovlen 24, control 32, controllen 40, flags 48; 56 bytes
 *   iovec    base 0, len 8
 *   cmsghdr  len 0, level 8, type 12, data 16
 */
import type { Socket } from 'node:net';
import { SysError } from './errors.ts';
import { address, check, errno, libc } from './libc.ts';

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_CTRUNC = 0x8;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const EINTR = 4;
const EAGAIN = 11;
/** SCM_MAX_FD of Linux is 253; more than a few is a mistake of ours. */
export const FDS_PER_MESSAGE_MAX = 16;
const CMSG_HEADER_BYTES = 16;

/**
 * The descriptor behind a connected socket. Still the socket's: never close it.
 *
 * @throws {SysError} EBADF when the socket is closed or has none.
 */
export function socketFd(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, '_handle');
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  if (typeof fd !== 'number' || fd < 0) throw SysError.fromErrno('looking up the descriptor of a socket', 9);
  return fd;
}

/**
 * Sends `data` with descriptors attached to its first byte, without waiting. Returns how many bytes
 * went: when not all, the rest goes as ordinary data; 0 when the socket was full, nothing was sent.
 *
 * @throws {SysError}
 */
export function sendFds(fd: number, data: Uint8Array, fds: readonly number[]): number {
  if (fds.length === 0 || fds.length > FDS_PER_MESSAGE_MAX)
    throw new RangeError(`cannot send ${fds.length} descriptors`);
  const controlBytes = CMSG_HEADER_BYTES + ((fds.length * 4 + 7) & ~7);
  const control = Buffer.alloc(controlBytes);
  control.writeBigUInt64LE(BigInt(CMSG_HEADER_BYTES + fds.length * 4), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  for (const [i, passed] of fds.entries()) control.writeInt32LE(passed, CMSG_HEADER_BYTES + i * 4);
  const iov = iovec(data);
  const message = msghdr(iov, control);
  for (;;) {
    const sent = libc.sendmsg(fd, message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0n) return Number(sent);
    const number = errno();
    if (number === EAGAIN) return 0;
    if (number !== EINTR) throw SysError.fromErrno('sendmsg', number);
  }
}

export interface Received {
  /** 0: the peer closed. */
  readonly bytes: number;
  /** The caller's to close. Closed on exec. */
  readonly fds: number[];
}

/**
 * Receives bytes into `data` and the descriptors that came with them, without waiting. `undefined` when there
 * is nothing.
 *
 * @throws {SysError}
 */
export function receiveFds(fd: number, data: Uint8Array): Received | undefined {
  const control = Buffer.alloc(CMSG_HEADER_BYTES + FDS_PER_MESSAGE_MAX * 4);
  const iov = iovec(data);
  const message = msghdr(iov, control);
  for (;;) {
    const received = libc.recvmsg(fd, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (received >= 0n) {
      const fds = passedFds(control, Number(message.readBigUInt64LE(40)));
      if ((message.readInt32LE(48) & MSG_CTRUNC) !== 0) {
        for (const passed of fds) closeFd(passed);
        throw SysError.fromErrno('recvmsg: more descriptors came than fit', 90);
      }
      return { bytes: Number(received), fds };
    }
    const number = errno();
    if (number === EAGAIN) return undefined;
    if (number !== EINTR) throw SysError.fromErrno('recvmsg', number);
  }
}

/** Closes a raw descriptor. */
export function closeFd(fd: number): void {
  check('close', libc.close(fd));
}

function passedFds(control: Buffer, length: number): number[] {
  const fds: number[] = [];
  for (let at = 0; at + CMSG_HEADER_BYTES <= length; ) {
    const end = at + Number(control.readBigUInt64LE(at));
    if (control.readInt32LE(at + 8) === SOL_SOCKET && control.readInt32LE(at + 12) === SCM_RIGHTS) {
      for (let i = at + CMSG_HEADER_BYTES; i + 4 <= end; i += 4) fds.push(control.readInt32LE(i));
    }
    at = (end + 7) & ~7;
  }
  return fds;
}

function iovec(data: Uint8Array): Buffer {
  const iov = Buffer.alloc(16);
  iov.writeBigUInt64LE(address(data), 0);
  iov.writeBigUInt64LE(BigInt(data.byteLength), 8);
  return iov;
}

function msghdr(iov: Buffer, control: Buffer): Buffer {
  const message = Buffer.alloc(56);
  message.writeBigUInt64LE(address(iov), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(address(control), 32);
  message.writeBigUInt64LE(BigInt(control.byteLength), 40);
  return message;
}
