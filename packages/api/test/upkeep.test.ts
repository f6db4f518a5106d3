import assert from 'node:assert/strict';
import { request } from 'node:http';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { loadConfig } from '@arcbox/engine';
import { FakeRuntime } from '../../engine/test/support/fake-runtime.ts';
import { metricsPage } from '../src/metrics.ts';
import { MetricsServer } from '../src/metrics-server.ts';
import { fakeDaemon } from './support.ts';

/** A multiple of how often the log is trimmed, past its length. */
const LOST_AFTER = 10_496;

interface Page {
  readonly status: number | undefined;
  readonly body: string;
}

async function get(options: object, path = '/metrics'): Promise<Page> {
  const { promise, resolve, reject } = Promise.withResolvers<Page>();
  request({ ...options, path, agent: false }, async (answer) => {
    resolve({ status: answer.statusCode, body: await text(answer) });
  })
    .on('error', reject)
    .end();
  return promise;
}

test('metrics are on the socket, and say what is true', async () => {
  await using daemon = await fakeDaemon();
  await daemon.start();
  const { control } = daemon;
  const { container } = await control.call('ContainerService/Create', {
    image: 'busybox',
    command: ['sleep'],
    name: 'one',
  });
  await control.call('ContainerService/Create', { image: 'busybox' });
  await control.call('VolumeService/Create', { name: 'data' });
  const { status, body } = await get({ socketPath: control.socketPath });
  assert.equal(status, 200);
  assert.match(body, /^arcbox_containers\{state="created"\} 2$/m);
  assert.match(body, /^arcbox_volumes 1$/m);
  assert.match(body, /^arcbox_machines\{state="stopped"\} 1$/m);
  assert.match(body, /^arcbox_events_lost_total 0$/m);
  assert.match(body, new RegExp(`^arcbox_container_restarts\\{id="${container?.id}",name="one"\\} 0$`, 'm'));
  assert.match(body, /^arcbox_events_total [3-9]$/m);
});

test('what only grows is a counter, everything else a gauge; events that were lost are counted', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const { events } = runtime;
  events.emit('daemon', 'start', 'first');
  // A reader that stands still after the first one, while the log has room for the last ten thousand only.
  const reader = events.read({ afterSeq: 0 });
  await reader.next();
  while (events.lastSeq < LOST_AFTER) events.emit('daemon', 'reload', 'again');
  const { value: batch } = await reader.next();
  await reader.return(undefined);
  assert.ok(batch !== undefined && batch.lost > 0);
  const { body } = await metricsPage(runtime);
  const types = Array.from(body.matchAll(/^# TYPE (\w+) (\w+)$/gm), ([, name = '', type = '']) => [
    name,
    type,
  ]);
  assert.ok(types.length > 15);
  for (const [name = '', type] of types) {
    assert.equal(type, name.endsWith('_total') ? 'counter' : 'gauge', name);
  }
  assert.match(body, new RegExp(`^arcbox_events_lost_total ${batch.lost}$`, 'm'));
  assert.match(body, new RegExp(`^arcbox_events_total ${LOST_AFTER}$`, 'm'));
  assert.match(body, /^arcbox_daemon_cpu_seconds_total [0-9.e-]+$/m);
});

test('metrics have an address of their own when one is configured, on loopback only', async () => {
  await using daemon = await fakeDaemon();
  await daemon.start();
  await using runtime = await daemon.fake.open().catch(() => undefined);
  assert.ok(runtime !== undefined);
  await using server = await MetricsServer.listen('127.0.0.1:0', runtime);
  assert.match((await get({ host: '127.0.0.1', port: server.port })).body, /^arcbox_images 1$/m);
  assert.equal((await get({ host: '127.0.0.1', port: server.port }, '/other')).status, 404);
  const file = daemon.fake.layout.configFile;
  for (const address of ['0.0.0.0:9464', 'example.org:80', '127.0.0.1'])
    await assert.rejects(loadConfig({ environment: { ARCBOX_METRICS_ADDRESS: address }, file }), /loopback/);
  const { metricsAddress } = await loadConfig({
    environment: { ARCBOX_METRICS_ADDRESS: '[::1]:9464' },
    file,
  });
  assert.equal(metricsAddress, '[::1]:9464');
});

test('usage is counted, and what does not run is pruned', async () => {
  await using daemon = await fakeDaemon();
  await daemon.start();
  const { control } = daemon;
  const ids: string[] = [];
  for (const command of [['sleep'], ['echo', 'x'], ['echo', 'y']]) {
    const { container } = await control.call('ContainerService/Create', { image: 'busybox', command });
    ids.push(container?.id ?? '');
  }
  await control.call('ContainerService/Start', { id: ids[0] ?? '' });
  await control.call('ContainerService/Start', { id: ids[1] ?? '' });
  await control.call('ContainerService/Wait', { id: ids[1] ?? '' });
  await control.call('VolumeService/Create', { name: 'data' });
  const usage = await control.call('SystemService/DiskUsage', {});
  assert.deepEqual([usage.containers?.count, usage.containers?.active], [3, 1]);
  assert.equal(usage.images?.active, 1);
  assert.ok(Number(usage.volumes?.bytes) > 0);
  assert.equal(usage.volumes?.reclaimableBytes, usage.volumes?.bytes);
  const { ids: removed = [] } = await control.call('ContainerService/Prune', {});
  assert.deepEqual(removed.toSorted(), ids.slice(1).toSorted());
  const { containers = [] } = await control.call('ContainerService/List', { all: true });
  assert.deepEqual(
    containers.map(({ id }) => id),
    [ids[0]],
  );
});
