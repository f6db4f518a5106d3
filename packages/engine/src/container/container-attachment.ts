/** A client's hold on a container: reading its output from a position on, writing its input, seeing its end. */
import type { LogBatch, LogReader } from '../log/log-reader.ts';
import type { Container, ContainerExit } from './container.ts';
import type { ContainerProcess } from './container-process.ts';
import type { TerminalSize } from './oci-spec.ts';

export interface InputPosition {
  /** The process has taken everything before it. */
  readonly acknowledged: number;
  /** We take input from here on. */
  readonly accepted: number;
}

export class ContainerAttachment implements AsyncDisposable {
  /** The run it is attached to. */
  readonly run: number;
  readonly #container: Container;
  readonly #reader: LogReader;
  readonly #onClose: () => Promise<void>;
  #closed: Promise<void> | undefined;

  constructor(container: Container, run: number, reader: LogReader, onClose: () => Promise<void>) {
    this.#container = container;
    this.run = run;
    this.#reader = reader;
    this.#onClose = onClose;
  }

  /** Where the log was when we attached, and later where this client stands. */
  get position(): number {
    return this.#reader.position;
  }

  /** The next output, see `LogReader.read`; undefined when the run has ended and everything was read. */
  read(): Promise<LogBatch | undefined> {
    return this.#reader.read();
  }

  /** How the run ended; settles after its output is complete. */
  get exited(): Promise<ContainerExit> {
    return this.#container.waiters(this.run).exited.promise;
  }

  /** Offset of the first byte of input that is taken, as far as it is known now: nothing was taken before a start. */
  get inputAccepted(): number {
    return this.#container.process?.inputAccepted ?? 0;
  }

  /** Settles when input can be passed on: the process runs. Undefined when it will not run any more. */
  async inputPosition(): Promise<InputPosition | undefined> {
    const process = await this.#process();
    if (process === undefined) return undefined;
    return { acknowledged: process.inputAcknowledged, accepted: process.inputAccepted };
  }

  /** Passes input on; resolves when there is room for more. Without a process the input goes nowhere. */
  async write(data: Uint8Array, eof: boolean): Promise<void> {
    // Input that others may go on with does not end with one client's.
    await (await this.#process())?.write(data, eof && this.#container.record.config.stdinOnce);
  }

  async resize(size: TerminalSize): Promise<void> {
    this.#container.terminalSize = size;
    await this.#container.process?.resize(size);
  }

  async signal(number: number): Promise<void> {
    await (await this.#process())?.signal(number);
  }

  /** Leaves. A container that is to be removed on exit, and has exited, is removed when the last client leaves. */
  close(): Promise<void> {
    this.#closed ??= this.#reader.close().then(this.#onClose);
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #process(): Promise<ContainerProcess | undefined> {
    const process = await this.#container.waiters(this.run).started.promise;
    if (process === undefined) return undefined;
    try {
      await process.attached;
    } catch {
      // It ended before, which its exit tells.
      return undefined;
    }
    return process;
  }
}
