/** A clone of a template: from the call to the answer of its agent; one at a time, and ten at once. */
import type { RunningVm, Snapshot } from '@arcbox/vm';
import { benchHost, templateDirectory } from './lib/machines.ts';
import type { Benchmark } from './lib/main.ts';

const CLONES = 50;
const AT_ONCE = 10;
const ROUNDS_AT_ONCE = 10;
const MEMORY_MIB = 256;
const RESTORE_LIMIT_MS = 10_000;

const restore: Benchmark = {
  summary: 'clone of a memory snapshot until its agent answers, alone and ten at once',
  async run(report) {
    await using host = await benchHost();
    await using directory = await templateDirectory();
    const prepared = await host.driver.create(
      host.config({
        name: 'bench-template',
        memoryMib: MEMORY_MIB,
        memory: { kind: 'template', path: directory.file('mem') },
      }),
    );
    const template = await prepared.boot();
    const snapshot: Snapshot = await template.snapshot(directory.path);
    await template.kill();

    const clone = (name: string): Promise<RunningVm> =>
      host.driver.restore(snapshot, { name, lifetime: { kind: 'ephemeral' }, timeoutMs: RESTORE_LIMIT_MS });
    const alone: number[] = [];
    for (let i = 0; i < CLONES; i += 1) {
      const began = performance.now();
      const vm = await clone(`bench-clone-${i}`);
      alone.push(performance.now() - began);
      await vm.kill();
    }
    const together: number[] = [];
    for (let round = 0; round < ROUNDS_AT_ONCE; round += 1) {
      const began = performance.now();
      const vms = await Promise.all(
        Array.from({ length: AT_ONCE }, (_, i) => clone(`bench-clone-${round}-${i}`)),
      );
      together.push(performance.now() - began);
      await Promise.all(vms.map((vm) => vm.kill()));
    }
    const note = `${host.accelerator}, ${MEMORY_MIB} MiB, memory file on tmpfs`;
    report.add({
      bench: 'restore',
      metric: 'call_to_agent_answered',
      unit: 'ms',
      samples: alone,
      bar: { kind: 'at-most', value: 70 },
      note,
    });
    report.add({
      bench: 'restore',
      metric: 'ten_at_once_all_answered',
      unit: 'ms',
      samples: together,
      bar: { kind: 'at-most', value: 500 },
      note,
    });
  },
};

export default restore;
