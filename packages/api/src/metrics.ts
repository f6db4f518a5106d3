/** `GET /metrics` in Prometheus' text format. Nothing is counted for it meanwhile: it is read off what there is. */
import { availableMemoryBytes, type Runtime } from '@arcbox/engine';
import { Counter, Gauge, Registry } from 'prom-client';
import { VERSION } from './version.ts';

export interface MetricsPage {
  readonly contentType: string;
  readonly body: string;
}

type Labels = Readonly<Record<string, string>>;

/** A page of what is true now. */
export async function metricsPage(runtime: Runtime): Promise<MetricsPage> {
  const registry = new Registry();
  const show = (name: string, help: string, values: readonly (readonly [Labels, number])[]): void => {
    const labelNames = Object.keys(values[0]?.[0] ?? {});
    const options = { name: `arcbox_${name}`, help, labelNames, registers: [registry] };
    // What is counted elsewhere is read here once: the registry, and with it every metric, is made for this page.
    const metric = name.endsWith('_total') ? new Counter(options) : new Gauge(options);
    for (const [labels, value] of values) metric.inc({ ...labels }, value);
  };
  const count = <Item>(
    items: readonly Item[],
    label: string,
    of: (item: Item) => string,
  ): [Labels, number][] => {
    const counts = new Map<string, number>();
    for (const item of items) counts.set(of(item), (counts.get(of(item)) ?? 0) + 1);
    return [...counts].map(([value, number]) => [{ [label]: value }, number]);
  };
  const [containers, volumes, tools, machines, images] = await Promise.all([
    runtime.containers(),
    runtime.volumes(),
    runtime.tools(),
    runtime.machines(),
    runtime.images.list(),
  ]);
  show('build_info', 'The version of the daemon.', [[{ version: VERSION, node: process.version }, 1]]);
  const { rss } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  show('daemon_resident_memory_bytes', 'Resident memory of the daemon.', [[{}, rss]]);
  show('daemon_cpu_seconds_total', 'CPU time of the daemon.', [[{}, (user + system) / 1e6]]);
  show('daemon_uptime_seconds', 'How long the daemon has been up.', [[{}, process.uptime()]]);

  show(
    'containers',
    'Containers by state.',
    count(containers.list(), 'state', ({ state }) => state),
  );
  show('images', 'Images.', [[{}, images.length]]);
  show('volumes', 'Volumes.', [[{}, volumes.list().length]]);
  show(
    'machines',
    'Machines by state.',
    count(machines, 'state', ({ state }) => state),
  );
  const memory: [Labels, number][] = [];
  for (const machine of machines) {
    const { name, saved } = machine;
    if (saved !== undefined) memory.push([{ machine: name, kind: 'saved' }, saved.memoryBytes]);
    const up = machine.state === 'running' ? await machine.current() : undefined;
    const inspect = await up?.vm.inspect();
    if (inspect === undefined) continue;
    memory.push([{ machine: name, kind: 'vmm' }, inspect.pssBytes - inspect.guestRamPssBytes]);
    memory.push([{ machine: name, kind: 'guest' }, inspect.guestRamPssBytes]);
  }
  show('machine_memory_bytes', 'Proportional memory of machines on the host, by kind.', memory);

  const stats = (await tools.stats([])).filter(({ usage }) => usage !== undefined);
  const ofEach = (
    value: (usage: NonNullable<(typeof stats)[number]['usage']>) => number,
  ): [Labels, number][] =>
    stats.flatMap(({ id, name, usage }) => (usage === undefined ? [] : [[{ id, name }, value(usage)]]));
  show(
    'container_cpu_seconds_total',
    'CPU time of running containers.',
    ofEach(({ cpuUsageNs }) => cpuUsageNs / 1e9),
  );
  show(
    'container_memory_bytes',
    'Memory of running containers.',
    ofEach(({ memoryBytes }) => memoryBytes),
  );
  show(
    'container_processes',
    'Processes of running containers.',
    ofEach(({ pids }) => pids),
  );
  const traffic = (of: 'rxBytes' | 'txBytes'): [Labels, number][] =>
    ofEach(({ interfaces }) => interfaces.reduce((sum, counters) => sum + counters[of], 0));
  show(
    'container_network_receive_bytes_total',
    'Bytes that running containers received.',
    traffic('rxBytes'),
  );
  show('container_network_transmit_bytes_total', 'Bytes that running containers sent.', traffic('txBytes'));
  show(
    'container_restarts',
    'How often its restart policy has started a container.',
    containers.list().map(({ id, name, restarts }) => [{ id, name }, restarts]),
  );

  const { events } = runtime;
  show('events_total', 'Events so far.', [[{}, events.lastSeq]]);
  show('events_lost_total', 'Events that readers were too slow for, since the daemon started.', [
    [{}, events.lost],
  ]);
  show('event_readers', 'Readers of events.', [[{}, events.readers]]);
  show('disk_free_bytes', 'Free space where the data is.', [[{}, await runtime.room.freeDiskBytes()]]);
  show('host_memory_available_bytes', 'Available memory of the host.', [[{}, await availableMemoryBytes()]]);
  return { contentType: registry.contentType, body: await registry.metrics() };
}
