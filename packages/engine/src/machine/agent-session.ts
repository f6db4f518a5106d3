/**
 * What we have to say to a machine's agent, over the ends of connections, as long as the machine runs.
 *
 * A connection is an epoch (see the protocol): calls in flight end with it, objects do not. What can simply be asked
 * again (`wait`, and `eachEpoch` for whoever attaches) is asked again in the next epoch; a batch is not, since nobody
 * knows how far it came.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type AgentClient,
  type CallOptions,
  type ObjectEnd,
  type OpInput,
  type OpResult,
  ProtocolError,
} from '@arcbox/protocol';
import type { RunningVm } from '@arcbox/vm';
import { EngineError, messageOf } from '../errors.ts';
import { BATCH_TIMEOUT_MS, EPOCH_SHORT_MS, RECONNECT_MS_MAX, RECONNECT_MS_MIN } from '../limits.ts';
import type { Logger } from '../logger.ts';

export class AgentSession {
  /** Connects; rejects when the agent does not answer. */
  static async open(vm: RunningVm, logger: Logger): Promise<AgentSession> {
    const session = new AgentSession(vm, logger);
    session.#client = Promise.resolve(await vm.openAgent());
    session.#keepUp();
    return session;
  }

  readonly #vm: RunningVm;
  readonly #logger: Logger;
  readonly #ending = new AbortController();
  #client: Promise<AgentClient>;
  #connectedMs = performance.now();
  /** How long the next attempt waits. */
  #delayMs = 0;
  #usedMs = performance.now();

  private constructor(vm: RunningVm, logger: Logger) {
    this.#vm = vm;
    this.#logger = logger;
    this.#client = Promise.reject(new Error('not connected yet'));
    this.#client.catch(() => {});
    void vm.exited.then((exit) =>
      this.#end(`the machine ${vm.name} is gone (${exit.reason}): ${exit.detail}`),
    );
  }

  /** Aborted, with an `EngineError`, when there will be no further epoch. */
  get ended(): AbortSignal {
    return this.#ending.signal;
  }

  /** The current epoch's client, or the next one's when we are between two. Throws `ERR_ARCBOX_MACHINE_LOST`. */
  async client(): Promise<AgentClient> {
    this.#usedMs = performance.now();
    this.ended.throwIfAborted();
    return this.#client;
  }

  /** When it was last used, on the clock of `performance.now()`; now, while a call is in flight or a stream is open. */
  async usedMs(): Promise<number> {
    const { busy } = await this.#client;
    return busy ? performance.now() : this.#usedMs;
  }

  /** See `AgentClient.batch`. */
  async batch(ops: readonly OpInput[], options: CallOptions = {}): Promise<OpResult[]> {
    const client = await this.client();
    try {
      return await client.batch(ops, { timeoutMs: BATCH_TIMEOUT_MS, ...options });
    } finally {
      this.#usedMs = performance.now();
    }
  }

  /** See `AgentClient.wait`; goes on over the ends of epochs. */
  async wait(id: string): Promise<ObjectEnd> {
    return this.eachEpoch((client) => client.wait(id));
  }

  /** Runs `use` with the epoch's client, again with the next one's when the epoch ended under it. */
  async eachEpoch<T>(use: (client: AgentClient) => Promise<T>): Promise<T> {
    for (;;) {
      const client = await this.client();
      try {
        return await use(client);
      } catch (error) {
        if (!(error instanceof ProtocolError) || error.code !== 'ERR_ARCBOX_AGENT_CLOSED') throw error;
      }
    }
  }

  /** Nothing more is sent, and no further epoch is waited for. The connection is the machine's and ends with it. */
  close(): void {
    this.#end(`the connection to the machine ${this.#vm.name} was given up`);
  }

  #end(why: string): void {
    if (!this.#ending.signal.aborted) this.#ending.abort(new EngineError('ERR_ARCBOX_MACHINE_LOST', why));
  }

  #keepUp(): void {
    void this.#client.then(
      async (client) => {
        const reason = await client.closed;
        if (!this.#ending.signal.aborted) {
          this.#logger.warn('agent.epoch_ended', { machine: this.#vm.name, reason: reason.message });
        }
        this.#client = this.#reconnect();
        this.#client.catch(() => {});
        this.#keepUp();
      },
      () => {},
    );
  }

  /** At once, then ever more slowly; also when the agent greets us and ends the epoch again and again. */
  async #reconnect(): Promise<AgentClient> {
    if (performance.now() - this.#connectedMs >= EPOCH_SHORT_MS) this.#delayMs = 0;
    for (;;) {
      this.ended.throwIfAborted();
      if (this.#delayMs > 0) await sleep(this.#delayMs, undefined, { signal: this.ended }).catch(() => {});
      this.ended.throwIfAborted();
      this.#delayMs = Math.min(Math.max(this.#delayMs * 2, RECONNECT_MS_MIN), RECONNECT_MS_MAX);
      try {
        const client = await this.#vm.openAgent();
        this.#connectedMs = performance.now();
        return client;
      } catch (error) {
        this.#logger.warn('agent.reconnect_failed', { machine: this.#vm.name, reason: messageOf(error) });
      }
    }
  }
}
