/** What every command has: where the data lies and the daemon behind it. */
import { fileURLToPath } from 'node:url';
import { DaemonControl } from '@arcbox/api/client';
import { HostLayout } from '@arcbox/engine/host-layout';

export interface Context {
  readonly layout: HostLayout;
  readonly daemon: DaemonControl;
}

const DAEMON_MAIN = fileURLToPath(new URL('./daemon-main.ts', import.meta.url));

/** What Node is told when it runs the daemon: the young generation stays small, since the daemon's bytes are not on the heap. */
const DAEMON_NODE_OPTIONS = ['--disable-warning=ExperimentalWarning', '--max-semi-space-size=1'];

export function createContext(environment: NodeJS.ProcessEnv): Context {
  const layout = HostLayout.fromEnvironment(environment);
  const daemon = new DaemonControl({
    paths: { socket: layout.socket, daemonLog: layout.daemonLog },
    command: [process.execPath, ...DAEMON_NODE_OPTIONS, DAEMON_MAIN],
    prepare: () => layout.prepare(),
  });
  return { layout, daemon };
}
