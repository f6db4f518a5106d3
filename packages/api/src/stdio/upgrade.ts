/** Which stream a request with `Upgrade: arcbox-stream` is for. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { EngineError, type Runtime } from '@arcbox/engine';
import { serveAttach } from './attach-server.ts';
import { serveExec } from './exec-server.ts';
import { UPGRADE_PROTOCOL } from './frames.ts';
import { refuse } from './stream-server.ts';

type Serve = (
  runtime: Runtime,
  id: string,
  query: URLSearchParams,
  socket: Duplex,
  head: Buffer,
) => Promise<void>;

const STREAMS: readonly (readonly [RegExp, Serve])[] = [
  [/^\/v1\/containers\/([^/]+)\/attach$/, serveAttach],
  [/^\/v1\/execs\/([^/]+)\/start$/, serveExec],
];

/** Takes the connection over; `head` is what of a client's bytes follows the request. */
export async function serveUpgrade(
  runtime: Runtime,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  // Whoever fails next tells; a socket that errs must not take the daemon with it.
  socket.on('error', () => socket.destroy());
  try {
    const url = new URL(request.url ?? '/', 'http://localhost');
    for (const [path, serve] of STREAMS) {
      const id = path.exec(url.pathname)?.[1];
      if (id === undefined || request.method !== 'POST' || request.headers.upgrade !== UPGRADE_PROTOCOL)
        continue;
      await serve(runtime, decodeURIComponent(id), url.searchParams, socket, head);
      return;
    }
    throw new EngineError(
      'ERR_ARCBOX_INVALID_ARGUMENT',
      `${request.method} ${url.pathname} cannot be upgraded to ${request.headers.upgrade}`,
    );
  } catch (error) {
    refuse(socket, error);
  } finally {
    socket.end();
  }
}
