import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import type { EventJson } from '../src/client/index.ts';
import { SystemService } from '../src/gen/arcbox/v1/system_pb.ts';
import { fakeDaemon } from './support.ts';

test('events are followed over the socket, from a number on, and end with the daemon', async () => {
  await using daemon = await fakeDaemon();
  const running = await daemon.start();
  const seen: EventJson[] = [];
  const created = Promise.withResolvers<void>();
  const following = (async () => {
    for await (const event of daemon.control.stream('SystemService/Events', { afterSeq: '0' })) {
      seen.push(event);
      if (event.action === 'create') created.resolve();
    }
  })();
  const { container } = await daemon.control.call('ContainerService/Create', {
    image: 'busybox',
    labels: { a: 'b' },
  });
  await created.promise;
  const event = seen.find(({ action }) => action === 'create');
  assert.equal(event?.id, container?.id);
  assert.equal(event?.attributes?.a, 'b');
  assert.ok(Number(event?.seq) > 0);
  const past = daemon.control.stream('SystemService/Events', {
    sinceMs: '0',
    untilMs: String(Date.now()),
    filters: { event: { values: ['create'] } },
  });
  assert.deepEqual(
    (await Array.fromAsync(past)).map(({ action }) => action),
    ['create'],
  );
  await running.stop();
  await following;
});

test('what is wrong with a request for a stream is told at its end, with its code', async () => {
  await using daemon = await fakeDaemon();
  await daemon.start();
  for (const message of [
    { filters: { colour: { values: ['red'] } } },
    { afterSeq: '99' },
    { afterSeq: 'x' },
  ]) {
    await assert.rejects(Array.fromAsync(daemon.control.stream('SystemService/Events', message)), {
      code: 'ERR_ARCBOX_INVALID_ARGUMENT',
    });
  }
});

test('a client of another make gets the same stream', async () => {
  await using daemon = await fakeDaemon();
  await daemon.start();
  await daemon.control.call('ContainerService/Create', { image: 'busybox' });
  const transport = createConnectTransport({
    baseUrl: 'http://localhost',
    httpVersion: '1.1',
    nodeOptions: { socketPath: daemon.control.socketPath },
  });
  const client = createClient(SystemService, transport);
  const events = await Array.fromAsync(client.events({ afterSeq: 0n, untilMs: BigInt(Date.now()) }));
  assert.deepEqual(
    events.map(({ action }) => action),
    ['create'],
  );
});
