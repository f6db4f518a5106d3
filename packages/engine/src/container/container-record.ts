/** What is stored of a container. */

import type { ContainerMount } from '../volume/mounts.ts';
import type { HostOptions } from './host-options.ts';
import type { LifeOptions } from './life-options.ts';
import type { ContainerState } from './transitions.ts';

/** What was asked for, with the image's defaults already applied: plain data, JSON-safe. */
export interface ContainerConfig {
  /** As the user typed it. */
  readonly imageName: string;
  /** Entrypoint and command together; never empty. */
  readonly argv: readonly string[];
  /** How much of `argv` is the entrypoint. */
  readonly entrypointLength: number;
  /** `KEY=VALUE`, image's and user's; what every container gets is added at start. */
  readonly env: readonly string[];
  readonly workingDir: string;
  /** `user[:group]`, names or numbers; empty: root. */
  readonly user: string;
  readonly hostname: string;
  readonly domainname: string;
  readonly tty: boolean;
  /** Standard input is a stream; otherwise it is /dev/null. */
  readonly openStdin: boolean;
  /** Standard input ends with its first client. */
  readonly stdinOnce: boolean;
  /** Removed when it has exited. */
  readonly autoRemove: boolean;
  /** Signal number for `stop`. */
  readonly stopSignal: number;
  /** From the stop signal to SIGKILL; absent: the engine's default. */
  readonly stopTimeoutMs?: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly host: HostOptions;
  readonly life: LifeOptions;
  /** Besides its root and what every container has; in the order in which they are mounted. */
  readonly mounts: readonly ContainerMount[];
  /** Ports that it means to be reached at, whether or not they are published: `80/tcp`. */
  readonly exposedPorts: readonly string[];
}

export interface ContainerRecord {
  /** 64 hex digits. */
  readonly id: string;
  name: string;
  state: ContainerState;
  /** How many times it has been started. */
  run: number;
  readonly machine: string;
  readonly imageId: string;
  config: ContainerConfig;
  /** Milliseconds since 1970, as all times here. */
  readonly createdMs: number;
  startedMs: number | undefined;
  finishedMs: number | undefined;
  /** 128 + n when a signal ended it. */
  exitCode: number | undefined;
  /** Why it could not be started, or how it was lost; otherwise empty. */
  error: string;
  /** How often its restart policy has started it, since somebody did. */
  restarts: number;
  /** Somebody stopped or killed it: what its restart policy may not undo. */
  stoppedByUser: boolean;
}
