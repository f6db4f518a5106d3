import assert from 'node:assert/strict';
import { existsSync, readdirSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import type { Machine, Runtime } from '../src/index.ts';
import { containerPaths } from '../src/machine/guest-layout.ts';
import { collect, FakeRuntime } from './support/fake-runtime.ts';

async function echo(runtime: Runtime, text: string): Promise<string> {
  const containers = await runtime.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['echo', text], autoRemove: true });
  await using attachment = await containers.attach(id);
  await containers.start(id);
  return (await collect(attachment)).out;
}

/** Resolves when the machine's state is the wanted one; the test's own time-out is the limit. */
async function until(machine: Machine, state: string): Promise<void> {
  while (machine.state !== state) await new Promise((resolve) => setTimeout(resolve, 5));
}

test('a machine that nobody uses idles down by itself, and is back for the next container', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open({ ARCBOX_MACHINE_IDLE_S: '1' });
  const machine = runtime.machine('default');
  const containers = await runtime.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['sleep'] });
  await containers.start(id);
  await assert.rejects(machine.idleDown(), /in use and cannot idle down/);
  await containers.kill(id);
  await until(machine, 'idle');
  assert.equal(fake.host.machines.size, 0, 'it has no process');
  assert.ok(existsSync(join(fake.layout.machineMemory('default'), 'memory')));
  fake.guest.ran.length = 0;
  // One that goes on: with nobody in it, it would idle down again while we look.
  await containers.start(id);
  assert.equal(machine.state, 'running');
  assert.equal(fake.guest.ran.filter((op) => op === 'mount').length, 1, 'only the container was mounted');
  assert.ok(fake.guest.ran.includes('setTime') && fake.guest.ran.includes('reseed'));
  assert.equal(existsSync(fake.layout.machineMemory('default')), false, 'its memory is its own again');
  assert.equal(await echo(runtime, 'back'), 'back\n');
  await containers.remove(id, { force: true });
});

test('the next daemon finds an idle machine idle, and its first container starts in it', async () => {
  await using fake = await FakeRuntime.create();
  {
    const runtime = await fake.open();
    await echo(runtime, 'one');
    await runtime.idleMachine('default');
    await runtime.close({ disown: true });
  }
  await using runtime = await fake.open();
  const [machine] = await runtime.machines();
  assert.equal(machine?.state, 'idle');
  fake.guest.ran.length = 0;
  assert.equal(await echo(runtime, 'two'), 'two\n');
  assert.equal(fake.guest.ran.filter((op) => op === 'mount').length, 1);
});

test('what an idle machine is known to have is not asked for again; of its page cache it keeps a little', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const dropped = '/proc/sys/vm/drop_caches';
  for (const [cachedKib, drops] of [
    [1024, false],
    [1024 ** 2, true],
  ] as const) {
    await echo(runtime, 'one');
    fake.guest.cachedKib = cachedKib;
    await runtime.idleMachine('default');
    assert.equal(fake.guest.files.has(dropped), drops, `${cachedKib} KiB of page cache`);
    fake.guest.ran.length = 0;
    assert.equal(await echo(runtime, 'two'), 'two\n');
    assert.ok(!fake.guest.ran.includes('waitDevice'), 'its disk is mounted');
    // The namespace's own, and the port of its cable on a bridge that is there.
    assert.equal(fake.guest.ran.filter((op) => op === 'netlink').length, 2);
  }
});

test('what a container wrote that was removed while its machine was idle goes when that idles down again', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['echo', 'kept'] });
  await containers.start(id);
  await containers.wait(id);
  while (containers.inUse('default')) await new Promise((resolve) => setTimeout(resolve, 1));
  await runtime.idleMachine('default');
  await containers.remove(id);
  const upper = containerPaths(id).upper;
  assert.equal(await echo(runtime, 'back'), 'back\n');
  assert.ok(fake.guest.directories.has(upper), 'nobody looked for it on the way up');
  await runtime.idleMachine('default');
  assert.ok(!fake.guest.directories.has(upper));
});

test('what somebody does with a container that does not run is not undone when its machine is told to idle', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['echo', 'one'] });
  await echo(runtime, 'up');
  // As while files are copied: its root is mounted, and a stream is open.
  const { rootfs } = containerPaths(id);
  fake.guest.mounts.set(rootfs, `overlay ${rootfs} overlay rw 0 0`);
  fake.guest.directories.add(containerPaths(id).bundle);
  fake.guest.ran.length = 0;
  await runtime.idleMachine('default');
  assert.ok(fake.guest.mounts.has(rootfs));
  assert.ok(!fake.guest.ran.includes('release'));
});

test('a saved machine that is not whole, or of another configuration, is not used', async () => {
  await using fake = await FakeRuntime.create();
  const directory = fake.layout.machineMemory('default');
  const spoil: Record<string, () => void> = {
    'a torn state': () => truncateSync(join(directory, 'state'), 1),
    'another memory': () => writeFileSync(join(directory, 'memory'), '{"files":{},"epoch":1}'),
  };
  for (const [what, act] of Object.entries(spoil)) {
    await using runtime = await fake.open();
    await echo(runtime, 'one');
    await runtime.idleMachine('default');
    act();
    fake.guest.ran.length = 0;
    assert.equal(await echo(runtime, what), `${what}\n`);
    assert.ok(fake.guest.ran.filter((op) => op === 'mount').length > 1, `${what}: it was booted`);
  }
  {
    const runtime = await fake.open();
    await echo(runtime, 'one');
    await runtime.idleMachine('default');
    await runtime.close({ disown: true });
  }
  await using runtime = await fake.open({ ARCBOX_MACHINE_CPUS: '3' });
  const [machine] = await runtime.machines();
  assert.equal(machine?.state, 'stopped');
  assert.equal(existsSync(dirname(directory)), false, 'and gives its memory back');
});

test('a machine that cannot be saved goes on', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  await echo(runtime, 'one');
  const [pid] = fake.host.machines.keys();
  // Somebody else's directory, as far as its mode tells.
  const parent = dirname(fake.layout.machineMemory('default'));
  writeFileSync(parent, '');
  await assert.rejects(runtime.idleMachine('default'), /not a directory of our own|EEXIST|ENOTDIR/);
  assert.equal(runtime.machine('default').state, 'running');
  assert.deepEqual([...fake.host.machines.keys()], [pid]);
  assert.equal(await echo(runtime, 'on'), 'on\n');
});

test('a machine that a dead daemon left paused goes on', async () => {
  await using fake = await FakeRuntime.create();
  {
    const runtime = await fake.open();
    await echo(runtime, 'one');
    await runtime.close({ disown: true });
  }
  for (const machine of fake.host.machines.values()) machine.pause();
  await using runtime = await fake.open();
  assert.equal(await echo(runtime, 'two'), 'two\n');
});

test('stopping an idle machine gives its memory back', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  await echo(runtime, 'one');
  await runtime.idleMachine('default');
  await runtime.stopMachine('default');
  assert.equal(runtime.machine('default').state, 'stopped');
  assert.equal(existsSync(dirname(fake.layout.machineMemory('default'))), false);
  assert.equal(await echo(runtime, 'again'), 'again\n');
});

test('whoever needs the machine while it idles down gets it', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  await echo(runtime, 'one');
  for (let round = 0; round < 20; round += 1) {
    const idling = runtime.idleMachine('default').catch(() => {});
    for (let turn = 0; turn < round; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(await echo(runtime, `round ${round}`), `round ${round}\n`);
    await idling;
  }
  assert.deepEqual(readdirSync(fake.layout.containers), []);
});

test('several who want it idle have one flight', async () => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  await echo(runtime, 'one');
  await Promise.all([1, 2, 3].map(() => runtime.idleMachine('default')));
  assert.equal(runtime.machine('default').state, 'idle');
  assert.equal(fake.host.machines.size, 0);
  assert.equal(await echo(runtime, 'two'), 'two\n');
});

test('a machine that ends while it is saved is booted by the next who needs it', async (t) => {
  await using fake = await FakeRuntime.create();
  await using runtime = await fake.open();
  await echo(runtime, 'one');
  const vm = (await runtime.machine('default').current())?.vm;
  assert.ok(vm);
  t.mock.method(vm, 'snapshot', async () => {
    for (const machine of fake.host.machines.values()) machine.crash();
    await vm.exited;
    await new Promise((resolve) => setImmediate(resolve));
    throw new Error('it is gone');
  });
  await assert.rejects(runtime.idleMachine('default'), /it is gone/);
  assert.equal(runtime.machine('default').state, 'stopped');
  assert.equal(await echo(runtime, 'two'), 'two\n');
});
