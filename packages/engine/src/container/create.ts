/** From what a user asks for and what the image says to a checked `ContainerConfig`. */
import type { Image } from '@arcbox/image';
import { EngineError } from '../errors.ts';
import { ARGUMENTS_BYTES_MAX, LABELS_BYTES_MAX } from '../limits.ts';
import { signalNumber } from '../signals.ts';
import { containerMounts, type MountRequest, type VolumeMount } from '../volume/mounts.ts';
import { newVolumeName } from '../volume/volume-manager.ts';
import type { ContainerConfig } from './container-record.ts';
import { withPorts } from './exposed-ports.ts';
import { checkHostOptions, type HostOptions, isHostname } from './host-options.ts';
import { type LifeRequest, lifeOptions } from './life-options.ts';

/** What a user asks for; everything but the image may be left out. */
export interface CreateOptions {
  readonly image: string;
  readonly name?: string;
  /** That it is to run in; default: that of the container whose namespaces it joins, or else `default`. */
  readonly machine?: string;
  /** After the image on the command line; empty: the image's. */
  readonly command?: readonly string[];
  /** Replaces the image's entrypoint; an empty list removes it. */
  readonly entrypoint?: readonly string[];
  readonly env?: readonly string[];
  readonly workingDir?: string;
  readonly user?: string;
  readonly hostname?: string;
  readonly domainname?: string;
  readonly tty?: boolean;
  readonly openStdin?: boolean;
  readonly stdinOnce?: boolean;
  readonly autoRemove?: boolean;
  readonly stopSignal?: string;
  readonly stopTimeoutMs?: number;
  readonly host?: Partial<HostOptions>;
  readonly labels?: Readonly<Record<string, string>>;
  readonly life?: LifeRequest;
  readonly mounts?: readonly MountRequest[];
  /** Ports besides the image's: `80`, `8000-8010/udp`. */
  readonly expose?: readonly string[];
  /** Containers whose volumes it has, too: `NAME[:ro]`. */
  readonly volumesFrom?: readonly string[];
  /** The same key twice makes one container. */
  readonly idempotencyKey?: string;
}

const SIGTERM = 15;

/** `borrowed` are the volumes of the containers in `volumesFrom`. Throws `ERR_ARCBOX_INVALID_ARGUMENT` naming what is wrong. */
export function containerConfig(
  options: CreateOptions,
  image: Image,
  id: string,
  borrowed: readonly VolumeMount[] = [],
): ContainerConfig {
  const invalid = (message: string): never => {
    throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', message);
  };
  const entrypoint = options.entrypoint ?? image.config.entrypoint;
  // As docker does: the image's command belongs to the image's entrypoint.
  const imageCommand = options.entrypoint === undefined ? image.config.cmd : [];
  const command =
    options.command !== undefined && options.command.length > 0 ? options.command : imageCommand;
  const argv = [...entrypoint, ...command];
  const [program] = argv;
  if (program === undefined || program === '') {
    invalid(`no command was given, and the image ${options.image} has none`);
  }

  const env = [...image.config.env, ...(options.env ?? [])];
  for (const entry of env) {
    if (entry.indexOf('=') < 1)
      invalid(`the environment variable ${JSON.stringify(entry)} is not of the form KEY=VALUE`);
  }
  const workingDir = options.workingDir || image.config.workingDir;
  if (!workingDir.startsWith('/')) {
    invalid(`the working directory ${JSON.stringify(workingDir)} is not an absolute path`);
  }
  const hostname = options.hostname || id.slice(0, 12);
  const { domainname = '', stopTimeoutMs } = options;
  if (!isHostname(hostname)) invalid(`${JSON.stringify(hostname)} is not a host name`);
  if (domainname !== '' && !isHostname(domainname))
    invalid(`${JSON.stringify(domainname)} is not a domain name`);
  if (stopTimeoutMs !== undefined && !(stopTimeoutMs >= 0)) invalid('the time to stop in cannot be negative');
  const labels = { ...image.config.labels, ...options.labels };
  const labelBytes = Buffer.byteLength(JSON.stringify(labels));
  if (labelBytes > LABELS_BYTES_MAX)
    invalid(`the labels have ${labelBytes} bytes; the limit is ${LABELS_BYTES_MAX}`);
  for (const text of [...argv, ...env, workingDir, options.user ?? '']) {
    if (text.includes('\0')) invalid(`${JSON.stringify(text)} contains a zero byte`);
  }
  const bytes = [...argv, ...env].reduce((sum, text) => sum + Buffer.byteLength(text) + 1, 0);
  if (bytes > ARGUMENTS_BYTES_MAX) {
    invalid(`arguments and environment have ${bytes} bytes together; the limit is ${ARGUMENTS_BYTES_MAX}`);
  }
  const { host, exposedPorts } = withPorts(checkHostOptions(options.host ?? {}), options.expose ?? [], image);
  const stopSignal = options.stopSignal || image.config.stopSignal;
  return {
    imageName: options.image,
    argv,
    entrypointLength: entrypoint.length,
    env,
    workingDir,
    user: options.user ?? image.config.user,
    hostname,
    domainname,
    tty: options.tty ?? false,
    openStdin: options.openStdin ?? false,
    stdinOnce: options.stdinOnce ?? false,
    autoRemove: options.autoRemove ?? false,
    stopSignal: stopSignal === '' ? SIGTERM : signalNumber(stopSignal),
    ...(stopTimeoutMs === undefined ? {} : { stopTimeoutMs }),
    labels,
    host,
    life: lifeOptions(options.life ?? {}, image, options.autoRemove ?? false),
    mounts: containerMounts(options.mounts ?? [], borrowed, image, newVolumeName),
    exposedPorts,
  };
}
