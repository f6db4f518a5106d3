/**
 * One Unix socket for everything: HTTP/1.1 (Connect, stdio upgrades) and cleartext HTTP/2 (gRPC, Connect).
 *
 * Node's HTTP/2 server does not answer HTTP/1.1 and the other way round, so we look at a connection's first bytes and
 * hand it to the right one. Half-closed connections stay open: a client that has no more to say still wants to hear.
 */
import { rm } from 'node:fs/promises';
import {
  createServer as createHttpServer,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { CONNECTIONS_MAX, PREFACE_TIMEOUT_MS, QUIET_MS, STREAM_END_TIMEOUT_MS } from './limits.ts';
import { METRICS_PATH } from './metrics-server.ts';
import type { FullServer } from './rpc/full.ts';
import {
  type Registration,
  type StreamMethod,
  streamMethods,
  type UnaryMethod,
  unaryMethods,
} from './rpc/registration.ts';
import { isStreamJson, serveStreamJson } from './rpc/stream-json.ts';
import { isUnaryJson, serveUnaryJson } from './rpc/unary-json.ts';

const HTTP2_PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

export interface ServerOptions {
  readonly services: readonly Registration[];
  /** Serves requests that are no calls, such as files; undefined for one that it does not know. Never rejects. */
  readonly onRequest?: (request: IncomingMessage, response: ServerResponse) => Promise<void> | undefined;
  /** Takes over an HTTP/1.1 connection that asked for an upgrade. */
  readonly onUpgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => Promise<void>;
  /** Answers `GET /metrics`. */
  readonly onMetrics?: (response: ServerResponse) => Promise<void>;
  readonly onError: (error: unknown) => void;
  /** How long a new connection may take to say what it wants. */
  readonly prefaceTimeoutMs?: number;
  /** Called when there has been no connection for a while. */
  readonly onQuiet?: () => void;
}

export class ApiServer implements AsyncDisposable {
  readonly #options: ServerOptions;
  readonly #methods: ReadonlyMap<string, UnaryMethod>;
  readonly #streams: ReadonlyMap<string, StreamMethod>;
  readonly #server: Server;
  readonly #http1: HttpServer;
  readonly #sockets = new Set<Socket>();
  readonly #upgrades = new Set<Promise<void>>();
  readonly #streaming = new Set<Promise<void>>();
  #full: Promise<FullServer> | undefined;
  #path: string | undefined;
  #quiet: NodeJS.Timeout | undefined;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#methods = unaryMethods(options.services);
    this.#streams = streamMethods(options.services);
    this.#http1 = createHttpServer(
      // Its time limits run only in a server that listens itself: ours is on the socket, until the headers are there.
      { keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0 },
      (request, response) => {
        request.socket.setTimeout(0);
        const plain = options.onRequest?.(request, response);
        if (plain !== undefined) {
          this.#track(plain).catch(options.onError);
          return;
        }
        const served = this.#serve(request, response);
        served.catch((error: unknown) => {
          options.onError(error);
          response.destroy();
        });
      },
    );
    this.#http1.on('upgrade', (request, socket, head) => {
      request.socket.setTimeout(0);
      const upgrade = options
        .onUpgrade(request, socket, head)
        .catch(options.onError)
        .finally(() => this.#upgrades.delete(upgrade));
      this.#upgrades.add(upgrade);
    });
    this.#http1.on('clientError', (_error, socket) => socket.destroy());
    this.#server = createServer({ allowHalfOpen: true, highWaterMark: 64 * 1024 }, (socket) =>
      this.#welcome(socket),
    );
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#server.on('error', options.onError);
  }

  /** Listens at `path`; a socket file that is there is a dead daemon's, since we hold the lock. */
  async listen(path: string): Promise<void> {
    await rm(path, { force: true });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once('error', reject);
    // Nobody but the owner may connect, from the first moment.
    const mask = process.umask(0o177);
    this.#server.listen(path, () => resolve());
    process.umask(mask);
    await promise;
    this.#server.off('error', reject);
    this.#path = path;
    this.#awaitQuiet();
  }

  /** Takes no new connections; open ones go on. The socket file goes. */
  async stopListening(): Promise<void> {
    if (!this.#server.listening) return;
    this.#server.close();
    if (this.#path !== undefined) await rm(this.#path, { force: true });
  }

  /** Ends every connection; answers that are coming to their end may get there. */
  async close(): Promise<void> {
    await this.stopListening();
    await settled(this.#streaming, STREAM_END_TIMEOUT_MS);
    for (const socket of this.#sockets) socket.destroy();
    clearTimeout(this.#quiet);
    while (this.#upgrades.size > 0) await Promise.all(this.#upgrades);
  }

  /** Resolves when the streams that are open now have ended, at the latest after `timeoutMs`. */
  async streamsEnded(timeoutMs: number): Promise<void> {
    await settled(this.#upgrades, timeoutMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #awaitQuiet(): void {
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => this.#options.onQuiet?.(), QUIET_MS).unref();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (isUnaryJson(request, this.#methods)) return serveUnaryJson(request, response, this.#methods);
    if (isStreamJson(request, this.#streams)) return this.#serveStream(request, response);
    const { onMetrics } = this.#options;
    if (onMetrics !== undefined && request.method === 'GET' && request.url === METRICS_PATH)
      return onMetrics(response);
    const { http1 } = await this.#fullServer();
    http1(request, response);
  }

  #serveStream(request: IncomingMessage, response: ServerResponse): Promise<void> {
    return this.#track(serveStreamJson(request, response, this.#streams));
  }

  /** What is waited for, for a while, when we end. */
  #track(work: Promise<void>): Promise<void> {
    const tracked = work.finally(() => this.#streaming.delete(tracked));
    this.#streaming.add(tracked);
    return tracked;
  }

  #fullServer(): Promise<FullServer> {
    this.#full ??= import('./rpc/full.ts').then(({ createFullServer }) =>
      createFullServer(this.#options.services),
    );
    return this.#full;
  }

  #welcome(socket: Socket): void {
    clearTimeout(this.#quiet);
    this.#sockets.add(socket);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      if (this.#sockets.size === 0 && this.#server.listening) this.#awaitQuiet();
    });
    socket.on('error', () => socket.destroy());
    socket.setTimeout(this.#options.prefaceTimeoutMs ?? PREFACE_TIMEOUT_MS, () => socket.destroy());
    let seen: Buffer = Buffer.alloc(0);
    const onReadable = (): void => {
      const bytes = socket.read() as Buffer | null;
      if (bytes === null) return;
      seen = seen.length === 0 ? bytes : Buffer.concat([seen, bytes]);
      const length = Math.min(seen.length, HTTP2_PREFACE.length);
      const isHttp2 = seen.compare(HTTP2_PREFACE, 0, length, 0, length) === 0;
      if (isHttp2 && length < HTTP2_PREFACE.length) return;
      socket.off('readable', onReadable);
      socket.off('end', onEnd);
      socket.unshift(seen);
      if (!isHttp2) {
        this.#http1.emit('connection', socket);
        socket.resume();
        return;
      }
      socket.setTimeout(0);
      this.#fullServer().then(
        ({ http2 }) => http2.emit('connection', socket),
        (error: unknown) => {
          this.#options.onError(error);
          socket.destroy();
        },
      );
    };
    const onEnd = (): void => {
      socket.destroy();
    };
    socket.on('readable', onReadable);
    socket.once('end', onEnd);
  }
}

/** Resolves when all have settled, at the latest after `timeoutMs`. */
async function settled(work: Iterable<Promise<void>>, timeoutMs: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, timeoutMs);
  await Promise.race([Promise.allSettled(work), promise]);
  clearTimeout(timer);
}
