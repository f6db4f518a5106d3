/**
 * Another command in a running container: the whole of `arcbox exec box true`, with the command's own start-up measured
 * in turn with it, and the same over the daemon's API without a process of one's own.
 */
import { type DaemonControl, ExecStream } from '@arcbox/api/client';
import { ArcBox } from './lib/command.ts';
import type { Benchmark } from './lib/main.ts';

const RUNS = 40;
const BEYOND_START_UP_MS = 40;

const exec: Benchmark = {
  summary: 'arcbox exec of true in a running container, beyond the command’s own start-up',
  async run(report) {
    await using arcbox = await ArcBox.create();
    await arcbox.run('run', '-d', '--name', 'box', 'busybox', 'sleep', '100000');
    const daemon = arcbox.daemon();
    await arcbox.run('exec', 'box', 'true');
    const command: number[] = [];
    const startUp: number[] = [];
    const beyond: number[] = [];
    const api: number[] = [];
    for (let i = 0; i < RUNS; i += 1) {
      const whole = (await arcbox.run('exec', 'box', 'true')).elapsedMs;
      // As much of the command as any has: it parses, loads its code, and asks the daemon for nothing.
      const empty = (await arcbox.run('exec', '--help')).elapsedMs;
      command.push(whole);
      startUp.push(empty);
      beyond.push(whole - empty);
      api.push(await execTrue(daemon));
    }
    const note = 'tcg, warm machine';
    report.add({ bench: 'exec', metric: 'arcbox_exec_true', unit: 'ms', samples: command, note });
    report.add({ bench: 'exec', metric: 'command_start_up', unit: 'ms', samples: startUp });
    report.add({
      bench: 'exec',
      metric: 'beyond_start_up',
      unit: 'ms',
      samples: beyond,
      bar: { kind: 'at-most', value: BEYOND_START_UP_MS },
      note: `${note}; the difference of neighbours`,
    });
    report.add({ bench: 'exec', metric: 'create_to_exit_seen', unit: 'ms', samples: api, note });
    await arcbox.run('rm', '-f', 'box');
  },
};

async function execTrue(daemon: DaemonControl): Promise<number> {
  const began = performance.now();
  const { id = '' } = await daemon.call('ExecService/Create', { container: 'box', command: ['true'] });
  const stream = new ExecStream({
    socketPath: daemon.socketPath,
    id,
    stdin: false,
    onOutput: () => undefined,
  });
  await stream.start();
  const { exitCode } = await stream.exited;
  const elapsed = performance.now() - began;
  stream.detach();
  if (exitCode !== 0) throw new Error(`the command exited with ${exitCode}`);
  return elapsed;
}

export default exec;
