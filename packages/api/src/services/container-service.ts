import {
  type ContainerRecord,
  type CreateOptions,
  EngineError,
  type Runtime,
  signalNumber,
} from '@arcbox/engine';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import {
  ContainerSchema,
  type ContainerService,
  type CreateContainerRequest,
  LogEntry_Stream,
} from '../gen/arcbox/v1/container_pb.ts';
import { lifeMessage, lifeRequest } from './life-messages.ts';

export function containerService(runtime: Runtime): ServiceImpl<typeof ContainerService> {
  return {
    async create(request) {
      const containers = await runtime.containers();
      return { container: toMessage(await containers.create(createOptions(request))) };
    },
    async start({ id, run, rows, columns }) {
      const containers = await runtime.containers();
      await containers.start(id, {
        ...(run === 0 ? {} : { run }),
        ...(rows === 0 || columns === 0 ? {} : { terminalSize: { rows, columns } }),
      });
      return {};
    },
    async wait({ id }) {
      const containers = await runtime.containers();
      return containers.wait(id);
    },
    async kill({ id, signal }) {
      const containers = await runtime.containers();
      await containers.kill(id, signal === '' ? undefined : signalNumber(signal));
      return {};
    },
    async stop({ id, timeoutMs, signal }) {
      const containers = await runtime.containers();
      await containers.stop(id, {
        ...(timeoutMs === undefined ? {} : { timeoutMs }),
        ...(signal === '' ? {} : { signal: signalNumber(signal) }),
      });
      return {};
    },
    async remove({ id, force }) {
      const containers = await runtime.containers();
      await containers.remove(id, { force });
      return {};
    },
    async list({ all }) {
      const containers = await runtime.containers();
      const records = containers
        .list()
        .filter(({ state }) => all || state === 'running' || state === 'restarting');
      return { containers: records.map(toMessage) };
    },
    async inspect({ id }) {
      const containers = await runtime.containers();
      return { container: toMessage(containers.inspect(id)) };
    },
    async resize({ id, rows, columns }) {
      const containers = await runtime.containers();
      await containers.resize(id, { rows, columns });
      return {};
    },
    async *logs({ id, cursor, follow }, { signal }) {
      const containers = await runtime.containers();
      const { reader, release } = await containers.logs(id, {
        follow,
        ...(cursor === undefined ? {} : { cursor: Number(cursor) }),
      });
      const leave = (): void => void reader.close();
      signal.addEventListener('abort', leave);
      try {
        for (let batch = await reader.read(); batch !== undefined; batch = await reader.read()) {
          yield {
            entries: batch.records.map(({ channel, data, unixMs }) => ({
              stream: channel === 1 ? LogEntry_Stream.STDOUT : LogEntry_Stream.STDERR,
              data,
              unixMs: BigInt(unixMs),
            })),
            cursor: BigInt(batch.position),
          };
        }
      } finally {
        signal.removeEventListener('abort', leave);
        await release();
      }
    },
  };
}

function createOptions(request: CreateContainerRequest): CreateOptions {
  if (request.image === '') throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', 'an image must be named');
  if (request.memoryBytes < 0n)
    throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', 'a memory limit cannot be negative');
  return {
    image: request.image,
    command: request.command,
    env: request.env,
    tty: request.tty,
    openStdin: request.openStdin,
    autoRemove: request.autoRemove,
    workingDir: request.workingDir,
    hostname: request.hostname,
    stopSignal: request.stopSignal,
    labels: request.labels,
    life: lifeRequest(request.life),
    ...(request.name === '' ? {} : { name: request.name }),
    ...(request.entrypoint === undefined ? {} : { entrypoint: request.entrypoint.argv }),
    ...(request.user === undefined ? {} : { user: request.user }),
    ...(request.memoryBytes === 0n ? {} : { memoryBytes: Number(request.memoryBytes) }),
    ...(request.idempotencyKey === '' ? {} : { idempotencyKey: request.idempotencyKey }),
  };
}

function toMessage(record: ContainerRecord): MessageInitShape<typeof ContainerSchema> {
  const { config, startedMs, finishedMs, exitCode } = record;
  return {
    $typeName: ContainerSchema.typeName,
    id: record.id,
    name: record.name,
    image: config.imageName,
    imageId: record.imageId,
    state: record.state,
    argv: [...config.argv],
    env: [...config.env],
    workingDir: config.workingDir,
    user: config.user,
    hostname: config.hostname,
    tty: config.tty,
    openStdin: config.openStdin,
    memoryBytes: BigInt(config.memoryBytes ?? 0),
    autoRemove: config.autoRemove,
    labels: { ...config.labels },
    machine: record.machine,
    run: record.run,
    createdMs: BigInt(record.createdMs),
    ...(startedMs === undefined ? {} : { startedMs: BigInt(startedMs) }),
    ...(finishedMs === undefined ? {} : { finishedMs: BigInt(finishedMs) }),
    ...(exitCode === undefined ? {} : { exitCode }),
    error: record.error,
    life: lifeMessage(config.life),
    restarts: record.restarts,
  };
}
