/**
 * Packets in and out of descriptors that do not wait, and waiting for several of them at once: for a thread that does
 * nothing else. One system call for a packet, nothing allocated for one: buffers, their addresses and the structures that
 * the calls want are made once.
 *
 *   iovec   base 0, length 8; 16 bytes
 *   pollfd  fd 0, events 4, revents 6; 8 bytes
 */
import { SysError } from './errors.ts';
import { address, errno, libc } from './libc.ts';

const EINTR = 4;
const EAGAIN = 11;
const ENOBUFS = 105;
const POLLIN = 1;
/** Errors and hang-ups are told whether asked for or not. */
const POLL_BROKEN = 0x8 | 0x10 | 0x20;
const IOVEC_BYTES = 16;
const POLLFD_BYTES = 8;

/** A row of packet buffers of one size. */
export class PacketBuffers {
  readonly bytes: Uint8Array;
  readonly slotBytes: number;
  readonly #vectors: Buffer;
  readonly #addresses: readonly bigint[];

  constructor(slots: number, slotBytes: number) {
    this.slotBytes = slotBytes;
    this.bytes = new Uint8Array(slots * slotBytes);
    this.#vectors = Buffer.alloc(slots * IOVEC_BYTES);
    const base = address(this.bytes);
    const vectors = address(this.#vectors);
    for (let slot = 0; slot < slots; slot++) {
      this.#vectors.writeBigUInt64LE(base + BigInt(slot * slotBytes), slot * IOVEC_BYTES);
    }
    this.#addresses = Array.from({ length: slots }, (_, slot) => vectors + BigInt(slot * IOVEC_BYTES));
  }

  /**
   * Reads one packet into a slot; gives its length, or -1 when there is none.
   *
   * @throws {SysError}
   */
  read(fd: number, slot: number): number {
    this.#vectors.writeUInt32LE(this.slotBytes, slot * IOVEC_BYTES + 8);
    for (;;) {
      const length = libc.readv(fd, this.#addresses[slot] as bigint, 1);
      if (length >= 0) return length;
      const number = errno();
      if (number === EAGAIN) return -1;
      if (number !== EINTR) throw SysError.fromErrno('readv', number);
    }
  }

  /**
   * Writes one packet, from the beginning of a slot. False when the other side's queue is full, or does not take it.
   *
   * @throws {SysError} when the descriptor is broken.
   */
  write(fd: number, slot: number, length: number): boolean {
    this.#vectors.writeUInt32LE(length, slot * IOVEC_BYTES + 8);
    for (;;) {
      if (libc.writev(fd, this.#addresses[slot] as bigint, 1) >= 0) return true;
      const number = errno();
      if (number === EAGAIN || number === ENOBUFS || number === EIO || number === EINVAL) return false;
      if (number !== EINTR) throw SysError.fromErrno('writev', number);
    }
  }
}

/** A device that is down, and one that finds a packet malformed, say these. */
const EIO = 5;
const EINVAL = 22;

/** Waits, blocking its thread, until one of several descriptors has something to read. */
export class Poller {
  readonly #requests: Buffer;
  readonly #count: bigint;

  constructor(fds: readonly number[]) {
    this.#count = BigInt(fds.length);
    this.#requests = Buffer.alloc(fds.length * POLLFD_BYTES);
    for (const [index, fd] of fds.entries()) {
      this.#requests.writeInt32LE(fd, index * POLLFD_BYTES);
      this.#requests.writeInt16LE(POLLIN, index * POLLFD_BYTES + 4);
    }
  }

  /**
   * Waits for up to `timeoutMs`, -1: for ever. False when nothing came.
   *
   * @throws {SysError}
   */
  wait(timeoutMs: number): boolean {
    const ready = libc.poll(this.#requests, this.#count, timeoutMs);
    if (ready >= 0) return ready > 0;
    const number = errno();
    if (number === EINTR) return false;
    throw SysError.fromErrno('poll', number);
  }

  /** Whether the descriptor with this index can be read. */
  ready(index: number): boolean {
    return (this.#requests.readInt16LE(index * POLLFD_BYTES + 6) & POLLIN) !== 0;
  }

  /** Whether it is broken, or its other side is gone. */
  broken(index: number): boolean {
    return (this.#requests.readInt16LE(index * POLLFD_BYTES + 6) & POLL_BROKEN) !== 0;
  }
}

/** A descriptor that becomes readable when another thread says so (eventfd(2)). The caller closes it. */
export function eventFd(): number {
  const EFD_CLOEXEC = 0o2000000;
  const EFD_NONBLOCK = 0o4000;
  const fd = libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw SysError.fromErrno('eventfd', errno());
  return fd;
}
