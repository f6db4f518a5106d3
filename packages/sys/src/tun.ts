/**
 * TUN and TAP devices (Linux's tuntap.rst) and the little of netdevice(7) that one needs to bring them up: our end of a
 * cable into the host's network stack. A device lives as long as its descriptor is open.
 *
 * The structures are those of 64-bit Linux, the same on x86-64 and arm64:
 *   ifreq        name 0 (16 bytes), then by call: flags 16 (2 bytes), an int 16, or a sockaddr 16; 40 bytes
 *   sockaddr_in  family 0, port 2, address 4; 16 bytes
 */
import { closeSync, constants, openSync } from 'node:fs';
import { closeFd } from './fd-passing.ts';
import { check, libc } from './libc.ts';
import { AF_INET, SOCK_CLOEXEC, SOCK_DGRAM } from './socket-numbers.ts';

const IFREQ_BYTES = 40;
const NAME_BYTES_MAX = 15;
const TUNSETIFF = 0x400454can;
const SIOCGIFFLAGS = 0x8913n;
const SIOCSIFFLAGS = 0x8914n;
const SIOCSIFADDR = 0x8916n;
const SIOCSIFDSTADDR = 0x8918n;
const SIOCSIFNETMASK = 0x891cn;
const SIOCSIFMTU = 0x8922n;
const IFF_UP = 1;
const IFF_TUN = 1;
const IFF_TAP = 2;
/** Packets as they are, without four bytes before them. */
const IFF_NO_PI = 0x1000;

export interface TunOptions {
  /** Up to 15 bytes; with `%d` in it the kernel puts a number there. */
  readonly name: string;
  /** `tun`: IP packets; `tap`: Ethernet frames. */
  readonly kind: 'tun' | 'tap';
}

/** A device of ours. Reads and writes of its descriptor never wait. */
export class TunDevice implements Disposable {
  readonly name: string;
  #fd: number;

  private constructor(name: string, fd: number) {
    this.name = name;
    this.#fd = fd;
  }

  /**
   * Makes a device. Needs CAP_NET_ADMIN in the network namespace.
   *
   * @throws {SysError} EPERM, or EBUSY when there is one of this name.
   */
  static open(options: TunOptions): TunDevice {
    const request = ifreq(options.name);
    request.writeUInt16LE((options.kind === 'tun' ? IFF_TUN : IFF_TAP) | IFF_NO_PI, 16);
    const fd = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK);
    try {
      check('ioctl(TUNSETIFF)', libc.ioctl(fd, TUNSETIFF, request));
      return new TunDevice(request.toString('latin1', 0, request.indexOf(0)), fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  get fd(): number {
    return this.#fd;
  }

  /** Removes the device; again is without effect. */
  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
  }
}

export interface InterfaceOptions {
  /** Four bytes. */
  readonly address: Uint8Array;
  readonly prefixLength: number;
  /** The other end of a point-to-point device; four bytes. */
  readonly peer?: Uint8Array;
  readonly mtu: number;
}

/**
 * Gives an interface of this network namespace its address and MTU, and brings it up.
 *
 * @throws {SysError}
 */
export function configureInterface(name: string, options: InterfaceOptions): void {
  const socket = check('socket', libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  try {
    const call = (what: string, number: bigint, fill: (request: Buffer) => void): Buffer => {
      const request = ifreq(name);
      fill(request);
      check(`ioctl(${what}, ${name})`, libc.ioctl(socket, number, request));
      return request;
    };
    const address = (bytes: Uint8Array) => (request: Buffer) => {
      request.writeUInt16LE(AF_INET, 16);
      request.set(bytes, 20);
    };
    call('SIOCSIFADDR', SIOCSIFADDR, address(options.address));
    if (options.peer !== undefined) call('SIOCSIFDSTADDR', SIOCSIFDSTADDR, address(options.peer));
    const mask = Buffer.alloc(4);
    if (options.prefixLength > 0) mask.writeUInt32BE((0xffffffff << (32 - options.prefixLength)) >>> 0);
    call('SIOCSIFNETMASK', SIOCSIFNETMASK, address(mask));
    call('SIOCSIFMTU', SIOCSIFMTU, (request) => request.writeInt32LE(options.mtu, 16));
    const flags = call('SIOCGIFFLAGS', SIOCGIFFLAGS, () => {}).readUInt16LE(16);
    call('SIOCSIFFLAGS', SIOCSIFFLAGS, (request) => request.writeUInt16LE(flags | IFF_UP, 16));
  } finally {
    closeFd(socket);
  }
}

function ifreq(name: string): Buffer {
  const bytes = Buffer.from(name, 'latin1');
  if (bytes.length === 0 || bytes.length > NAME_BYTES_MAX) {
    throw new RangeError(
      `${JSON.stringify(name)} is no name of an interface; it has 1 to ${NAME_BYTES_MAX} bytes`,
    );
  }
  const request = Buffer.alloc(IFREQ_BYTES);
  request.set(bytes);
  return request;
}
