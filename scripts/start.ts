/**
 * The main job, step by step: a daemon, a microVM, a container in it, with the time that each step took.
 *
 * Everything happens in a data directory of its own that is removed at the end, so it can be run beside a daemon in use.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ContainerStream, DaemonControl } from '@arcbox/api/client';
import { HostLayout } from '@arcbox/engine/host-layout';

const DAEMON_MAIN = fileURLToPath(new URL('../packages/cli/src/daemon-main.ts', import.meta.url));
const SCRIPT = [
  'echo "kernel    $(uname -sr)"',
  'echo "PID 1     $(cat /proc/1/comm)"',
  'echo "hostname  $(hostname)"',
  'set -- /proc/[0-9]*',
  'echo "user      $(id -un)"',
  'echo "processes $#"',
].join('\n');

const home = await mkdtemp(path.join(os.tmpdir(), 'arcbox-start-'));
process.env.ARCBOX_HOME = home;
const layout = new HostLayout(home);
const daemon = new DaemonControl({
  paths: { socket: layout.socket, daemonLog: layout.daemonLog },
  command: [process.execPath, '--disable-warning=ExperimentalWarning', DAEMON_MAIN],
  prepare: async () => {
    if (cleaning !== undefined) throw new Error('interrupted');
  },
});
let running: Promise<unknown> = Promise.resolve();
let cleaning: Promise<void> | undefined;

async function step<T>(
  name: string,
  act: () => Promise<T>,
  detail: (value: T) => string = () => '',
): Promise<T> {
  const began = performance.now();
  const acting = act();
  running = acting;
  const value = await acting;
  if (cleaning !== undefined) throw new Error('interrupted');
  print(name, performance.now() - began, detail(value));
  return value;
}

/** An accelerator in the words of somebody who has never heard of it. */
function speedOf(accelerator: string): string {
  return accelerator === 'tcg' ? 'emulated (no KVM here)' : `accelerated by ${accelerator}`;
}

function print(name: string, elapsedMs: number, detail = ''): void {
  const elapsed = elapsedMs < 10_000 ? `${elapsedMs.toFixed(0)} ms` : `${(elapsedMs / 1000).toFixed(1)} s`;
  process.stdout.write(`  ${name.padEnd(34)}${elapsed.padStart(9)}   ${detail}`.trimEnd());
  process.stdout.write('\n');
}

/** Creates, attaches, starts and waits, as `arcbox run` does; answers with what the container printed. */
async function runContainer(command: string[]): Promise<string> {
  const { container } = await daemon.call('ContainerService/Create', {
    image: 'busybox',
    command,
    autoRemove: true,
  });
  const id = container?.id ?? '';
  const output: Buffer[] = [];
  const stream = new ContainerStream(daemon, {
    container: id,
    stdin: false,
    onOutput: (_channel, data) => {
      output.push(Buffer.from(data));
      return undefined;
    },
  });
  await stream.open();
  await daemon.call('ContainerService/Start', { id, run: 1 });
  const { exitCode, error } = await stream.exited;
  await stream.farewell();
  stream.detach();
  if (exitCode !== 0) throw new Error(`the container exited with ${exitCode} ${error}`);
  return Buffer.concat(output).toString();
}

/** Whatever way we end: nothing goes on in a directory that nobody knows. A step under way ends first. */
function cleanUp(): Promise<void> {
  cleaning ??= (async () => {
    await running.catch(() => undefined);
    await daemon.stop();
    await rm(home, { recursive: true, force: true });
  })();
  return cleaning;
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    process.stdout.write('\n  stopping what was started\n');
    cleanUp().then(
      () => process.exit(128 + os.constants.signals[signal]),
      (error: unknown) => {
        process.stderr.write(`arcbox: ${String(error)}\n`);
        process.exit(1);
      },
    );
  });
}

process.stdout.write('\nArcBox: a container in a microVM, step by step\n\n');
print('set-up', Number(process.argv[2] ?? 0), 'Debian packages, Node.js, guest kernel and programs');
try {
  await step(
    'daemon started',
    () => daemon.call('SystemService/Ping', {}),
    () => 'with a data directory of its own, removed at the end',
  );
  await step(
    'microVM booted, agent answered',
    () => daemon.call('MachineService/Start', { name: 'default' }),
    ({ machine }) =>
      `QEMU ${machine?.vmmVersion ?? ''}, ${speedOf(machine?.accelerator ?? '')}, Linux ${machine?.kernelRelease ?? ''}`,
  );
  const said = await step(
    'first container, create to exit',
    () => runContainer(['sh', '-c', SCRIPT]),
    () => 'busybox; its image is mounted in the microVM on the way',
  );
  await step(
    'second container, create to exit',
    () => runContainer(['true']),
    () => 'in the same microVM',
  );
  process.stdout.write(
    `\n  What the first container printed:\n\n${said.replaceAll(/^/gm, '    ').trimEnd()}\n\n`,
  );
  await step('microVM stopped', () => daemon.call('MachineService/Stop', { name: 'default' }));
} finally {
  await cleanUp();
}
process.stdout.write('\n  All of it worked. A shell in a container: ./arcbox run --rm -it busybox sh\n\n');
