/** Debian's docker-registry on a port of loopback, and a small server that fails in every way that registries fail. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const USER = 'ada';
export const PASSWORD = 'lovelace';
/** The end of its log is enough to say why it ended. */
const SAID_LENGTH_MAX = 10_000;
/** USER:PASSWORD as htpasswd -B writes it. */
const HTPASSWD = 'ada:$2b$05$abcdefghijklmnopqrstuuugyJgZetmHGvxwCJ1rpgM8bgT8KJ8.i';

export class DockerRegistry implements AsyncDisposable {
  readonly host: string;
  readonly directory: string;
  readonly #process: ChildProcess;

  static async start(options: { login?: boolean } = {}): Promise<DockerRegistry> {
    const directory = mkdtempSync(join(tmpdir(), 'arcbox-registry-'));
    mkdirSync(join(directory, 'data'));
    writeFileSync(join(directory, 'htpasswd'), `${HTPASSWD}\n`);
    const auth =
      options.login === true ? `auth: {htpasswd: {realm: test, path: ${join(directory, 'htpasswd')}}}` : '';
    writeFileSync(
      join(directory, 'config.yml'),
      [
        'version: 0.1',
        // At this level it says which port it was given.
        'log: {level: info, accesslog: {disabled: true}}',
        `storage: {filesystem: {rootdirectory: ${join(directory, 'data')}}, delete: {enabled: true}}`,
        'http: {addr: "127.0.0.1:0"}',
        auth,
      ].join('\n'),
    );
    const child = spawn('docker-registry', ['serve', join(directory, 'config.yml')], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { PATH: process.env.PATH ?? '', OTEL_TRACES_EXPORTER: 'none' },
    });
    const { promise: port, resolve, reject } = Promise.withResolvers<string>();
    let said = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-SAID_LENGTH_MAX);
      const [, listening] = /listening on 127\.0\.0\.1:(\d+)/.exec(said) ?? [];
      if (listening !== undefined) resolve(listening);
    });
    child.once('error', reject);
    child.once('close', () => reject(new Error(`docker-registry ended: ${said}`)));
    return new DockerRegistry(`127.0.0.1:${await port}`, directory, child);
  }

  private constructor(host: string, directory: string, child: ChildProcess) {
    this.host = host;
    this.directory = directory;
    this.#process = child;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = once(this.#process, 'exit');
    this.#process.kill();
    await exited;
    rmSync(this.directory, { recursive: true });
  }
}

/** A server of the test's own: `handle` answers everything. */
export class FakeServer implements AsyncDisposable {
  readonly host: string;
  readonly requests: string[] = [];
  readonly #server: Server;

  static async start(
    handle: (request: IncomingMessage, response: ServerResponse) => void,
  ): Promise<FakeServer> {
    const requests: string[] = [];
    const server = createServer((request, response) => {
      requests.push(
        `${request.method} ${request.url}${request.headers.range === undefined ? '' : ` ${request.headers.range}`}`,
      );
      handle(request, response);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new FakeServer(server, requests);
  }

  private constructor(server: Server, requests: string[]) {
    this.#server = server;
    this.requests = requests;
    this.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    if (this.#server.listening) await once(this.#server, 'close');
  }
}
