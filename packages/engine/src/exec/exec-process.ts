/**
 * A process that was started beside a container's own: its output on the way to one client, its input, its end.
 *
 * Its output is nobody's once the daemon is gone, so there is no log: the agent is told to forget a byte when the client
 * has taken it, and the process waits for a client that is slow. Without a client its output goes nowhere.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Attachment,
  type ObjectEnd,
  type OutputChunk,
  ProtocolError,
  type UnackedInput,
} from '@arcbox/protocol';
import type { TerminalSize } from '../container/oci-spec.ts';
import { EXEC_DRAIN_IDLE_MS, EXEC_WINDOW_BYTES } from '../limits.ts';
import type { AgentSession } from '../machine/agent-session.ts';

export interface ProcessOutput {
  readonly channel: 1 | 2;
  readonly data: Buffer;
}

export class ExecProcess {
  /** How the object ended. Settles when its output, too, is complete; rejects when its machine is lost. */
  readonly end: Promise<ObjectEnd>;
  /** The exit code; 128 + n when signal n ended it. */
  readonly ended: Promise<number>;
  readonly #agent: AgentSession;
  readonly #objectId: string;
  readonly #attached = Promise.withResolvers<void>();
  #attachment: Attachment | undefined;
  /** The same, only while its epoch goes on. */
  #reading: Attachment | undefined;
  #queue: ProcessOutput[] = [];
  /** By channel: what came, and what its reader is done with. */
  readonly #received = [0, 0];
  readonly #taken = [0, 0];
  #handedOut: readonly ProcessOutput[] = [];
  #more = Promise.withResolvers<void>();
  #complete = false;
  #discarding = false;
  #inputEnded = false;

  constructor(agent: AgentSession, objectId: string) {
    this.#agent = agent;
    this.#objectId = objectId;
    this.#attached.promise.catch(() => {});
    this.end = this.#run();
    this.ended = this.end.then(({ signaled, code }) => (signaled ? 128 + code : code));
    this.ended.catch(() => {});
  }

  /** The next output; what was handed out before counts as taken. Undefined when there will be no more. */
  async read(): Promise<readonly ProcessOutput[] | undefined> {
    this.#take(this.#handedOut);
    this.#handedOut = [];
    while (this.#queue.length === 0) {
      if (this.#complete || this.#discarding) return undefined;
      await this.#more.promise;
    }
    this.#handedOut = this.#queue;
    this.#queue = [];
    return this.#handedOut;
  }

  /** The reader has gone: from now on output goes nowhere, and nobody waits for it. */
  discard(): void {
    this.#discarding = true;
    this.#take(this.#handedOut);
    this.#handedOut = [];
    this.#take(this.#queue);
    this.#queue = [];
    this.#wake();
  }

  /** Passes input on; resolves when there is room for more. After the end of input, and of the process, it is dropped. */
  async write(data: Uint8Array, eof: boolean): Promise<void> {
    await this.#attached.promise.catch(() => {});
    if (this.#inputEnded || this.#attachment === undefined) return;
    this.#inputEnded = eof;
    try {
      await this.#attachment.write(data, { eof });
    } catch (error) {
      // The epoch, or the process, ended: `#pump` hands over what was not taken, or there is nobody to take it.
      if (!(error instanceof ProtocolError)) throw error;
    }
  }

  async signal(number: number): Promise<void> {
    await this.#agent.batch([{ case: 'signal', value: { id: this.#objectId, signal: number } }]);
  }

  async resize(size: TerminalSize): Promise<void> {
    await this.#agent.batch([{ case: 'resize', value: { id: this.#objectId, size } }]);
  }

  async #run(): Promise<ObjectEnd> {
    const leave = new AbortController();
    const pumped = this.#pump(leave.signal);
    pumped.catch(() => {});
    try {
      const end = await this.#agent.wait(this.#objectId);
      // A process of its own that it left behind may hold its output open; what is there is still taken.
      await Promise.race([pumped, this.#untilIdle(leave.signal)]);
      return end;
    } finally {
      leave.abort();
      this.#attachment?.detach();
      this.#attached.reject(new Error('the process has ended'));
      this.#complete = true;
      this.#wake();
    }
  }

  /** Resolves when nothing came for a while although everything was taken. */
  async #untilIdle(signal: AbortSignal): Promise<void> {
    let before = -1;
    for (;;) {
      const pending = this.#queue.length > 0 || this.#handedOut.length > 0;
      const received = (this.#received[0] ?? 0) + (this.#received[1] ?? 0);
      if (!pending && received === before) return;
      before = received;
      await sleep(EXEC_DRAIN_IDLE_MS, undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted) return;
    }
  }

  async #pump(signal: AbortSignal): Promise<void> {
    let input: UnackedInput | undefined;
    await this.#agent.eachEpoch(async (client) => {
      signal.throwIfAborted();
      const attachment = await client.attach(this.#objectId, {
        output: { offset: this.#received[0] ?? 0, windowBytes: EXEC_WINDOW_BYTES },
        error: { offset: this.#received[1] ?? 0, windowBytes: EXEC_WINDOW_BYTES },
        ...(input === undefined ? {} : { input }),
        onChunk: (chunk) => this.#onChunk(chunk),
      });
      this.#attachment = attachment;
      this.#reading = attachment;
      this.#acknowledge();
      this.#attached.resolve();
      try {
        await attachment.closed;
      } finally {
        this.#reading = undefined;
        input = attachment.unacked();
      }
    });
  }

  #onChunk({ channel, data }: OutputChunk): void {
    this.#received[channel - 1] = (this.#received[channel - 1] ?? 0) + data.length;
    if (data.length === 0) return;
    const output = { channel, data: Buffer.from(data) };
    if (this.#discarding) {
      this.#take([output]);
      return;
    }
    this.#queue.push(output);
    this.#wake();
  }

  #take(outputs: readonly ProcessOutput[]): void {
    if (outputs.length === 0) return;
    for (const { channel, data } of outputs)
      this.#taken[channel - 1] = (this.#taken[channel - 1] ?? 0) + data.length;
    this.#acknowledge();
  }

  #acknowledge(): void {
    for (const channel of [1, 2] as const) this.#reading?.ack(channel, this.#taken[channel - 1] ?? 0);
  }

  #wake(): void {
    this.#more.resolve();
    this.#more = Promise.withResolvers<void>();
  }
}
