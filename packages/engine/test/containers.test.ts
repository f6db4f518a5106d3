import assert from 'node:assert/strict';
import { readdir, rm, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { imageConfig } from '../src/container/commit.ts';
import type { ContainerConfig } from '../src/container/container-record.ts';
import type { Runtime } from '../src/index.ts';
import { collect, FakeRuntime } from './support/fake-runtime.ts';

async function withRuntime(run: (runtime: Runtime, fake: FakeRuntime) => Promise<void>): Promise<void> {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  await run(runtime, fake);
}

const code = (expected: string) => (error: unknown) =>
  error instanceof Error && 'code' in error && error.code === expected;

test('create, attach, start, exit: streams apart, the exit code, nothing left in the guest', async () => {
  await withRuntime(async (runtime, fake) => {
    const containers = await runtime.containers();
    const { id } = await containers.create({ image: 'busybox', command: ['both'] });
    await using attachment = await containers.attach(id);
    await containers.start(id);
    assert.deepEqual(await collect(attachment), { out: 'out\n', err: 'err\n' });
    assert.deepEqual(await attachment.exited, { exitCode: 7, error: '' });
    const record = containers.inspect(id);
    assert.equal(record.state, 'exited');
    assert.equal(record.exitCode, 7);
    await containers.drain();
    assert.deepEqual(fake.guest.leftovers(), [`/m/c/${id}/u`, `/m/c/${id}/w`]);
    await containers.remove(id);
    await containers.drain();
    assert.deepEqual(fake.guest.leftovers(), []);
    assert.deepEqual(await readdir(fake.layout.containers), []);
    assert.throws(() => containers.inspect(id), code('ERR_ARCBOX_CONTAINER_NOT_FOUND'));
  });
});

test('input reaches the process, also what was written before it started', async () => {
  await withRuntime(async (runtime) => {
    const containers = await runtime.containers();
    const { id } = await containers.create({
      image: 'busybox',
      command: ['cat'],
      openStdin: true,
      stdinOnce: true,
    });
    await using attachment = await containers.attach(id);
    const early = attachment.write(Buffer.from('early '), false);
    await containers.start(id);
    await early;
    assert.equal((await attachment.inputPosition())?.accepted, 6);
    await attachment.write(Buffer.from('late'), true);
    assert.equal((await collect(attachment)).out, 'early late');
  });
});

test('a container may run again; its log has both runs, its attachment only one', async () => {
  await withRuntime(async (runtime) => {
    const containers = await runtime.containers();
    const { id } = await containers.create({ image: 'busybox', command: ['echo', 'hi'] });
    for (const run of [1, 2]) {
      await using attachment = await containers.attach(id);
      assert.equal(attachment.run, run);
      await containers.start(id);
      assert.equal((await collect(attachment)).out, 'hi\n');
      assert.equal((await attachment.exited).exitCode, 0);
    }
    const { reader, release } = await containers.logs(id);
    let text = '';
    for (let batch = await reader.read(); batch !== undefined; batch = await reader.read()) {
      text += batch.records.map(({ data }) => data.toString()).join('');
    }
    await release();
    assert.equal(text, 'hi\nhi\n');
    assert.equal(containers.inspect(id).run, 2);
  });
});

test('asking twice for the same makes it once', async () => {
  await withRuntime(async (runtime) => {
    const containers = await runtime.containers();
    const request = { image: 'busybox', command: ['sleep'], idempotencyKey: 'k' };
    const { id } = await containers.create(request);
    assert.equal((await containers.create(request)).id, id);
    await Promise.all([containers.start(id, { run: 1 }), containers.start(id, { run: 1 })]);
    await containers.kill(id);
    assert.equal((await containers.wait(id)).exitCode, 137);
    await containers.start(id, { run: 1 });
    assert.equal(containers.inspect(id).state, 'exited', 'that run is over, and was not begun again');
  });
});

test('a command that is not there is 127, and the container can be looked at and removed', async () => {
  await withRuntime(async (runtime, fake) => {
    const containers = await runtime.containers();
    const { id } = await containers.create({ image: 'busybox', command: ['nosuch'] });
    await using attachment = await containers.attach(id);
    await assert.rejects(containers.start(id), /exec: "nosuch": executable file not found in \$PATH/);
    assert.equal((await attachment.exited).exitCode, 127);
    assert.equal(await attachment.read(), undefined);
    assert.equal(containers.inspect(id).state, 'created');
    assert.deepEqual(fake.guest.leftovers(), [`/m/c/${id}/u`, `/m/c/${id}/w`]);
    await containers.remove(id);
  });
});

test('whichever operation of a start fails, nothing of it stays and the next start works', async () => {
  await withRuntime(async (runtime, fake) => {
    const containers = await runtime.containers();
    const { id } = await containers.create({ image: 'busybox', command: ['echo', 'ok'] });
    for (const op of ['waitDevice', 'mount', 'mkdir', 'write', 'spawn', 'read']) {
      fake.guest.failNext = { op, errno: 5 };
      await assert.rejects(containers.start(id), /as the test wanted|could not be started/, op);
      assert.equal(fake.guest.failNext, undefined, `${op} was not run`);
      const left = fake.guest.leftovers().filter((path) => !path.startsWith('/m/c/'));
      assert.deepEqual(left, [], op);
    }
    await using attachment = await containers.attach(id);
    await containers.start(id);
    assert.equal((await collect(attachment)).out, 'ok\n');
  });
});

test('stop asks first, and kills what does not listen', async () => {
  await using fake = await FakeRuntime.create({
    polite(process) {
      process.onSignal = (signal) => process.exit(signal === 15 ? 3 : 4);
    },
    deaf(process) {
      process.onSignal = () => {};
    },
  });
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  for (const [program, timeoutMs, exitCode] of [
    ['polite', 10_000, 3],
    ['deaf', 1, 137],
    ['sleep', 0, 137],
  ] as const) {
    const { id } = await containers.create({ image: 'busybox', command: [program] });
    await containers.start(id);
    await containers.stop(id, { timeoutMs });
    assert.equal(containers.inspect(id).exitCode, exitCode, program);
    await containers.stop(id);
  }
});

test('what is asked of a container while it is being started is done once it has', async () => {
  await withRuntime(async (runtime) => {
    const containers = await runtime.containers();
    for (const act of ['stop', 'remove', 'stopAll'] as const) {
      const { id } = await containers.create({ image: 'busybox', command: ['sleep'], name: act });
      const started = containers.start(id);
      while (containers.inspect(id).state !== 'starting') await new Promise((next) => setImmediate(next));
      if (act === 'remove') await containers.remove(id, { force: true });
      else if (act === 'stop') await containers.stop(id);
      else await containers.stopAll();
      await started;
      const left = containers.list().find((record) => record.id === id);
      assert.equal(left?.state, act === 'remove' ? undefined : 'exited', act);
    }
  });
});

test('a start whose log cannot be opened fails like any other', async () => {
  await withRuntime(async (runtime, fake) => {
    const containers = await runtime.containers();
    const { id } = await containers.create({ image: 'busybox', command: ['echo', 'ok'] });
    await writeFile(fake.layout.container(id), 'in the way');
    await assert.rejects(containers.start(id));
    assert.equal(containers.inspect(id).state, 'created');
    assert.equal((await containers.wait(id)).exitCode, 125);
    await rm(fake.layout.container(id));
    await using attachment = await containers.attach(id);
    await containers.start(id);
    assert.equal((await collect(attachment)).out, 'ok\n');
  });
});

test('what cannot be done in a state says so', async () => {
  await withRuntime(async (runtime) => {
    const containers = await runtime.containers();
    const { id, name } = await containers.create({ image: 'busybox', command: ['sleep'], name: 'one' });
    await assert.rejects(
      containers.create({ image: 'busybox', name: 'one' }),
      code('ERR_ARCBOX_CONTAINER_NAME_IN_USE'),
    );
    await assert.rejects(containers.kill(name), code('ERR_ARCBOX_CONTAINER_STATE'));
    await containers.start(name);
    await assert.rejects(containers.remove(id), code('ERR_ARCBOX_CONTAINER_STATE'));
    await containers.remove(id.slice(0, 8), { force: true });
    assert.deepEqual(containers.list(), []);
    await assert.rejects(containers.create({ image: 'nosuch' }), code('ERR_ARCBOX_IMAGE_NOT_FOUND'));
    for (const bad of [
      { name: '-x' },
      { host: { limits: { memoryBytes: 1024 } } },
      { workingDir: 'relative' },
      { env: ['=x'] },
      { hostname: 'a b' },
      { stopSignal: 'NOPE' },
      { command: ['a\0b'] },
    ]) {
      await assert.rejects(
        containers.create({ image: 'busybox', ...bad }),
        code('ERR_ARCBOX_INVALID_ARGUMENT'),
        JSON.stringify(bad),
      );
    }
  });
});

test('a container to be removed on exit goes when its last client has left, and its name is free then', async () => {
  await withRuntime(async (runtime) => {
    const containers = await runtime.containers();
    for (let round = 0; round < 2; round += 1) {
      const { id } = await containers.create({
        image: 'busybox',
        command: ['echo'],
        name: 'once',
        autoRemove: true,
      });
      const attachment = await containers.attach(id);
      await containers.start(id);
      await collect(attachment);
      await attachment.exited;
      assert.equal(containers.list().length, 1, 'its client has not left');
      await attachment.close();
      assert.deepEqual(containers.list(), []);
    }
    const { id } = await containers.create({ image: 'busybox', command: ['nosuch'], autoRemove: true });
    await assert.rejects(containers.start(id));
    await containers.drain();
    assert.deepEqual(containers.list(), []);
  });
});

test('a machine that ends takes its containers with it, and the next start boots another', async () => {
  await withRuntime(async (runtime, fake) => {
    const containers = await runtime.containers();
    const { id } = await containers.create({ image: 'busybox', command: ['sleep'] });
    await containers.start(id);
    for (const machine of fake.host.machines.values()) machine.crash();
    const exit = await containers.wait(id);
    assert.equal(exit.exitCode, 255);
    assert.match(exit.error, /gone/);
    await containers.start(id);
    assert.equal(containers.inspect(id).state, 'running');
    assert.equal(fake.host.machines.size, 1);
    await runtime.stopMachine('default');
    assert.equal(fake.host.machines.size, 0);
    assert.equal(runtime.machine('default').state, 'stopped');
    assert.equal(containers.inspect(id).exitCode, 143);
  });
});

test('every container gets what Docker gives it', async () => {
  await withRuntime(async (runtime) => {
    const containers = await runtime.containers();
    const { id } = await containers.create({
      image: 'busybox',
      command: ['env'],
      env: ['A=1', 'PATH=/x'],
      user: 'web',
      tty: true,
    });
    await using attachment = await containers.attach(id);
    await containers.start(id);
    const { out } = await collect(attachment);
    assert.deepEqual(out.trim().split('\n'), [
      'PATH=/x',
      `HOSTNAME=${id.slice(0, 12)}`,
      'TERM=xterm',
      'A=1',
      'HOME=/srv',
    ]);
  });
});

test('an image of a container whose entrypoint was taken away has none', () => {
  const config = { argv: ['sh', '-c', 'true'], env: [], workingDir: '/', user: '', labels: {} };
  const none = imageConfig({ ...config, entrypointLength: 0 } as unknown as ContainerConfig);
  assert.deepEqual([none.Entrypoint, none.Cmd], [null, ['sh', '-c', 'true']]);
  const some = imageConfig({ ...config, entrypointLength: 1 } as unknown as ContainerConfig);
  assert.deepEqual([some.Entrypoint, some.Cmd], [['sh'], ['-c', 'true']]);
});

test('a container is in all its networks from the beginning on, or is not made', async () => {
  await withRuntime(async (runtime) => {
    const containers = await runtime.containers();
    const { networks } = runtime;
    networks.create({ name: 'one', subnet: '10.71.0.0/24' });
    networks.create({ name: 'two', subnet: '10.72.0.0/24' });
    const join = (network: string, more = {}) => ({
      ...{ network, address: '', address6: '', mac: '', aliases: [] },
      ...more,
    });
    const host = {
      networkMode: 'one',
      networks: [join('bridge'), join('two', { address: '10.72.0.9', aliases: ['web'] })],
    };
    const { id } = await containers.create({ image: 'busybox', host });
    const places = networks.endpointsOf(id).map(({ networkId, position, address, aliases }) => {
      return [networks.find(networkId).name, position, address, aliases];
    });
    assert.deepEqual(places, [
      ['one', 0, '10.71.0.2', []],
      ['bridge', 1, places[1]?.[2], []],
      ['two', 2, '10.72.0.9', ['web']],
    ]);
    await assert.rejects(
      containers.create({ image: 'busybox', host: { networkMode: 'one', networks: [join('nosuch')] } }),
      code('ERR_ARCBOX_NETWORK_NOT_FOUND'),
    );
    for (const bad of [
      { networkMode: 'host', networks: [join('one')] },
      { networkMode: 'one', networks: [join('none')] },
      { networkMode: 'one', networks: [join('two', { aliases: ['a b'] })] },
    ])
      await assert.rejects(
        containers.create({ image: 'busybox', host: bad }),
        code('ERR_ARCBOX_INVALID_ARGUMENT'),
      );
    assert.equal(containers.list().length, 1, 'the others left nothing');
    assert.equal(networks.endpointsIn(networks.find('one').id).length, 1);
  });
});
