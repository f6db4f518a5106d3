/**
 * What an idle daemon with one machine of 512 MB costs: memory beyond the guest's RAM, CPU, and how fast the machine
 * gives back what a process in it has used.
 */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { ArcBox } from './lib/command.ts';
import type { Benchmark } from './lib/main.ts';
import type { Report } from './lib/report.ts';

const MB = 1e6;
const SETTLE_MS = 10_000;
const WATCH_MS = 20_000;
const GIVEN_BACK_MS = 10_000;
const TOUCHED_MB = 500;
const CLOCK_TICKS_PER_S = 100;

const idle: Benchmark = {
  summary: 'memory and CPU of an idle daemon with one machine; memory given back after use',
  async run(report) {
    await using arcbox = await ArcBox.create({ ARCBOX_MACHINE_MEMORY: '512m' });
    // A daemon that runs TypeScript for the first time since it was changed keeps what stripped its types, 20 MB.
    await arcbox.run('run', '--rm', 'busybox', 'true');
    await arcbox.run('daemon', 'stop');
    await arcbox.run('run', '--rm', 'busybox', 'true');
    await sleep(SETTLE_MS);
    const daemon = await arcbox.daemonPid();
    const machine = await machineOf(arcbox);
    const cpuBefore = (await cpuTicks(daemon)) + (await cpuTicks(machine.pid));
    const began = performance.now();
    await sleep(WATCH_MS);
    const ticks = (await cpuTicks(daemon)) + (await cpuTicks(machine.pid)) - cpuBefore;
    const cpuPercent = (ticks / CLOCK_TICKS_PER_S / ((performance.now() - began) / 1000)) * 100;
    const daemonPss = await pssBytes(daemon);
    const { pss, ram } = await machineOf(arcbox);
    const note = '512 MiB machine, 10 s after its last container';
    report.add({
      bench: 'idle',
      metric: 'daemon_and_vmm_beyond_guest_ram',
      unit: 'MB',
      samples: [(daemonPss + pss - ram) / MB],
      bar: { kind: 'at-most', value: 150 },
      note: `${note}; daemon ${(daemonPss / MB).toFixed(0)}, QEMU ${((pss - ram) / MB).toFixed(0)}, guest RAM ${(ram / MB).toFixed(0)}`,
    });
    report.add({
      bench: 'idle',
      metric: 'cpu',
      unit: '%',
      samples: [cpuPercent],
      bar: { kind: 'at-most', value: 0.5 },
      note: `${note}, over ${WATCH_MS / 1000} s`,
    });

    await givenBack(report);
  },
};

/** In a machine of 1 GiB: in one of 512 MB no process could touch 500. */
async function givenBack(report: Report): Promise<void> {
  await using arcbox = await ArcBox.create({ ARCBOX_MACHINE_MEMORY: '1g' });
  await arcbox.run('run', '--rm', 'busybox', 'true');
  await sleep(SETTLE_MS);
  const before = (await machineOf(arcbox)).pss;
  await arcbox.run(
    ...['run', '--rm', 'busybox', 'sh', '-c'],
    `head -c ${TOUCHED_MB}m /dev/zero | tail -c ${TOUCHED_MB}m >/dev/null`,
  );
  const peak = (await machineOf(arcbox)).pss;
  await sleep(GIVEN_BACK_MS);
  const after = (await machineOf(arcbox)).pss;
  report.add({
    bench: 'idle',
    metric: 'pss_after_use_to_pss_before',
    unit: 'ratio',
    samples: [after / before],
    bar: { kind: 'at-most', value: 1.1 },
    note: `a process touched ${TOUCHED_MB} MB and exited; PSS ${(before / MB).toFixed(0)}, right after ${(peak / MB).toFixed(0)}, 10 s later ${(after / MB).toFixed(0)} MB`,
  });
}

async function machineOf(
  arcbox: ArcBox,
): Promise<{ readonly pid: number; readonly pss: number; readonly ram: number }> {
  const { machine } = await arcbox.daemon().call('MachineService/Inspect', { name: 'default' });
  return {
    pid: machine?.pid ?? 0,
    pss: Number(machine?.pssBytes ?? 0),
    ram: Number(machine?.guestRamPssBytes ?? 0),
  };
}

async function pssBytes(pid: number): Promise<number> {
  const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Pss:\s+(\d+) kB$/m.exec(rollup)?.[1] ?? Number.NaN) * 1024;
}

/** User and system time of a process, with all its threads, in clock ticks. */
async function cpuTicks(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

export default idle;
