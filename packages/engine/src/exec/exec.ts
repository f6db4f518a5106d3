/** An exec: a command to be run in a running container, once. It is remembered after its end, and not by the next daemon. */
import { EngineError } from '../errors.ts';
import type { ExecProcess } from './exec-process.ts';

export type ExecState = 'created' | 'running' | 'exited';

export interface ExecOptions {
  readonly argv: readonly string[];
  /** KEY=VALUE, on top of the container's. */
  readonly env?: readonly string[];
  /** Default: the container's. */
  readonly workingDir?: string;
  /** user[:group]; default: the container's. */
  readonly user?: string;
  readonly tty?: boolean;
  /** Standard input is a stream; otherwise it is /dev/null. */
  readonly openStdin?: boolean;
  /** Every capability, and no system-call filter. */
  readonly privileged?: boolean;
}

/** What is known of an exec. */
export interface ExecRecord {
  /** 64 hex digits. */
  readonly id: string;
  readonly containerId: string;
  readonly options: ExecOptions;
  state: ExecState;
  /** In the machine; undefined while it does not run. */
  pid: number | undefined;
  exitCode: number | undefined;
  /** Why it could not be started, or how it was lost; otherwise empty. */
  error: string;
}

export class Exec {
  readonly record: ExecRecord;
  process: ExecProcess | undefined;
  readonly #ended = Promise.withResolvers<void>();

  constructor(record: ExecRecord) {
    this.record = record;
  }

  /** Settles when it has ended, and its exit code is recorded. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Throws `ERR_ARCBOX_EXEC_STATE` when it was started before: an exec runs once. */
  begin(): void {
    const { record } = this;
    if (record.state !== 'created') {
      throw new EngineError(
        'ERR_ARCBOX_EXEC_STATE',
        `the exec ${record.id.slice(0, 12)} ${record.state === 'running' ? 'is running' : 'has run'} already; create another one`,
      );
    }
    record.state = 'running';
  }

  end(exitCode: number, error: string): void {
    Object.assign(this.record, { state: 'exited', exitCode, error, pid: undefined });
    this.#ended.resolve();
  }
}

/** The agent's name for an exec's process, at most 64 bytes. */
export function execObjectId(execId: string): string {
  return `e-${execId.slice(0, 40)}`;
}
