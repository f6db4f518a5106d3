/**
 * Containers one after the other: how fast, and what of them stays, on the host and in the machine, which is to be
 * nothing. And what a second container of an image costs in memory while it runs.
 */
import { readdir, readlink } from 'node:fs/promises';
import { ArcBox } from './lib/command.ts';
import type { Benchmark } from './lib/main.ts';

const CONTAINERS = 50;
const SECOND_RUNS = 5;
const SECOND_MB = 5;
const MB = 1e6;

/** What the machine has, seen by a container in its process namespace: names and counts. */
const INVENTORY = `cd /proc/1/root
for d in run/c run/crun run/shm m/c sys/fs/cgroup/arcbox sys/block l; do echo "$d $(ls -d $d/*/ 2>/dev/null | wc -l)"; done
echo "mounts $(wc -l < /proc/1/mounts)"
echo "processes $(ls -d /proc/[0-9]*/exe 2>/dev/null | while read f; do readlink $f; done 2>/dev/null | wc -l)"
echo "agent-descriptors $(ls /proc/1/fd | wc -l)"`;

const churn: Benchmark = {
  summary: `${CONTAINERS} containers in a row leave nothing behind; memory of a second container of an image`,
  async run(report) {
    await using arcbox = await ArcBox.create();
    await arcbox.run('run', '--rm', 'busybox', 'true');
    const before = await inventory(arcbox);
    const samples: number[] = [];
    for (let n = 0; n < CONTAINERS; n += 1) {
      samples.push((await arcbox.run('run', '--rm', 'busybox', 'sh', '-c', 'echo x > /file')).elapsedMs);
    }
    report.add({ bench: 'churn', metric: 'arcbox_run_rm', unit: 'ms', samples, note: 'tcg, warm machine' });
    const after = await inventory(arcbox);
    for (const [name, count] of after) {
      report.add({
        bench: 'churn',
        metric: `growth_of_${name.replaceAll(/[^a-z]+/g, '_')}`,
        unit: 'count',
        samples: [count - (before.get(name) ?? 0)],
        bar: { kind: 'at-most', value: 0 },
        note: `after ${CONTAINERS} containers; ${count} now`,
      });
    }

    await arcbox.run('run', '-d', '--name', 'first', 'busybox', 'sleep', '100000');
    const memory: number[] = [];
    for (let n = 0; n < SECOND_RUNS; n += 1) {
      const without = await machineBytes(arcbox);
      await arcbox.run('run', '-d', '--name', 'second', 'busybox', 'sleep', '100000');
      memory.push(((await machineBytes(arcbox)) - without) / MB);
      await arcbox.run('rm', '-f', 'second');
    }
    report.add({
      bench: 'churn',
      metric: 'second_container_of_an_image',
      unit: 'MB',
      samples: memory,
      bar: { kind: 'at-most', value: SECOND_MB },
      note: 'host memory of the machine (proportional set size) while it runs, to without it',
    });
    await arcbox.run('rm', '-f', 'first');
  },
};

async function inventory(arcbox: ArcBox): Promise<ReadonlyMap<string, number>> {
  const { output } = await arcbox.run(
    ...'run --rm --privileged --pid host busybox sh -c'.split(' '),
    INVENTORY,
  );
  const counts = output
    .trim()
    .split('\n')
    .map((line): [string, number] => [line.split(' ')[0] ?? '', Number(line.split(' ')[1])]);
  const pid = await arcbox.daemonPid();
  const { output: machine } = await arcbox.run('machine', 'inspect', 'default');
  const [{ Running } = {}] = JSON.parse(machine) as { Running?: { Pid: number } | null }[];
  return new Map([
    ...counts,
    ['daemon-files', await openFiles(pid)],
    ['vmm-files', await openFiles(Running?.Pid ?? 0)],
    ['container-directories', (await readdir(`${arcbox.home}/containers`)).length],
  ]);
}

/** Files and devices; sockets of clients that are just leaving are none. */
async function openFiles(pid: number): Promise<number> {
  const links = await Promise.all(
    (await readdir(`/proc/${pid}/fd`)).map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')),
  );
  return links.filter((link) => link.startsWith('/')).length;
}

async function machineBytes(arcbox: ArcBox): Promise<number> {
  const { output } = await arcbox.run('machine', 'inspect', 'default');
  const [machine] = JSON.parse(output) as { Running?: { Pss: number } | null }[];
  return machine?.Running?.Pss ?? 0;
}

export default churn;
