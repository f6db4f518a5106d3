/**
 * ICMP echo: without privileges by ping sockets (Linux, where `net.ipv4.ping_group_range` allows), and by raw sockets for
 * whoever has CAP_NET_RAW.
 */
import { SysError } from './errors.ts';
import { check, errno, libc } from './libc.ts';
import { AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_RAW } from './socket-numbers.ts';

const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;
const EAFNOSUPPORT = 97;
const REFUSALS: readonly number[] = [1, 13, 93, EAFNOSUPPORT]; // EPERM, EACCES, EPROTONOSUPPORT

/**
 * Opens a ping socket: what is sent is an echo request without the identifier, which the kernel gives, what is received
 * are its replies. `undefined` when the host does not allow it. The caller closes the descriptor.
 *
 * @throws {SysError} for any other reason, such as too many open files.
 */
export function openPingSocket(family: 4 | 6): number | undefined {
  return openSocket(family, SOCK_DGRAM, family === 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

/**
 * Opens a raw socket that gets every echo reply that comes to this host, and nothing else: of IPv4 with the IP header.
 * What is sent is a whole message; the checksum of ICMPv6 is the kernel's. `undefined` when the host does not allow it.
 * The caller closes the descriptor.
 *
 * @throws {SysError} for any other reason, such as too many open files.
 */
export function openRawPingSocket(family: 4 | 6): number | undefined {
  const v4 = family === 4;
  const fd = openSocket(family, SOCK_RAW, v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
  if (fd === undefined) return undefined;
  const filter = v4 ? ONLY_ECHO_REPLY : ONLY_ECHO_REPLY_6;
  const [level, name] = v4 ? [SOL_RAW, ICMP_FILTER] : [IPPROTO_ICMPV6, ICMPV6_FILTER];
  try {
    check('setsockopt', libc.setsockopt(fd, level, name, filter, filter.length));
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  return fd;
}

/** Opens a UDP socket. The caller closes the descriptor. @throws {SysError} */
export function openDatagramSocket(family: 4 | 6): number {
  const fd = openSocket(family, SOCK_DGRAM, 0);
  if (fd === undefined) throw SysError.fromErrno('socket', EAFNOSUPPORT);
  return fd;
}

/** `target` is what `source` was from now on, and `source` is closed. @throws {SysError} */
export function replaceFd(target: number, source: number): void {
  check('dup3', libc.dup3(source, target, SOCK_CLOEXEC));
  libc.close(source);
}

function openSocket(family: 4 | 6, type: number, protocol: number): number | undefined {
  const domain = family === 4 ? AF_INET : AF_INET6;
  const fd = libc.socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  if (fd >= 0) return fd;
  const number = errno();
  if (REFUSALS.includes(number)) return undefined;
  throw SysError.fromErrno('socket', number);
}

const SOL_RAW = 255;
const ICMP_FILTER = 1;
const ICMPV6_FILTER = 1;
/** A bit for each type: set, it is not wanted. The numbers are the host's, and so is the order of their bytes. */
const ONLY_ECHO_REPLY: Buffer = Buffer.from(Uint32Array.of(~1).buffer);
const ECHO_REPLY_6 = 129;
const ONLY_ECHO_REPLY_6: Buffer = Buffer.from(
  Uint32Array.from({ length: 8 }, (_, word) =>
    word === ECHO_REPLY_6 >> 5 ? ~(1 << (ECHO_REPLY_6 & 31)) : ~0,
  ).buffer,
);
