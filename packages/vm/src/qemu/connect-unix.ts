import { connect, type Socket } from 'node:net';
import { CONNECT_RETRY_MS_MAX, CONNECT_TIMEOUT_MS } from '../limits.ts';
import { isCode } from './run-dir.ts';

/**
 * Connects to a socket on which QEMU or a guardian listens. QEMU takes one client at a time and lets only one more
 * wait, so right after a client has left the queue can be full (EAGAIN): then tries again, backing off from 1 ms.
 */
export async function connectUnix(path: string): Promise<Socket> {
  const end = performance.now() + CONNECT_TIMEOUT_MS;
  for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, CONNECT_RETRY_MS_MAX)) {
    try {
      return await connectOnce(path);
    } catch (error) {
      if (!isCode(error, 'EAGAIN') || performance.now() > end) throw error;
    }
    await new Promise<void>((resolve) => setTimeout(resolve, waitMs));
  }
}

function connectOnce(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.removeListener('error', reject);
      resolve(socket);
    });
  });
}
