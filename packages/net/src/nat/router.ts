/**
 * Routed mode: a router between two TUN devices, in a thread of its own. The devices are made when it starts and go when
 * it ends, however that is: they belong to its descriptors.
 *
 * Needs CAP_NET_ADMIN. What lies behind the outside device is the host's business: it has to route, and to translate or
 * announce the outside address, as for any router in its network.
 */
import { writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { closeFd, eventFd } from '@arcbox/sys';
import { NetError, reasonOf } from '../errors.ts';
import type {
  FromRouter,
  RouterCommand,
  RouterCounters,
  RouterOptions,
  ToRouter,
  WorkerData,
} from './protocol.ts';

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class NatRouter implements AsyncDisposable {
  /** The interfaces' names, as the kernel gave them. */
  readonly inside: string;
  readonly outside: string;
  /** Resolves when the router has ended by itself, with the reason; never when it was stopped. */
  readonly failed: Promise<Error>;
  readonly #worker: Worker;
  readonly #wakeFd: number;
  readonly #ended: Promise<void>;
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;
  #open = true;

  private constructor(
    worker: Worker,
    wakeFd: number,
    names: { readonly inside: string; readonly outside: string },
  ) {
    this.#worker = worker;
    this.#wakeFd = wakeFd;
    this.inside = names.inside;
    this.outside = names.outside;
    worker.on('message', (message: FromRouter) => {
      if (message.kind !== 'done') return;
      this.#waiting.get(message.id)?.resolve(message.value);
      this.#waiting.delete(message.id);
    });
    let reason: Error = new NetError('ERR_ARCBOX_NET_HOST', 'the router ended');
    worker.once('error', (error) => {
      reason = new NetError('ERR_ARCBOX_NET_HOST', `the router ended: ${reasonOf(error)}`, { cause: error });
    });
    this.#ended = new Promise((resolve) => worker.once('exit', () => resolve()));
    this.failed = new Promise((resolve) => {
      void this.#ended.then(() => {
        for (const waiting of this.#waiting.values()) waiting.reject(reason);
        this.#waiting.clear();
        if (this.#open) resolve(reason);
        this.#open = false;
        closeFd(wakeFd);
      });
    });
  }

  /** @throws {NetError} `ERR_ARCBOX_NET_HOST` when a device cannot be made; `ERR_ARCBOX_NET_ADDRESS` */
  static async start(options: RouterOptions): Promise<NatRouter> {
    const wakeFd = eventFd();
    const workerData: WorkerData = { options, wakeFd };
    const worker = new Worker(new URL('./router-worker.ts', import.meta.url), { workerData });
    try {
      const names = await firstWord(worker);
      return new NatRouter(worker, wakeFd, names);
    } catch (error) {
      closeFd(wakeFd);
      throw new NetError(
        'ERR_ARCBOX_NET_HOST',
        `the router between ${options.inside.name} and ${options.outside.name} cannot start: ${reasonOf(error)}; ` +
          'it needs /dev/net/tun and the capability CAP_NET_ADMIN',
        { cause: error },
      );
    }
  }

  counters(): Promise<RouterCounters> {
    return this.#tell({ do: 'counters' }) as Promise<RouterCounters>;
  }

  /** What arrives at a port outside goes to an endpoint inside. False when the port is in use. */
  publish(protocol: 'tcp' | 'udp', port: number, address: string, insidePort: number): Promise<boolean> {
    return this.#tell({ do: 'publish', protocol, port, address, insidePort }) as Promise<boolean>;
  }

  withdraw(protocol: 'tcp' | 'udp', port: number): Promise<boolean> {
    return this.#tell({ do: 'withdraw', protocol, port }) as Promise<boolean>;
  }

  /** Ends the router; its devices are gone when this resolves. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#open) {
      this.#open = false;
      this.#send({ do: 'stop' }, { resolve: () => {}, reject: () => {} });
    }
    await this.#ended;
  }

  #tell(command: RouterCommand): Promise<unknown> {
    if (!this.#open) return Promise.reject(new NetError('ERR_ARCBOX_NET_HOST', 'the router has ended'));
    return new Promise((resolve, reject) => this.#send(command, { resolve, reject }));
  }

  #send(command: RouterCommand, waiting: Waiting): void {
    const message: ToRouter = { id: this.#next++, command };
    this.#waiting.set(message.id, waiting);
    this.#worker.postMessage(message);
    const one = Buffer.alloc(8);
    one.writeBigUInt64LE(1n);
    writeSync(this.#wakeFd, one);
  }
}

/** What the thread says first: the names of its devices, or why it has none. */
function firstWord(worker: Worker): Promise<{ readonly inside: string; readonly outside: string }> {
  return new Promise((resolve, reject) => {
    const settled = (): void => {
      worker.off('message', onMessage).off('error', onError).off('exit', onExit);
    };
    const onMessage = (message: FromRouter): void => {
      settled();
      if (message.kind === 'ready') resolve(message);
      else reject(new Error('its thread spoke out of turn'));
    };
    const onError = (error: unknown): void => {
      settled();
      reject(error);
    };
    const onExit = (): void => {
      settled();
      reject(new Error('its thread ended'));
    };
    worker.on('message', onMessage).on('error', onError).on('exit', onExit);
  });
}
