/** What becomes of a container, and what is mounted into it, between the API and the engine. */
import {
  type ContainerMount,
  EngineError,
  type Health,
  type LifeOptions,
  type LifeRequest,
  type MountRequest,
  parseRestartPolicy,
} from '@arcbox/engine';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  type HealthStateSchema,
  type LifeOptions as LifeMessage,
  LifeOptionsSchema,
  type Mount,
  MountSchema,
} from '../gen/arcbox/v1/container_pb.ts';

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
export function lifeRequest(message: LifeMessage | undefined): LifeRequest {
  if (message === undefined) return {};
  const { restart, health, logMaxSizeBytes, logMaxFiles } = message;
  return {
    ...(restart === '' ? {} : { restart: parseRestartPolicy(restart) }),
    ...(health === undefined
      ? {}
      : {
          health: {
            test: health.test,
            intervalMs: Number(health.intervalMs),
            timeoutMs: Number(health.timeoutMs),
            retries: health.retries,
            startPeriodMs: Number(health.startPeriodMs),
            startIntervalMs: Number(health.startIntervalMs),
          },
        }),
    log: {
      ...(logMaxSizeBytes === 0n ? {} : { maxSizeBytes: Number(logMaxSizeBytes) }),
      ...(logMaxFiles === 0 ? {} : { maxFiles: logMaxFiles }),
    },
  };
}

export function lifeMessage({ restart, health, log }: LifeOptions): LifeMessage {
  return create(LifeOptionsSchema, {
    restart: restart.maxRetries > 0 ? `${restart.name}:${restart.maxRetries}` : restart.name,
    logMaxSizeBytes: BigInt(log.maxSizeBytes),
    logMaxFiles: log.maxFiles,
    ...(health === undefined
      ? {}
      : {
          health: {
            test: [...health.test],
            intervalMs: BigInt(health.intervalMs),
            timeoutMs: BigInt(health.timeoutMs),
            retries: health.retries,
            startPeriodMs: BigInt(health.startPeriodMs),
            startIntervalMs: BigInt(health.startIntervalMs),
          },
        }),
  });
}

export function healthMessage({
  status,
  failingStreak,
  log,
}: Health): MessageInitShape<typeof HealthStateSchema> {
  return {
    status,
    failingStreak,
    log: log.map(({ startMs, endMs, exitCode, output }) => ({
      startMs: BigInt(startMs),
      endMs: BigInt(endMs),
      exitCode,
      output,
    })),
  };
}

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
export function mountRequests(messages: readonly Mount[]): MountRequest[] {
  return messages.map(({ type, source, target, readOnly, noCopy, tmpfsBytes, tmpfsMode }) => {
    if (type !== 'volume' && type !== 'tmpfs' && type !== 'bind') {
      throw new EngineError(
        'ERR_ARCBOX_INVALID_ARGUMENT',
        `${JSON.stringify(type)} is no type of mount; there are volume and tmpfs`,
      );
    }
    return { type, source, target, readOnly, noCopy, tmpfsBytes: Number(tmpfsBytes), tmpfsMode };
  });
}

export function mountMessage(mount: ContainerMount): Mount {
  const { type, target, readOnly } = mount;
  return create(
    MountSchema,
    type === 'volume'
      ? { type, target, readOnly, source: mount.name, noCopy: !mount.copy, anonymous: mount.anonymous }
      : {
          type,
          target,
          readOnly,
          tmpfsBytes: BigInt(mount.sizeBytes ?? 0),
          tmpfsMode: mount.mode ?? 0,
        },
  );
}
