import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport } from '@connectrpc/connect-node';
import { ContainerService } from '../src/gen/arcbox/v1/container_pb.ts';
import { ErrorDetailSchema } from '../src/gen/arcbox/v1/error_pb.ts';
import { SystemService } from '../src/gen/arcbox/v1/system_pb.ts';
import { ApiError } from '../src/index.ts';
import { ApiServer } from '../src/server.ts';
import { fakeDaemon } from './support.ts';

/** Resolves when the connection is closed, in order or by a reset: both are an end. */
async function closed(socket: Socket): Promise<void> {
  socket.on('error', () => {});
  await new Promise((resolve) => socket.once('close', resolve));
}

test('one daemon for each data directory; it gives everything back', async () => {
  await using host = await fakeDaemon();
  const { layout } = host.fake;
  const daemon = await host.start();
  assert.equal(readFileSync(layout.pidFile, 'utf8'), `${process.pid}\n`);
  await assert.rejects(
    host.start(),
    (error) =>
      error instanceof ApiError &&
      error.code === 'ERR_ARCBOX_DAEMON_RUNNING' &&
      /process \d+ has/.test(error.message),
  );
  await daemon.stop();
  for (const path of [layout.pidFile, layout.socket]) assert.equal(existsSync(path), false, path);
  await (await host.start()).stop();
});

test('Connect over HTTP/1.1, Connect over HTTP/2 and gRPC get the same answers, errors and streams', async () => {
  await using host = await fakeDaemon();
  await host.start();
  const path = host.fake.layout.socket;
  const nodeOptions = { createConnection: () => connect(path) };
  const transports = {
    'connect 1.1': createConnectTransport({
      httpVersion: '1.1',
      baseUrl: 'http://localhost',
      nodeOptions: { socketPath: path },
    }),
    'connect 2': createConnectTransport({ httpVersion: '2', baseUrl: 'http://localhost', nodeOptions }),
    grpc: createGrpcTransport({ baseUrl: 'http://localhost', nodeOptions }),
  };
  for (const [name, transport] of Object.entries(transports)) {
    assert.equal((await createClient(SystemService, transport).version({})).architecture, 'x86_64', name);
    const containers = createClient(ContainerService, transport);
    const { container } = await containers.create({ image: 'busybox', command: ['both'] });
    const id = container?.id ?? '';
    await containers.start({ id });
    assert.equal((await containers.wait({ id })).exitCode, 7, name);
    let text = '';
    for await (const { entries } of containers.logs({ id })) {
      for (const { stream, data } of entries) text += `${stream}:${Buffer.from(data).toString()}`;
    }
    assert.deepEqual(text.split('\n').sort(), ['', '1:out', '2:err'], name);
    await containers.remove({ id });
    const failures = [
      () => containers.inspect({ id }),
      async () => {
        for await (const entry of containers.logs({ id })) assert.fail(String(entry));
      },
    ];
    for (const failure of failures) {
      await assert.rejects(failure, (error) => {
        assert.ok(error instanceof ConnectError);
        assert.equal(error.code, Code.NotFound);
        const [detail] = error.findDetails(ErrorDetailSchema);
        assert.equal(detail?.code, 'ERR_ARCBOX_CONTAINER_NOT_FOUND');
        return true;
      });
    }
  }
});

test('our own client gets answers and errors with their codes', async () => {
  await using host = await fakeDaemon();
  await host.start();
  const { control } = host;
  const { daemonPid } = await control.call('SystemService/Version', {});
  assert.equal(daemonPid, process.pid);
  await assert.rejects(control.call('ContainerService/Create', { image: 'nosuch' }), {
    name: 'RemoteError',
    code: 'ERR_ARCBOX_IMAGE_NOT_FOUND',
    exitCode: 125,
  });
  const { container } = await control.call('ContainerService/Create', {
    image: 'busybox',
    command: ['nosuch'],
  });
  await assert.rejects(control.call('ContainerService/Start', { id: container?.id ?? '' }), {
    code: 'ERR_ARCBOX_COMMAND_NOT_FOUND',
    exitCode: 127,
  });
  const wrong = { id: 7 } as unknown as { id: string };
  await assert.rejects(
    control.call('ContainerService/Inspect', wrong),
    /the request is no arcbox.v1.*end it with arcbox daemon stop/,
  );
});

test('a call that goes on for long survives the end of its daemon', async (t) => {
  await using host = await fakeDaemon();
  const daemon = await host.start();
  const { container } = await host.control.call('ContainerService/Create', {
    image: 'busybox',
    command: ['sleep'],
  });
  const id = container?.id ?? '';
  await host.control.call('ContainerService/Start', { id });
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() });
  const waiting = host.control.callIdempotent('ContainerService/Wait', { id });
  // A second call is answered after the first has arrived.
  await host.control.call('SystemService/Ping', {});
  t.mock.timers.tick(3_600_000);
  await daemon.stop({ disown: true });
  await host.start();
  await host.control.call('ContainerService/Kill', { id });
  assert.equal((await waiting).exitCode, 137);
});

test('a container that cannot be stopped does not keep the daemon and its machine from ending', async () => {
  await using host = await fakeDaemon();
  const daemon = await host.start();
  const { container } = await host.control.call('ContainerService/Create', {
    image: 'busybox',
    command: ['sleep'],
  });
  const id = container?.id ?? '';
  await host.control.call('ContainerService/Start', { id });
  host.fake.guest.failNext = { op: 'signal', errno: 5 };
  await assert.rejects(daemon.stop(), /as the test wanted/);
  assert.equal(host.fake.host.machines.size, 0);
  await (await host.start()).stop();
});

test('a daemon that cannot listen gives back what it has taken', async () => {
  await using host = await fakeDaemon();
  const { layout } = host.fake;
  const open = (): string[] =>
    readdirSync('/proc/self/fd')
      .map((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`);
        } catch {
          return '';
        }
      })
      .filter((path) => path.startsWith(layout.home));
  mkdirSync(layout.socket);
  await assert.rejects(host.start());
  assert.deepEqual(open(), []);
  assert.equal(existsSync(layout.pidFile), false);
  rmdirSync(layout.socket);
  await (await host.start()).stop();
});

test('nobody listening, and a daemon that cannot start, are told apart', async () => {
  await using host = await fakeDaemon();
  assert.equal(await host.control.callIfUp('SystemService/Ping', {}), undefined);
  await assert.rejects(host.control.call('SystemService/Ping', {}), { code: 'ERR_ARCBOX_DAEMON_START' });
});

test('a connection that does not come to the point is closed, one that did may take its time', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'arcbox-server-'));
  const path = join(directory, 's');
  const upgraded = Promise.withResolvers<void>();
  await using server = new ApiServer({
    services: [],
    onUpgrade: async (_request, socket) => {
      socket.resume().once('end', () => socket.end());
      await once(socket, 'close');
      upgraded.resolve();
    },
    onError: (error) => assert.fail(String(error)),
    // Long against the time that one turn of the loop may take, in which the patient one has to be heard.
    prefaceTimeoutMs: 300,
  });
  await server.listen(path);
  const patient = connect(path);
  patient.write('POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n');
  for (const bytes of ['', 'PRI * ', 'POST / HTTP/1.1\r\nHost: x\r\n']) {
    const socket = connect(path);
    const gone = closed(socket);
    if (bytes !== '') socket.write(bytes);
    socket.resume();
    await gone;
  }
  assert.equal(patient.destroyed, false);
  patient.destroy();
  await upgraded.promise;
  rmSync(directory, { recursive: true });
});

test('a connection that says nothing we know is closed', async () => {
  await using host = await fakeDaemon();
  await host.start();
  for (const bytes of [
    '\0\0\0\0',
    'PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n',
    'GET / HTTP/1.1\r\nbad header\r\n\r\n',
  ]) {
    const socket = connect(host.fake.layout.socket);
    const gone = closed(socket);
    socket.end(bytes);
    socket.resume();
    await gone;
  }
  await host.control.call('SystemService/Ping', {});
});
