import type { Runtime } from '@arcbox/engine';
import type { ServiceImpl } from '@connectrpc/connect';
import type { ExecService } from '../gen/arcbox/v1/exec_pb.ts';

export function execService(runtime: Runtime): ServiceImpl<typeof ExecService> {
  return {
    async create(request) {
      const execs = await runtime.execs();
      const { id } = execs.create(request.container, {
        argv: request.command,
        env: request.env,
        workingDir: request.workingDir,
        user: request.user,
        tty: request.tty,
        openStdin: request.openStdin,
        privileged: request.privileged,
      });
      return { id };
    },
    async start({ id }) {
      const process = await (await runtime.execs()).start(id);
      process.discard();
      return {};
    },
    async inspect({ id }) {
      const record = (await runtime.execs()).inspect(id);
      const { options } = record;
      return {
        exec: {
          id: record.id,
          containerId: record.containerId,
          state: record.state,
          command: [...options.argv],
          user: options.user ?? '',
          tty: options.tty ?? false,
          openStdin: options.openStdin ?? false,
          privileged: options.privileged ?? false,
          pid: record.pid ?? 0,
          ...(record.exitCode === undefined ? {} : { exitCode: record.exitCode }),
          error: record.error,
        },
      };
    },
    async resize({ id, rows, columns }) {
      await (await runtime.execs()).resize(id, { rows, columns });
      return {};
    },
  };
}
