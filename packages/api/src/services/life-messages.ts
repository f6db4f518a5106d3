/** `LifeOptions` between the API and the engine. */
import { type LifeOptions, type LifeRequest, parseRestartPolicy } from '@arcbox/engine';
import { create } from '@bufbuild/protobuf';
import { type LifeOptions as LifeMessage, LifeOptionsSchema } from '../gen/arcbox/v1/container_pb.ts';

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
