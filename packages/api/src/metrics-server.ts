/** `GET /metrics` for Prometheus: on the daemon's socket, and on an address of the loopback interface when configured. */
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { messageOf, type Runtime } from '@arcbox/engine';

export const METRICS_PATH = '/metrics';
const REQUEST_TIMEOUT_MS = 10_000;
const CONNECTIONS_MAX = 16;

/** Answers with the page; never rejects. The library behind it is loaded for the first who asks. */
export async function answerMetrics(runtime: Runtime, response: ServerResponse): Promise<void> {
  try {
    const { metricsPage } = await import('./metrics.ts');
    const { contentType, body } = await metricsPage(runtime);
    response.writeHead(200, { 'content-type': contentType, 'content-length': Buffer.byteLength(body) });
    response.end(body);
  } catch (error) {
    response.writeHead(503, { 'content-type': 'text/plain' });
    response.end(`${messageOf(error)}\n`);
  }
}

export class MetricsServer implements AsyncDisposable {
  /** Listens at `host:port`. Rejects when that cannot be. */
  static async listen(address: string, runtime: Runtime): Promise<MetricsServer> {
    const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
      if (request.method === 'GET' && request.url === METRICS_PATH) {
        void answerMetrics(runtime, response);
        return;
      }
      response.writeHead(404).end();
    });
    server.maxConnections = CONNECTIONS_MAX;
    const { hostname, port } = new URL(`http://${address}`);
    server.listen(Number(port), hostname.replace(/^\[|\]$/g, ''));
    await once(server, 'listening');
    return new MetricsServer(server);
  }

  readonly #server: ReturnType<typeof createServer>;

  private constructor(server: ReturnType<typeof createServer>) {
    this.#server = server;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    if (this.#server.listening) await once(this.#server, 'close');
  }
}
