/**
 * The process of a running container: its output on the way into the log, its input on the way to the guest, its end.
 *
 * The process is an object of the agent's and outlives connections and daemons. Output goes on at the offset where the
 * log ends; input goes on at the offset that the agent has taken.
 */
import { type Attachment, type OutputChunk, ProtocolError, type UnackedInput } from '@arcbox/protocol';
import { OUTPUT_WINDOW_BYTES } from '../limits.ts';
import type { ContainerLog } from '../log/container-log.ts';
import type { AgentSession } from '../machine/agent-session.ts';
import type { TerminalSize } from './oci-spec.ts';

export interface ProcessEnd {
  /** 128 + n when signal n ended it. */
  readonly exitCode: number;
}

export class ContainerProcess {
  /** Settles when the process has ended and all its output is in the log. Rejects when its machine is lost. */
  readonly ended: Promise<ProcessEnd>;
  /** In the machine. */
  readonly pid: number;
  readonly #agent: AgentSession;
  readonly #objectId: string;
  readonly #log: ContainerLog;
  readonly #attached = Promise.withResolvers<void>();
  #attachment: Attachment | undefined;
  #inputAccepted = 0;
  #inputEnded = false;
  #resumed = false;

  constructor(agent: AgentSession, objectId: string, pid: number, log: ContainerLog) {
    this.pid = pid;
    this.#agent = agent;
    this.#objectId = objectId;
    this.#log = log;
    this.#attached.promise.catch(() => {});
    this.ended = this.#run();
    this.ended.catch(() => {});
  }

  /** The guest's stream is open: input can be written, and its offsets are known. Rejects when it never will be. */
  get attached(): Promise<void> {
    return this.#attached.promise;
  }
  /** Offset of the next byte of input that we take. */
  get inputAccepted(): number {
    return this.#inputAccepted;
  }
  /** Offset before which the process has taken all input. */
  get inputAcknowledged(): number {
    return this.#attachment?.inputAcked ?? 0;
  }

  /**
   * Passes input on; resolves when there is room for more. Input after the end of input is dropped, as a pipe that
   * somebody else closed would.
   */
  async write(data: Uint8Array, eof: boolean): Promise<void> {
    await this.attached;
    if (this.#inputEnded || this.#attachment === undefined) return;
    this.#inputAccepted += data.length;
    this.#inputEnded = eof;
    try {
      await this.#attachment.write(data, { eof });
    } catch (error) {
      // The epoch, or the process, ended: `#pump` hands over what was not taken, or there is nobody to take it.
      if (!(error instanceof ProtocolError)) throw error;
    }
  }

  /** Sends signal `number`. */
  async signal(number: number): Promise<void> {
    await this.#agent.batch([{ case: 'signal', value: { id: this.#objectId, signal: number } }]);
  }

  async resize(size: TerminalSize): Promise<void> {
    await this.#agent.batch([{ case: 'resize', value: { id: this.#objectId, size } }]);
  }

  async #run(): Promise<ProcessEnd> {
    try {
      const [end] = await Promise.all([this.#agent.wait(this.#objectId), this.#pump()]);
      await this.#log.flushed();
      return { exitCode: end.signaled ? 128 + end.code : end.code };
    } finally {
      this.#attached.reject(new Error('the process has ended'));
    }
  }

  async #pump(): Promise<void> {
    let input: UnackedInput | undefined;
    await this.#agent.eachEpoch(async (client) => {
      // Only what is durable may be acknowledged, and attaching at an offset acknowledges what is before it.
      await this.#log.flushed();
      const attachment = await client.attach(this.#objectId, {
        output: { offset: this.#log.offset(1), windowBytes: OUTPUT_WINDOW_BYTES },
        error: { offset: this.#log.offset(2), windowBytes: OUTPUT_WINDOW_BYTES },
        ...(input === undefined ? {} : { input }),
        onChunk: (chunk) => this.#take(chunk),
      });
      this.#log.onDurable = (channel, offset) => attachment.ack(channel, offset);
      for (const channel of [1, 2] as const) attachment.ack(channel, this.#log.acknowledged(channel));
      this.#attachment = attachment;
      if (!this.#resumed) {
        this.#resumed = true;
        this.#inputAccepted = attachment.inputAcked;
        this.#attached.resolve();
      }
      try {
        await attachment.closed;
      } finally {
        input = attachment.unacked();
      }
    });
  }

  #take({ channel, offset, data, eof }: OutputChunk): void {
    // A channel that had ended says so again in a new epoch.
    if (this.#log.hasEnded(channel) && data.length === 0) return;
    this.#log.append(channel, offset, data, eof);
  }
}
