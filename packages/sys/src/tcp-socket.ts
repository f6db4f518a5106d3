/** TCP sockets that are connected within the call: to services of this host. */
import { SysError } from './errors.ts';
import { errno, libc } from './libc.ts';
import { AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM } from './socket-numbers.ts';

const EALREADY = 114;

const SOCKADDR_IN_BYTES = 16;
const SOCKADDR_IN6_BYTES = 28;

/**
 * Connects to `port` of the host's loopback, `127.0.0.1` or `::1`, and answers with the socket, which does not block.
 * Such a connection is decided before connect(2) returns, unless the service has too many waiting: then `undefined`,
 * and nothing is left. The caller closes the descriptor.
 *
 * @throws {SysError} `ECONNREFUSED` when nobody listens there, or what else is in the way.
 */
export function connectLoopback(address: '127.0.0.1' | '::1', port: number): number | undefined {
  const v4 = address === '127.0.0.1';
  const fd = libc.socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) throw SysError.fromErrno('socket', errno());
  const to = v4 ? LOOPBACK_4 : LOOPBACK_6;
  to.writeUInt16BE(port, 2);
  // The first call answers EINPROGRESS, but the handshake is over when it returns; the second says how it went.
  if (libc.connect(fd, to, to.length) === 0 || libc.connect(fd, to, to.length) === 0) return fd;
  const number = errno();
  libc.close(fd);
  if (number === EALREADY) return undefined;
  throw SysError.fromErrno('connect', number);
}

/** struct sockaddr_in, but for the port: the family in the host's byte order, the rest in the network's. */
const LOOPBACK_4: Buffer = Buffer.alloc(SOCKADDR_IN_BYTES);
LOOPBACK_4.writeUInt16LE(AF_INET, 0);
LOOPBACK_4.writeUInt32BE(0x7f000001, 4);

/** struct sockaddr_in6. */
const LOOPBACK_6: Buffer = Buffer.alloc(SOCKADDR_IN6_BYTES);
LOOPBACK_6.writeUInt16LE(AF_INET6, 0);
LOOPBACK_6[23] = 1;
