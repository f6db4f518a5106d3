import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ExecProcess, Runtime } from '../src/index.ts';
import type { Program } from './support/fake-guest.ts';
import { FakeRuntime } from './support/fake-runtime.ts';

async function running(
  programs: Readonly<Record<string, Program>>,
  use: (runtime: Runtime, id: string, fake: FakeRuntime) => Promise<void>,
): Promise<void> {
  await using fake = await FakeRuntime.create(programs);
  await using runtime = await fake.open();
  const containers = await runtime.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['sleep'], env: ['A=container'] });
  await containers.start(id);
  await use(runtime, id, fake);
}

async function gather(process: ExecProcess): Promise<{ out: string; err: string }> {
  let out = '';
  let err = '';
  for (let batch = await process.read(); batch !== undefined; batch = await process.read()) {
    for (const { channel, data } of batch) {
      if (channel === 1) out += data.toString();
      else err += data.toString();
    }
  }
  return { out, err };
}

test('an exec gives its streams and its exit code, which stay on record until the container is removed', async () => {
  await running({}, async (runtime, id, fake) => {
    const execs = await runtime.execs();
    const { id: execId } = execs.create(id, { argv: ['both'] });
    assert.equal(execs.inspect(execId).state, 'created');
    const process = await execs.start(execId);
    assert.deepEqual(await gather(process), { out: 'out\n', err: 'err\n' });
    await execs.find(execId).ended;
    const { state, exitCode, pid } = execs.inspect(execId);
    assert.deepEqual({ state, exitCode, pid }, { state: 'exited', exitCode: 7, pid: undefined });
    await assert.rejects(execs.start(execId), { code: 'ERR_ARCBOX_EXEC_STATE' });
    await execs.drain();
    assert.deepEqual(
      [...fake.guest.objects.keys()].filter((name) => name.startsWith('e-')),
      [],
    );
    await (await runtime.containers()).remove(id, { force: true });
    assert.throws(() => execs.inspect(execId), { code: 'ERR_ARCBOX_EXEC_NOT_FOUND' });
  });
});

test('input reaches it, and its end', async () => {
  await running({}, async (runtime, id) => {
    const execs = await runtime.execs();
    const process = await execs.start(execs.create(id, { argv: ['cat'], openStdin: true }).id);
    await process.write(Buffer.from('one '), false);
    await process.write(Buffer.from('two'), true);
    assert.equal((await gather(process)).out, 'one two');
    assert.equal(await process.ended, 0);
  });
});

test('its environment is the container’s, then its own', async () => {
  await running({}, async (runtime, id) => {
    const execs = await runtime.execs();
    const process = await execs.start(
      execs.create(id, { argv: ['env'], env: ['A=mine', 'B=1'], user: 'web', tty: true }).id,
    );
    const { out } = await gather(process);
    assert.match(out, /^A=mine$/m);
    assert.match(out, /^B=1$/m);
    assert.match(out, /^HOME=\/srv$/m);
    assert.match(out, /^TERM=xterm$/m);
  });
});

test('what cannot be run ends with 126 or 127, and what cannot be started is refused', async () => {
  await running({}, async (runtime, id) => {
    const execs = await runtime.execs();
    const missing = execs.create(id, { argv: ['nosuch'] });
    await assert.rejects(execs.start(missing.id), { code: 'ERR_ARCBOX_COMMAND_NOT_FOUND' });
    assert.equal(execs.inspect(missing.id).exitCode, 127);
    const nobody = execs.create(id, { argv: ['echo'], user: 'nobody-there' });
    await assert.rejects(execs.start(nobody.id), { code: 'ERR_ARCBOX_INVALID_ARGUMENT' });
    assert.equal(execs.inspect(nobody.id).exitCode, 126);
    for (const options of [
      { argv: [] },
      { argv: ['a\0'] },
      { argv: ['a'], workingDir: 'x' },
      { argv: ['a'], env: ['='] },
    ])
      assert.throws(() => execs.create(id, options), { code: 'ERR_ARCBOX_INVALID_ARGUMENT' });
    const containers = await runtime.containers();
    await containers.pause(id);
    assert.throws(() => execs.create(id, { argv: ['echo'] }), /is paused; unpause it first/);
    await containers.unpause(id);
    await containers.stop(id, { timeoutMs: 0 });
    assert.throws(() => execs.create(id, { argv: ['echo'] }), { code: 'ERR_ARCBOX_CONTAINER_STATE' });
  });
});

test('a slow reader makes the process wait, and one that has gone does not', async () => {
  let written = 0;
  const blocks = 64;
  const flood: Program = async ({ out, exit }) => {
    for (; written < blocks; written += 1) await out(Buffer.alloc(64 * 1024, 120));
    exit(0);
  };
  await running({ flood }, async (runtime, id) => {
    const execs = await runtime.execs();
    const process = await execs.start(execs.create(id, { argv: ['flood'] }).id);
    const first = await process.read();
    assert.ok(first !== undefined && first.length > 0);
    for (let turn = 0; turn < 100; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    assert.ok(
      written < blocks,
      `${written} of ${blocks} blocks were taken from a process whose reader waits`,
    );
    process.discard();
    assert.equal(await process.ended, 0);
    assert.equal(written, blocks);
  });
});

test('the end of the daemon is the end of what it executed', async () => {
  await using fake = await FakeRuntime.create();
  const first = await fake.open();
  const containers = await first.containers();
  const { id } = await containers.create({ image: 'busybox', command: ['sleep'] });
  await containers.start(id);
  const execs = await first.execs();
  const process = await execs.start(execs.create(id, { argv: ['sleep'] }).id);
  await first.close({ disown: true });
  await assert.rejects(process.ended, { code: 'ERR_ARCBOX_MACHINE_LOST' });
  await using second = await fake.open();
  assert.equal((await second.containers()).inspect(id).state, 'running');
  assert.deepEqual(
    [...fake.guest.objects.keys()].filter((name) => name.startsWith('e-')),
    [],
  );
});
