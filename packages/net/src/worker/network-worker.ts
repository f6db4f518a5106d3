/** The daemon's side of the network worker. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { Endpoint as NamedEndpoint } from '../dns/index.ts';
import { NetError, type NetErrorCode } from '../errors.ts';
import type { UplinkOptions } from '../nat/index.ts';
import type { RulePolicy } from '../policy/index.ts';
import { createRing, RingConsumer } from '../ring/spsc-ring.ts';
import type { HalfOpen } from '../stack/network-stack.ts';
import { ALLOW, type FlowPolicy, judge } from '../stack/policy.ts';
import { PolicyFunctions } from './policy-functions.ts';
import {
  ASKED,
  CAPTURE_HEADER_BYTES,
  type Command,
  type DeniedFlow,
  type FlowFunction,
  type FromWorker,
  type NetworkSetup,
  type PolicySubject,
  type Publication,
  type ToWorker,
  type WorkerFlows,
  type WorkerStats,
} from './protocol.ts';
import type { WorkerData } from './worker-main.ts';

/** Captured frames that the daemon has not taken yet. */
const CAPTURE_RING_BYTES: number = 4 * 1024 * 1024;
const YOUNG_GENERATION_MB = 2;

/** A frame as it passed a link. */
export interface CapturedFrame {
  readonly link: string;
  readonly direction: 'in' | 'out';
  /** Since 1970. */
  readonly timeUs: bigint;
  /** Frames of this link that were lost since the capture began, for they were not taken fast enough. */
  readonly lost: number;
  /** Good for the call only. */
  readonly frame: Uint8Array;
}

export interface NetworkWorkerOptions {
  /** Asked for flows of networks that were added with `asks`. */
  readonly policy?: FlowPolicy;
  /** A policy of rules denied a flow; told up to a rate, counted always. */
  denied?(flow: DeniedFlow): void;
  /** A link is gone by itself. */
  unplugged?(link: string, reason: string): void;
  warn?(what: string, detail: string): void;
  /** The thread ended by itself: nothing of it works any more. */
  died?(error: Error): void;
}

export class NetworkWorker implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #options: NetworkWorkerOptions;
  readonly #ring: RingConsumer;
  readonly #pending = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  readonly #functions = new PolicyFunctions();
  #captures = new Map<string, (frame: CapturedFrame) => void>();
  #id = 0;
  #closed = false;

  private constructor(worker: Worker, ring: SharedArrayBuffer, options: NetworkWorkerOptions) {
    this.#worker = worker;
    this.#options = options;
    this.#ring = new RingConsumer(ring);
    worker.on('message', (message: FromWorker) => this.#message(message));
    worker.on('error', (error: Error) => this.#died(error));
    worker.on('exit', () => this.#died(new NetError('ERR_ARCBOX_NET_HOST', 'The network worker has ended')));
  }

  /** Starts the thread. The process does not stay alive for it. */
  static async start(options: NetworkWorkerOptions = {}): Promise<NetworkWorker> {
    const captureRing = createRing(CAPTURE_RING_BYTES);
    const worker = new Worker(new URL('./worker-main.ts', import.meta.url), {
      workerData: { captureRing } satisfies WorkerData,
      name: 'network',
      // Frames are not on the heap; what is there need not be much.
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
    });
    await once(worker, 'message');
    worker.unref();
    return new NetworkWorker(worker, captureRing, options);
  }

  /** @throws {NetError} ERR_ARCBOX_NET_CONFIG, ERR_ARCBOX_NET_ADDRESS, ERR_ARCBOX_NET_EXHAUSTED */
  async addNetwork(network: NetworkSetup): Promise<void> {
    await this.#call({ do: 'addNetwork', network });
  }

  /** Routed mode, from now on and for all networks but internal ones. @throws {NetError} ERR_ARCBOX_NET_HOST */
  async setUplink(uplink: UplinkOptions): Promise<void> {
    await this.#call({ do: 'setUplink', uplink });
  }

  async removeNetwork(name: string): Promise<void> {
    await this.#call({ do: 'removeNetwork', name });
  }

  /** Connects to the frames of a machine's card, a Unix socket. */
  async plug(link: string, path: string): Promise<void> {
    await this.#call({ do: 'plug', link, path });
  }

  async unplug(link: string): Promise<void> {
    await this.#call({ do: 'unplug', link });
  }

  /** Joins a VLAN of a link (0: untagged) with a network. */
  async attach(link: string, vlan: number, network: string): Promise<void> {
    await this.#call({ do: 'attach', link, vlan, network });
  }

  async detach(link: string, vlan: number): Promise<void> {
    await this.#call({ do: 'detach', link, vlan });
  }

  /** Gives an endpoint names in its network. */
  async addEndpoint(endpoint: NamedEndpoint): Promise<void> {
    await this.#call({ do: 'addEndpoint', endpoint });
  }

  async removeEndpoint(owner: string, network: string): Promise<void> {
    await this.#call({ do: 'removeEndpoint', owner, network });
  }

  /**
   * Gives a machine or an owner of endpoints rules, others, a function, or nothing. A function is called in this thread;
   * what it throws denies, and so does an answer that means nothing or has not come after 5 s.
   *
   * @throws {NetError} ERR_ARCBOX_NET_POLICY
   */
  async setPolicy(subject: PolicySubject, policy: RulePolicy | FlowFunction | undefined): Promise<void> {
    if (typeof policy === 'function') {
      this.#functions.set(subject, policy);
      await this.#call({ do: 'setPolicy', subject, policy: ASKED });
      return;
    }
    await this.#call({ do: 'setPolicy', subject, policy });
    this.#functions.set(subject, undefined);
  }

  /** Resets connections of machines whose other end went with an earlier worker. Those of this one are left alone. */
  async resetConnections(network: string, connections: readonly HalfOpen[]): Promise<void> {
    await this.#call({ do: 'reset', network, connections });
  }

  /** Answers with the host's port. @throws {NetError} ERR_ARCBOX_NET_PORT_TAKEN, ERR_ARCBOX_NET_NO_ADDRESS */
  async publish(publication: Publication): Promise<number> {
    return (await this.#call({ do: 'publish', publication })) as number;
  }

  async unpublish(id: string): Promise<void> {
    await this.#call({ do: 'unpublish', id });
  }

  async stats(): Promise<WorkerStats> {
    return (await this.#call({ do: 'stats' })) as WorkerStats;
  }

  /** What passes now. */
  async flows(): Promise<WorkerFlows> {
    return (await this.#call({ do: 'flows' })) as WorkerFlows;
  }

  /** Calls `take` with the frames of a link until the returned thing is disposed of. */
  async capture(link: string, take: (frame: CapturedFrame) => void): Promise<AsyncDisposable> {
    this.#captures.set(link, take);
    await this.#call({ do: 'capture', link, on: true });
    return {
      [Symbol.asyncDispose]: async () => {
        if (!this.#closed) await this.#call({ do: 'capture', link, on: false }).catch(() => {});
        this.#drain();
        this.#captures.delete(link);
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#worker.terminate();
    this.#fail(new NetError('ERR_ARCBOX_NET_HOST', 'The network worker has been stopped'));
  }

  #call(command: Command): Promise<unknown> {
    if (this.#closed) {
      return Promise.reject(new NetError('ERR_ARCBOX_NET_HOST', 'The network worker has been stopped'));
    }
    this.#id += 1;
    const id = this.#id;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      // Somebody waits for the answer.
      this.#worker.ref();
      this.#post({ kind: 'command', id, command });
    });
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #message(message: FromWorker): void {
    if (message.kind === 'done' || message.kind === 'failed') {
      const waiting = this.#pending.get(message.id);
      this.#pending.delete(message.id);
      if (this.#pending.size === 0) this.#worker.unref();
      if (message.kind === 'done') waiting?.resolve(message.value);
      else waiting?.reject(new NetError(message.code as NetErrorCode, message.message));
    } else if (message.kind === 'ask') {
      const { id } = message;
      judge(this.#options.policy ?? (() => ALLOW), message.flow, (verdict) => {
        if (!this.#closed) this.#post({ kind: 'verdict', id, verdict });
      });
    } else if (message.kind === 'askFunction') {
      const { id } = message;
      void this.#functions.answer(message.subject, message.flow).then((answer) => {
        if (!this.#closed) this.#post({ kind: 'answer', id, answer });
      });
    } else if (message.kind === 'captured') {
      this.#drain();
    } else if (message.kind === 'unplugged') {
      this.#options.unplugged?.(message.link, message.reason);
    } else if (message.kind === 'denied') {
      this.#options.denied?.(message.flow);
    } else if (message.kind === 'warning') {
      this.#options.warn?.(message.what, message.detail);
    }
  }

  #drain(): void {
    this.#ring.drain((record) => {
      const head = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
      const nameEnd = CAPTURE_HEADER_BYTES + (head[8] ?? 0);
      const link = head.toString('utf8', CAPTURE_HEADER_BYTES, nameEnd);
      this.#captures.get(link)?.({
        link,
        direction: head[9] === 0 ? 'in' : 'out',
        timeUs: head.readBigUInt64LE(0),
        lost: head.readUInt32LE(10),
        frame: record.subarray(nameEnd),
      });
    });
  }

  #died(error: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#fail(error);
    this.#options.died?.(error);
  }

  #fail(error: Error): void {
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}
