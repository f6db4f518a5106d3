/** ICMP echo without privileges: ping sockets (Linux, where `net.ipv4.ping_group_range` allows). */
import { SysError } from './errors.ts';
import { errno, libc } from './libc.ts';
import { AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK } from './socket-numbers.ts';

const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;
const REFUSALS: readonly number[] = [1, 13, 93, 97]; // EPERM, EACCES, EPROTONOSUPPORT, EAFNOSUPPORT

/**
 * Opens a ping socket: what is sent is an echo request without the identifier, which the kernel gives, what is received
 * are its replies. `undefined` when the host does not allow it. The caller closes the descriptor.
 *
 * @throws {SysError} for any other reason, such as too many open files.
 */
export function openPingSocket(family: 4 | 6): number | undefined {
  const fd = libc.socket(
    family === 4 ? AF_INET : AF_INET6,
    SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
    family === 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6,
  );
  if (fd >= 0) return fd;
  const number = errno();
  if (REFUSALS.includes(number)) return undefined;
  throw SysError.fromErrno('socket', number);
}
