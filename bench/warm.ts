/**
 * A machine that has idled down: from the command that starts a container to the container's first output; and what the
 * machine costs meanwhile.
 */
import { ArcBox } from './lib/command.ts';
import type { Benchmark } from './lib/main.ts';

const RUNS = 20;
const MB = 1e6;

const warm: Benchmark = {
  summary: 'machine idled down → first output of a container; memory of an idle machine',
  async run(report) {
    await using arcbox = await ArcBox.create({ ARCBOX_MACHINE_MEMORY: '512m' });
    await arcbox.run('run', '--rm', 'busybox', 'true');
    const idle: number[] = [];
    const running: number[] = [];
    const costs: number[] = [];
    const downs: number[] = [];
    for (let i = 0; i < RUNS; i += 1) {
      running.push(await firstOutput(arcbox));
      downs.push((await arcbox.run('machine', 'idle', 'default')).elapsedMs);
      const { machine } = await arcbox.daemon().call('MachineService/Inspect', { name: 'default' });
      if (machine?.state !== 'idle') throw new Error(`the machine is ${machine?.state}`);
      costs.push(Number(machine.savedBytes) / MB);
      idle.push(await firstOutput(arcbox));
    }
    const note = 'tcg, 512 MiB, the whole command: its own start-up, restore, create, start';
    report.add({
      bench: 'warm',
      metric: 'idle_to_first_output',
      unit: 'ms',
      samples: idle,
      peer: { name: 'the same in a running machine', samples: running },
      bar: { kind: 'at-most', value: 500 },
      note,
    });
    report.add({
      bench: 'warm',
      metric: 'idle_machine_memory',
      unit: 'MB',
      samples: costs,
      note: 'on tmpfs; no process',
    });
    report.add({
      bench: 'warm',
      metric: 'idling_down',
      unit: 'ms',
      samples: downs,
      note: 'most of it waits for free pages to be given back',
    });
  },
};

/** From the start of the command to the first byte of what the container prints. */
async function firstOutput(arcbox: ArcBox): Promise<number> {
  const began = performance.now();
  const child = arcbox.start(['run', '--rm', 'busybox', 'echo', 'here']);
  let elapsed = Number.NaN;
  for await (const _ of child.stdout ?? []) if (Number.isNaN(elapsed)) elapsed = performance.now() - began;
  if (Number.isNaN(elapsed)) throw new Error('the container printed nothing');
  return elapsed;
}

export default warm;
