/**
 * Cold boot: from the spawn of the VMM to the answer of the guest's agent, against QEMU started by
 * hand with the same kernel and an init that only says that it runs.
 */

import { benchHost } from './lib/machines.ts';
import type { Benchmark } from './lib/main.ts';
import { RawQemu } from './lib/raw-qemu.ts';

const PAIRS = 20;
const MEMORY_MIB = 512;

const boot: Benchmark = {
  summary: 'cold boot of a microVM until its agent answers, against raw QEMU with a bare init',
  async run(report) {
    await using host = await benchHost();
    using raw = new RawQemu(host.assets.kernel, MEMORY_MIB);
    const own: number[] = [];
    const peer: number[] = [];
    await raw.boot(); // both page caches warm
    for (let i = 0; i < PAIRS; i += 1) {
      const began = performance.now();
      const prepared = await host.driver.create(
        host.config({ name: `bench-boot-${i}`, memoryMib: MEMORY_MIB }),
      );
      const vm = await prepared.boot();
      own.push(performance.now() - began);
      await vm.kill();
      peer.push(await raw.boot());
    }
    const base = { bench: 'boot', metric: 'spawn_to_agent_answered', unit: 'ms', samples: own } as const;
    const peerSamples = { name: 'raw QEMU, bare init, to its first word', samples: peer };
    const note = `${host.accelerator}, ${MEMORY_MIB} MiB, 1 vCPU`;
    report.add({ ...base, peer: peerSamples, bar: { kind: 'at-most', value: 1_200 }, note });
    report.add({
      ...base,
      metric: 'spawn_to_agent_answered_ratio',
      peer: peerSamples,
      bar: { kind: 'ratio-at-most', value: 1.25 },
      note,
    });
  },
};

export default boot;
