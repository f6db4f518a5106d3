import {
  type Container,
  type ContainerState,
  parseRestartPolicy,
  type Runtime,
  signalNumber,
} from '@arcbox/engine';
import type { ServiceImpl } from '@connectrpc/connect';
import {
  type ContainerService,
  LogEntry_Stream,
  WaitContainerRequest_Condition,
} from '../gen/arcbox/v1/container_pb.ts';
import { createOptions, resourceLimits, statsMessage, toMessage } from './container-messages.ts';

/** In a listing of what runs. */
const isShown = (state: ContainerState): boolean =>
  state === 'running' || state === 'paused' || state === 'restarting';

const WAIT_CONDITIONS: Readonly<
  Record<WaitContainerRequest_Condition, 'not-running' | 'next-exit' | 'removed'>
> = {
  [WaitContainerRequest_Condition.UNSPECIFIED]: 'not-running',
  [WaitContainerRequest_Condition.NEXT_EXIT]: 'next-exit',
  [WaitContainerRequest_Condition.REMOVED]: 'removed',
};

export function containerService(runtime: Runtime): ServiceImpl<typeof ContainerService> {
  const describe = (container: Container) =>
    toMessage(container, runtime.networks, runtime.plane.portsOf(container.record.id));
  return {
    async create(request) {
      const containers = await runtime.containers();
      const { id } = await containers.create(createOptions(request, runtime.assets.architecture));
      return { container: describe(containers.find(id)) };
    },
    async start({ id, run, rows, columns }) {
      const containers = await runtime.containers();
      await containers.start(id, {
        ...(run === 0 ? {} : { run }),
        ...(rows === 0 || columns === 0 ? {} : { terminalSize: { rows, columns } }),
      });
      return {};
    },
    async wait({ id, condition }) {
      const containers = await runtime.containers();
      return containers.wait(id, WAIT_CONDITIONS[condition]);
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
    async remove({ id, force, volumes }) {
      const containers = await runtime.containers();
      await containers.remove(id, { force, volumes });
      return {};
    },
    async list({ all }) {
      const containers = await runtime.containers();
      const shown = containers.all().filter(({ record: { state } }) => all || isShown(state));
      return { containers: shown.map(describe) };
    },
    async prune() {
      return { ids: await (await runtime.containers()).prune() };
    },
    async inspect({ id }) {
      const container = (await runtime.containers()).find(id);
      const execs = (await runtime.execs()).ofContainer(container.record.id);
      const execIds = execs.filter(({ state }) => state === 'running').map((exec) => exec.id);
      return { container: { ...describe(container), execIds } };
    },
    async resize({ id, rows, columns }) {
      const containers = await runtime.containers();
      await containers.resize(id, { rows, columns });
      return {};
    },
    async restart({ id, timeoutMs, signal }) {
      const containers = await runtime.containers();
      await containers.restart(id, {
        ...(timeoutMs === undefined ? {} : { timeoutMs }),
        ...(signal === '' ? {} : { signal: signalNumber(signal) }),
      });
      return {};
    },
    async pause({ id }) {
      await (await runtime.containers()).pause(id);
      return {};
    },
    async unpause({ id }) {
      await (await runtime.containers()).unpause(id);
      return {};
    },
    async rename({ id, name }) {
      await (await runtime.containers()).rename(id, name);
      return {};
    },
    async update({ id, limits, restart }) {
      const containers = await runtime.containers();
      const record = await containers.update(
        id,
        resourceLimits(limits),
        restart === '' ? undefined : parseRestartPolicy(restart),
      );
      return { container: describe(containers.find(record.id)) };
    },
    async top({ id }) {
      const processes = await (await runtime.tools()).top(id);
      return {
        processes: processes.map((info) => ({
          ...info,
          startedMs: BigInt(info.startedMs),
          cpuMs: BigInt(Math.round(info.cpuMs)),
          memoryBytes: BigInt(info.memoryBytes),
        })),
      };
    },
    async changes({ id }) {
      return { changes: await (await runtime.files()).changes(id) };
    },
    async commit({ id, name, author, comment, changes, pause }) {
      const names = name === '' ? [] : [name];
      const image = await runtime.commit(id, { names, author, comment, changes, pause });
      return { imageId: image.id };
    },
    async stats({ ids }) {
      const all = await (await runtime.tools()).stats(ids);
      return { stats: all.map(statsMessage) };
    },
    async *logs({ id, cursor, follow, tail, sinceMs, untilMs }, { signal }) {
      const containers = await runtime.containers();
      const { reader, release } = await containers.logs(id, {
        follow,
        ...(cursor === undefined ? {} : { cursor: Number(cursor) }),
        ...(tail === undefined ? {} : { tail: Number(tail) }),
        ...(sinceMs === undefined ? {} : { sinceMs: Number(sinceMs) }),
        ...(untilMs === undefined ? {} : { untilMs: Number(untilMs) }),
      });
      const leave = (): void => void reader.close();
      signal.addEventListener('abort', leave);
      try {
        for (let batch = await reader.read(); batch !== undefined; batch = await reader.read()) {
          yield {
            entries: batch.records.map(({ channel, data, unixMs, offset, run }) => ({
              stream: channel === 1 ? LogEntry_Stream.STDOUT : LogEntry_Stream.STDERR,
              data,
              unixMs: BigInt(unixMs),
              offset: BigInt(offset),
              run,
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
