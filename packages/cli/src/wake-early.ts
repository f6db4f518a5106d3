/**
 * Loading the command takes as long as a machine takes to come back from idling, so both happen at once: `arcbox run`
 * tells the daemon that the machine will be needed before it knows what for. Nobody waits for the answer, and what is
 * in the way is told by the command itself.
 */
import { connect } from 'node:net';
import { HostLayout } from '@arcbox/engine/host-layout';

/** The engine's DEFAULT_MACHINE, whose module would be loaded first. */
const MACHINE = 'default';

/** Whether this is a `run` in the default machine, as far as one look at the words can tell. */
export function needsMachine(given: readonly string[]): boolean {
  const [verb, ...words] = given[0] === 'container' ? given.slice(1) : given;
  const other = (word: string): boolean =>
    word === '-h' || word === '--help' || word === '--machine' || word.startsWith('--machine=');
  return verb === 'run' && words.length > 0 && !words.some(other);
}

/** The call of `MachineService/Start`, as `@arcbox/api/client` would make it when it is loaded. Resolves when it is sent. */
export async function wakeEarly(socketPath: string): Promise<void> {
  const body = JSON.stringify({ name: MACHINE });
  const head = [
    'POST /arcbox.v1.MachineService/Start HTTP/1.1',
    'host: localhost',
    'content-type: application/json',
    `content-length: ${body.length}`,
    'connect-protocol-version: 1',
    'connection: close',
  ];
  const { promise, resolve } = Promise.withResolvers<void>();
  const socket = connect(socketPath);
  // Without a daemon there is nobody to tell: the command starts one.
  socket.on('error', () => resolve());
  socket.resume().unref();
  socket.write(`${head.join('\r\n')}\r\n\r\n${body}`, () => resolve());
  // What is imported after this leaves the event loop no turn.
  await promise;
}

if (needsMachine(process.argv.slice(2))) {
  let socketPath: string | undefined;
  try {
    socketPath = HostLayout.fromEnvironment(process.env).socket;
  } catch {
    // The command says what is wrong with it.
  }
  if (socketPath !== undefined) await wakeEarly(socketPath);
}
