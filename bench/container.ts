/**
 * A container in a warm machine: from the call that creates it to its exit, over the daemon's API; the whole command
 * `arcbox run`, with the command's own start-up beside it; and how fast its output gets out.
 */
import { ContainerStream, type DaemonControl } from '@arcbox/api/client';
import { ArcBox } from './lib/command.ts';
import type { Benchmark } from './lib/main.ts';

const RUNS = 30;
const CAT_RUNS = 5;
const CAT_MB = 256;

const container: Benchmark = {
  summary: 'create → exit seen in a warm machine; arcbox run; cat of 256 MB out of a container',
  async run(report) {
    await using arcbox = await ArcBox.create();
    await arcbox.run('run', '--rm', 'busybox', 'true');
    const daemon = arcbox.daemon();

    const api: number[] = [];
    const command: number[] = [];
    const startUp: number[] = [];
    for (let i = 0; i < RUNS; i += 1) {
      api.push(await createToExit(daemon));
      command.push((await arcbox.run('run', '--rm', 'busybox', 'true')).elapsedMs);
      startUp.push((await arcbox.run('--help')).elapsedMs);
    }
    const { machine } = await daemon.call('MachineService/Inspect', { name: 'default' });
    const note = `${machine?.accelerator ?? 'unknown accelerator'}, warm machine, image mounted`;
    report.add({
      bench: 'container',
      metric: 'create_to_exit_seen',
      unit: 'ms',
      samples: api,
      bar: { kind: 'at-most', value: 250 },
      note,
    });
    report.add({ bench: 'container', metric: 'arcbox_run', unit: 'ms', samples: command, note });
    report.add({ bench: 'container', metric: 'command_start_up', unit: 'ms', samples: startUp });

    const rate: number[] = [];
    for (let i = 0; i < CAT_RUNS; i += 1) rate.push(await catRate(arcbox));
    report.add({
      bench: 'container',
      metric: 'cat_256_mb_through_the_command',
      unit: 'MB/s',
      samples: rate,
      bar: { kind: 'at-least', value: 120 },
      note: 'the file is written in the same container first; timed from its first byte to its last',
    });
  },
};

async function createToExit(daemon: DaemonControl): Promise<number> {
  const began = performance.now();
  const { container: created } = await daemon.call('ContainerService/Create', {
    image: 'busybox',
    command: ['true'],
    autoRemove: true,
  });
  const id = created?.id ?? '';
  const stream = new ContainerStream(daemon, {
    container: id,
    stdin: false,
    onOutput: () => Promise.resolve(),
  });
  await stream.open();
  await daemon.call('ContainerService/Start', { id, run: 1 });
  const { exitCode } = await stream.exited;
  const elapsed = performance.now() - began;
  if (exitCode !== 0) throw new Error(`the container exited with ${exitCode}`);
  await stream.farewell();
  return elapsed;
}

/** MB/s between the first and the last byte of `cat` as a reader of the command's standard output sees them. */
async function catRate(arcbox: ArcBox): Promise<number> {
  const child = arcbox.start([
    ...['run', '--rm', 'busybox', 'sh', '-c'],
    `dd if=/dev/zero of=/data bs=1M count=${CAT_MB} 2>/dev/null; cat /data`,
  ]);
  let first = 0;
  let bytes = 0;
  for await (const chunk of child.stdout ?? []) {
    if (first === 0) first = performance.now();
    bytes += (chunk as Buffer).length;
  }
  const elapsedS = (performance.now() - first) / 1000;
  if (bytes !== CAT_MB * 2 ** 20) throw new Error(`${bytes} bytes came out of /data`);
  return bytes / 1e6 / elapsedS;
}

export default container;
