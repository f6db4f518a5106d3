/** A daemon in this process, on the fake driver, and clients of it. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { loadConfig, SILENT } from '@arcbox/engine';
import type { Program } from '../../engine/test/support/fake-guest.ts';
import { FakeRuntime } from '../../engine/test/support/fake-runtime.ts';
import { DaemonControl } from '../src/client/index.ts';
import { Daemon } from '../src/index.ts';

export interface FakeDaemon extends AsyncDisposable {
  readonly fake: FakeRuntime;
  readonly control: DaemonControl;
  /** Starts a daemon, or the next one. */
  start(): Promise<Daemon>;
}

export async function fakeDaemon(programs: Readonly<Record<string, Program>> = {}): Promise<FakeDaemon> {
  const fake = await FakeRuntime.create(programs);
  const { layout, assets } = fake;
  let current: Daemon | undefined;
  const start = async (): Promise<Daemon> => {
    const config = await loadConfig({ environment: {}, file: layout.configFile });
    current = await Daemon.start({ layout, config, assets, driver: fake.driver(), logger: SILENT });
    return current;
  };
  return {
    fake,
    start,
    // Nothing here starts a process: what would have to is an error.
    control: new DaemonControl({
      paths: { socket: layout.socket, daemonLog: join(layout.logs, 'none.log') },
      command: ['/bin/false'],
      // A client that comes while one daemon has gone and the next is not there yet waits for the test to start it.
      async prepare() {
        while (current !== undefined && !existsSync(layout.socket))
          await new Promise((resolve) => setImmediate(resolve));
      },
    }),
    async [Symbol.asyncDispose]() {
      const last = current;
      current = undefined;
      await last?.stop();
      await fake[Symbol.asyncDispose]();
    },
  };
}
