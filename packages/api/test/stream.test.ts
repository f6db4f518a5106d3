import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { ContainerStream, type DaemonControl } from '../src/client/index.ts';
import { FrameType, frame } from '../src/stdio/frames.ts';
import { fakeDaemon } from './support.ts';

interface Output {
  out: string;
  err: string;
}

function open(
  control: DaemonControl,
  container: string,
  options: { stdin?: boolean; logs?: { follow: boolean }; cursor?: 'start' } = {},
): { stream: ContainerStream; output: Output } {
  const output = { out: '', err: '' };
  const stream = new ContainerStream(control, {
    container,
    stdin: options.stdin ?? false,
    ...(options.logs === undefined ? {} : { logs: options.logs }),
    ...(options.cursor === undefined ? {} : { cursor: options.cursor }),
    onOutput(channel, data) {
      output[channel === 1 ? 'out' : 'err'] += data.toString();
      return undefined;
    },
  });
  return { stream, output };
}

async function create(
  control: DaemonControl,
  command: string[],
  more: { openStdin?: boolean; stdinOnce?: boolean; autoRemove?: boolean } = {},
): Promise<string> {
  const { container } = await control.call('ContainerService/Create', { image: 'busybox', command, ...more });
  return container?.id ?? '';
}

test('output on its own streams, then the exit; auto-removal is done when the farewell is answered', async () => {
  await using host = await fakeDaemon();
  await host.start();
  const id = await create(host.control, ['both'], { autoRemove: true });
  const { stream, output } = open(host.control, id);
  await stream.open();
  await host.control.call('ContainerService/Start', { id });
  assert.deepEqual(await stream.exited, { exitCode: 7, error: '' });
  assert.deepEqual(output, { out: 'out\n', err: 'err\n' });
  await stream.farewell();
  assert.deepEqual(await host.control.call('ContainerService/List', { all: true }), {});
});

test('input arrives, from before the start on, and its end', async () => {
  await using host = await fakeDaemon();
  await host.start();
  const id = await create(host.control, ['cat'], { openStdin: true, stdinOnce: true });
  const { stream, output } = open(host.control, id, { stdin: true });
  await stream.open();
  await stream.write(Buffer.from('one '));
  await host.control.call('ContainerService/Start', { id });
  await stream.write(Buffer.from('two'));
  stream.end();
  assert.equal((await stream.exited).exitCode, 0);
  assert.equal(output.out, 'one two');
  stream.detach();
});

test('signals and sizes reach the process', async () => {
  const seen: string[] = [];
  await using host = await fakeDaemon({
    listen(process) {
      process.onResize = (rows, columns) => seen.push(`${rows}x${columns}`);
      process.onSignal = (signal) => process.exit(signal);
    },
  });
  await host.start();
  const id = await create(host.control, ['listen']);
  const { stream } = open(host.control, id, { stdin: true });
  await stream.open();
  await host.control.call('ContainerService/Start', { id });
  stream.resize(33, 111);
  while (seen.length === 0) await new Promise((resolve) => setImmediate(resolve));
  stream.signal(10);
  assert.equal((await stream.exited).exitCode, 10);
  assert.deepEqual(seen, ['33x111']);
  stream.detach();
});

test('a process that reads nothing holds its input back, and neither its signals nor our memory', async () => {
  const rounds = 20;
  await using host = await fakeDaemon({
    full(process) {
      process.onInput = () => new Promise(() => {});
      process.onSignal = (signal) => {
        if (signal === 10) void process.out('signal\n');
        else process.exit(signal);
      };
    },
  });
  await host.start();
  const id = await create(host.control, ['full'], { openStdin: true, stdinOnce: true });
  const { stream, output } = open(host.control, id, { stdin: true });
  await stream.open();
  await host.control.call('ContainerService/Start', { id });
  const piece = Buffer.alloc(64 * 1024);
  let taken = 0;
  const feeding = (async () => {
    for (let n = 0; n < 100; n += 1) {
      await stream.write(piece);
      taken += piece.length;
    }
  })();
  // The guest's window of 1 MiB, and ours.
  while (taken < 1024 * 1024) await new Promise((resolve) => setImmediate(resolve));
  // Every answer is a way there and back, in which more input would be taken if there was room for it.
  for (let round = 1; round <= rounds; round += 1) {
    stream.signal(10);
    while (output.out.length < round * 'signal\n'.length)
      await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(taken < 2 * 1024 * 1024, `${taken} bytes were taken`);
  stream.signal(15);
  assert.equal((await stream.exited).exitCode, 15);
  // What is still to come goes nowhere.
  await feeding;
  stream.detach();
});

test('an error that ends the stream ends it for the client, which does not come back for ever', async () => {
  await using host = await fakeDaemon({
    async talk({ out }) {
      await out('something');
    },
  });
  await host.start();
  const id = await create(host.control, ['talk']);
  await host.control.call('ContainerService/Start', { id });
  const directory = host.fake.layout.containerLog(id);
  const [segment = ''] = readdirSync(directory);
  while (!readFileSync(join(directory, segment)).includes('something'))
    await new Promise((resolve) => setImmediate(resolve));
  writeFileSync(join(directory, segment), Buffer.alloc(4096));
  const { stream } = open(host.control, id, { logs: { follow: true }, cursor: 'start' });
  await stream.open();
  await assert.rejects(stream.exited, { name: 'RemoteError', code: 'ERR_ARCBOX_LOG_CORRUPT' });
});

test('the end of a daemon is survived: the next one goes on where the output stopped', async () => {
  let go: (() => void) | undefined;
  await using host = await fakeDaemon({
    async talk({ out, exit }) {
      for (let n = 0; n < 5; n += 1) {
        await out(`${n} `);
        await new Promise<void>((resolve) => {
          go = resolve;
        });
      }
      exit(0);
    },
  });
  let daemon = await host.start();
  const id = await create(host.control, ['talk']);
  const { stream, output } = open(host.control, id);
  await stream.open();
  await host.control.call('ContainerService/Start', { id });
  let expected = '';
  for (let n = 0; n < 5; n += 1) {
    expected += `${n} `;
    while (output.out !== expected) await new Promise((resolve) => setImmediate(resolve));
    await daemon.stop({ disown: true });
    daemon = await host.start();
    go?.();
  }
  assert.equal((await stream.exited).exitCode, 0);
  assert.equal(output.out, expected);
  stream.detach();
});

test('the log can be read while and after the container runs', async () => {
  await using host = await fakeDaemon();
  await host.start();
  const id = await create(host.control, ['count', '1000']);
  await host.control.call('ContainerService/Start', { id });
  const followed = open(host.control, id, { logs: { follow: true }, cursor: 'start' });
  await followed.stream.open();
  await followed.stream.exited;
  const read = open(host.control, id, { logs: { follow: false }, cursor: 'start' });
  await read.stream.open();
  await read.stream.exited;
  const expected = Array.from({ length: 1000 }, (_, n) => `${n}\n`).join('');
  assert.equal(followed.output.out, expected);
  assert.equal(read.output.out, expected);
  followed.stream.detach();
  read.stream.detach();
});

test('what cannot be attached to is refused with its code', async () => {
  await using host = await fakeDaemon();
  await host.start();
  await assert.rejects(open(host.control, 'nosuch').stream.open(), {
    code: 'ERR_ARCBOX_CONTAINER_NOT_FOUND',
  });
  const id = await create(host.control, ['sleep']);
  const bad = new ContainerStream(host.control, {
    container: id,
    cursor: 99,
    stdin: false,
    onOutput: () => undefined,
  });
  await assert.rejects(bad.open(), { code: 'ERR_ARCBOX_INVALID_ARGUMENT' });
  for (const run of ['x', '-1', '0', '1.5', '99999999999']) {
    const socket = connect(host.fake.layout.socket);
    socket.write(
      `POST /v1/containers/${id}/attach?run=${run} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: arcbox-stream\r\n\r\n`,
    );
    assert.match(String((await once(socket, 'data'))[0]), /^HTTP\/1\.1 400 .*not the number of a run/s, run);
    socket.destroy();
  }
});

test('a client that was killed is let go at once, one that has only said everything is not', async () => {
  await using host = await fakeDaemon();
  await host.start();
  const id = await create(host.control, ['sleep']);
  await host.control.call('ContainerService/Start', { id });
  // Both ends of every connection are in this process.
  const sockets = (): number =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
      } catch {
        return false;
      }
    }).length;
  const attach = async (): Promise<Socket> => {
    const socket = connect({ path: host.fake.layout.socket, allowHalfOpen: true });
    socket.write(
      `POST /v1/containers/${id}/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: arcbox-stream\r\n\r\n`,
    );
    assert.match(String((await once(socket, 'data'))[0]), /^HTTP\/1\.1 101 /);
    return socket;
  };
  const half = await attach();
  half.end();
  const [ping] = (await once(half, 'data')) as [Buffer];
  assert.deepEqual(ping, frame(FrameType.ping));
  const before = sockets();
  (await attach()).destroy();
  while (sockets() > before) await new Promise((resolve) => setImmediate(resolve));
  await host.control.call('ContainerService/Kill', { id });
  let told = '';
  half.on('data', (data: Buffer) => {
    told += data.toString();
  });
  await once(half, 'end');
  assert.match(told, /"exitCode":137/);
  half.destroy();
});

test('a client that breaks the protocol is told and let go; the container goes on', async () => {
  await using host = await fakeDaemon();
  await host.start();
  const id = await create(host.control, ['sleep'], { openStdin: true, stdinOnce: true });
  await host.control.call('ContainerService/Start', { id });
  const socket = connect(host.fake.layout.socket);
  socket.write(
    `POST /v1/containers/${id}/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: arcbox-stream\r\n\r\n`,
  );
  let answer = '';
  socket.on('data', (data: Buffer) => {
    answer += data.toString('latin1');
    if (answer.endsWith('\r\n\r\n')) socket.write(frame(FrameType.exit, Buffer.from('{}')));
  });
  await once(socket, 'close');
  assert.match(answer, /^HTTP\/1\.1 101 /);
  assert.match(answer, /ERR_ARCBOX_STREAM_PROTOCOL/);
  const { container } = await host.control.call('ContainerService/Inspect', { id });
  assert.equal(container?.state, 'running');
});
