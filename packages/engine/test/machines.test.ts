import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import type { ContainerManager, MountRequest, Runtime } from '../src/index.ts';
import { FakeRuntime } from './support/fake-runtime.ts';

/** A second machine; its disk is not made by mkfs. */
async function second(fake: FakeRuntime, runtime: Runtime, name = 'second', more = {}): Promise<void> {
  await runtime.createMachine(name, { cpus: 2, memoryMib: 256, ...more });
  mkdirSync(fake.layout.machine(name), { recursive: true });
  writeFileSync(fake.layout.machineDisk(name), '');
}

async function sleeper(containers: ContainerManager, machine: string, more = {}): Promise<string> {
  const { id } = await containers.create({ image: 'busybox', command: ['sleep'], machine, ...more });
  await containers.start(id);
  return id;
}

const states = async (runtime: Runtime): Promise<string[]> =>
  (await runtime.machines()).map(({ name, state }) => `${name} ${state}`);

const volume: MountRequest = {
  type: 'volume',
  source: 'data',
  target: '/data',
  readOnly: false,
  noCopy: false,
  tmpfsBytes: 0,
  tmpfsMode: 0,
};

test('containers run in the machine they name; each machine stops and idles by itself', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  await second(fake, runtime);
  const one = await sleeper(containers, 'default');
  const two = await sleeper(containers, 'second');
  assert.deepEqual(await states(runtime), ['default running', 'second running']);
  assert.equal(fake.host.machines.size, 2);
  assert.equal(containers.inspect(two).machine, 'second');
  assert.deepEqual(runtime.machine('second').size, {
    ...runtime.machine('default').size,
    cpus: 2,
    memoryMib: 256,
  });
  await runtime.stopMachine('second');
  assert.deepEqual(await states(runtime), ['default running', 'second stopped']);
  assert.equal(containers.inspect(one).state, 'running');
  assert.equal(containers.inspect(two).state, 'exited');
  await runtime.machine('second').ensure();
  await runtime.idleMachine('second');
  assert.ok(existsSync(fake.layout.machineMemory('second')));
  await containers.start(two);
  assert.deepEqual(await states(runtime), ['default running', 'second running']);
  await assert.rejects(
    containers.create({ image: 'busybox', machine: 'third' }),
    /no such machine: third; arcbox machine create third/,
  );
});

test('stopping one machine leaves the restart policies of the others alone', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  await second(fake, runtime);
  const life = { life: { restart: 'always' } };
  const one = await sleeper(containers, 'default', life);
  const two = await sleeper(containers, 'second', life);
  const [stopping] = [runtime.stopMachine('second'), await containers.restart(one, { timeoutMs: 0 })];
  await stopping;
  assert.equal(containers.inspect(one).state, 'running');
  assert.equal(containers.inspect(two).state, 'exited');
});

test('both machines and their containers are taken over by the next daemon', async () => {
  await using fake = await FakeRuntime.create();
  let ids: string[];
  {
    const runtime = await fake.open();
    const containers = await runtime.containers();
    await second(fake, runtime);
    ids = [await sleeper(containers, 'default'), await sleeper(containers, 'second')];
    await runtime.close({ disown: true });
  }
  const pids = [...fake.host.machines.keys()];
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  assert.deepEqual(
    ids.map((id) => containers.inspect(id).state),
    ['running', 'running'],
  );
  assert.deepEqual([...fake.host.machines.keys()], pids);
  assert.equal(runtime.machine('second').size.memoryMib, 256);
});

test('a machine that is used is removed by force only, and then nothing of it is left', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  await second(fake, runtime);
  const id = await sleeper(containers, 'second', { name: 'web', mounts: [{ ...volume, source: '' }] });
  await assert.rejects(runtime.removeMachine('second'), /runs the container web; stop and remove that first/);
  await containers.kill(id);
  await containers.wait(id);
  await assert.rejects(runtime.removeMachine('second'), /has the container web; remove that first/);
  await containers.remove(id, { volumes: true });
  await assert.rejects(runtime.removeMachine('second'), /is running; stop it first/);
  await sleeper(containers, 'second', { name: 'web', mounts: [{ ...volume, source: '' }] });
  await runtime.removeMachine('second', { force: true });
  assert.deepEqual(await states(runtime), ['default stopped']);
  assert.equal(fake.host.machines.size, 0);
  assert.deepEqual(containers.list(), []);
  assert.deepEqual((await runtime.volumes()).list(), []);
  assert.equal(existsSync(fake.layout.machine('second')), false);
  assert.throws(() => runtime.machine('second'), /no such machine/);
  await assert.rejects(runtime.removeMachine('default', { force: true }), /cannot be removed/);
});

test('an idle machine without containers is removed with its memory, and its name is free again', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  await second(fake, runtime);
  await runtime.machine('second').ensure();
  await runtime.idleMachine('second');
  await runtime.policies.set(
    runtime.plane,
    { kind: 'machine', id: 'second' },
    { default: 'deny', rules: [] },
  );
  await runtime.removeMachine('second');
  assert.equal(existsSync(fake.layout.machineMemory('second')), false);
  await second(fake, runtime, 'second', { cpus: 1 });
  assert.equal(runtime.machine('second').size.cpus, 1);
  assert.equal(runtime.policies.get({ kind: 'machine', id: 'second' }), undefined, 'nothing is inherited');
});

test('a removal that a daemon began is finished by the next one', async () => {
  await using fake = await FakeRuntime.create();
  {
    const runtime = await fake.open();
    const containers = await runtime.containers();
    await second(fake, runtime);
    await sleeper(containers, 'second');
    await runtime.close({ disown: true });
  }
  {
    const { Store } = await import('../src/state/store.ts');
    using store = new Store(fake.layout.stateDatabase);
    store.machines.setRemoving('second');
  }
  await using runtime = await fake.open();
  assert.deepEqual(await states(runtime), ['default stopped']);
  assert.equal(fake.host.machines.size, 0);
  assert.deepEqual((await runtime.containers()).list(), []);
  assert.equal(existsSync(fake.layout.machine('second')), false);
});

test('a volume is in one machine at a time, and moves when nobody uses it', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  await second(fake, runtime);
  const one = await sleeper(containers, 'default', { name: 'one', mounts: [volume] });
  const { id: two } = await containers.create({
    image: 'busybox',
    command: ['sleep'],
    machine: 'second',
    mounts: [volume],
  });
  await assert.rejects(
    containers.start(two),
    /volume data is in use by the container one in the machine default.*--machine default/,
  );
  // At once, while it is still being cleaned up.
  await containers.stop(one, { timeoutMs: 0 });
  await containers.start(two);
  const holders = [...fake.host.machines.values()].map(({ guest }) =>
    guest.disks.map(({ id }) => id).filter((id) => id.startsWith('v-')),
  );
  assert.deepEqual(holders.flat(), ['v-1'], 'in one machine');
  await assert.rejects(containers.start(one), /in the machine second/);
  await containers.stop(two, { timeoutMs: 0 });
  // Also out of a machine that has gone.
  await runtime.stopMachine('second');
  await containers.start(one);
});

test('what joins a container is in its machine, whatever was not said', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  await second(fake, runtime);
  await sleeper(containers, 'second', { name: 'web' });
  const joined = await containers.create({ image: 'busybox', host: { pidMode: 'container:web' } });
  assert.equal(joined.machine, 'second');
  await assert.rejects(
    containers.create({ image: 'busybox', machine: 'default', host: { networkMode: 'container:web' } }),
    /is in the machine second; .* use --machine second/,
  );
});

test('what a machine cannot be is refused', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const refused: [string, object, RegExp][] = [
    ['../x', {}, /not a machine's name/],
    ['', {}, /not a machine's name/],
    ['a', { cpus: 0 }, /CPUs from 1 to 64/],
    ['a', { memoryMib: 64 }, /memory from 128MiB/],
    ['a', { diskBytes: 1024 }, /a disk from 64MiB/],
    ['default', {}, /there is a machine default already/],
  ];
  for (const [name, options, message] of refused)
    await assert.rejects(runtime.createMachine(name, options), message);
});
