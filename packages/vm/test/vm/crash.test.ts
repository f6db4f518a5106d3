/** Machines that end badly, and owners that do: nothing is left, and whoever waits is told why. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { type RunningVm, type VmConfig, VmError, type VmHandle } from '../../src/index.ts';
import { bootDirectory, QemuHarness } from './harness.ts';

const TIMEOUT_MS = 60_000;
/** How long a guardian or a machine takes to be gone after it was killed, at most. */
const SETTLE_MS = 5000;
/** How long a machine may outlive the owner that it is to end with, and how often that is tried. */
const OWNER_GONE_MS_MAX = 1000;
const OWNER_ROUNDS = 5;

describe('a machine that ends badly', () => {
  let harness: QemuHarness;
  let clean: string[];
  const boot = async (overrides: Partial<VmConfig> = {}): Promise<RunningVm> => {
    const prepared = await harness.driver().create(harness.config(overrides));
    const vm = await prepared.boot();
    harness.watchCgroups(vm.handle.cgroups);
    return vm;
  };
  /** What was killed is gone in the end, and all that it had. */
  const nothingLeft = async (when = 'at the end'): Promise<void> => {
    const endMs = performance.now() + SETTLE_MS;
    await backOff(() => isDeepStrictEqual(harness.leftovers(), clean) || performance.now() > endMs);
    assert.deepEqual(harness.leftovers(), clean, when);
  };
  before(async () => {
    harness = new QemuHarness();
    await using vm = await boot();
    await vm.kill();
    clean = harness.leftovers();
  });
  afterEach(() => nothingLeft());
  after(() => harness[Symbol.asyncDispose]());

  it('whose QEMU is killed', async () => {
    const vm = await boot();
    process.kill(vm.handle.pid, 'SIGKILL');
    const exit = await vm.exited;
    assert.equal(exit.reason, 'crashed');
    assert.match(exit.detail, /signal 9/);
    await assert.rejects(vm.openAgent(), isCode('ERR_ARCBOX_VM_GONE'));
  });

  it('whose guardian is killed', async () => {
    const vm = await boot();
    process.kill(guardianOf(vm.handle), 'SIGKILL');
    const exit = await vm.exited;
    assert.equal(exit.reason, 'crashed');
    assert.match(exit.detail, /guardian/);
  });

  it('whose calls are under way', async () => {
    const vm = await boot();
    const agent = await vm.openAgent();
    await vm.pause();
    const call = assert.rejects(agent.batch([{ case: 'sync', value: {} }]));
    process.kill(vm.handle.pid, 'SIGKILL');
    await call;
    await vm.exited;
  });

  it('whose kernel panics at boot', async () => {
    const initramfs = path.join(harness.root, 'empty.cpio');
    fs.writeFileSync(initramfs, '');
    await assert.rejects(boot({ initramfs }), (error) => {
      assert.ok(isCode('ERR_ARCBOX_VM_BOOT')(error));
      assert.match(String(error), /Kernel panic/);
      return true;
    });
  });

  it('whose kernel is no kernel', async () => {
    const kernel = path.join(harness.root, 'no-kernel');
    fs.writeFileSync(kernel, 'this is no kernel'.repeat(1000));
    await assert.rejects(boot({ kernel }), isCode('ERR_ARCBOX_VM_BOOT'));
  });

  it('whose files only its owner may read', async () => {
    const kernel = path.join(harness.root, 'private-kernel');
    fs.copyFileSync(path.join(bootDirectory, 'vmlinux'), kernel);
    fs.chmodSync(kernel, 0o600);
    await using vm = await boot({ kernel });
    assert.equal(vm.state, 'running');
  });

  it('whose agent does not answer in time', async () => {
    await assert.rejects(boot({ bootTimeoutMs: 100 }), (error) => {
      assert.ok(isCode('ERR_ARCBOX_VM_TIMEOUT')(error));
      return true;
    });
  });

  it('whose snapshot is broken', async () => {
    const directory = harness.makeDirectory();
    const vm = await boot();
    const snapshot = await vm.snapshot(directory);
    await vm.kill();
    const restore = (broken: Partial<typeof snapshot>): Promise<RunningVm> =>
      harness
        .driver()
        .restore(
          { ...snapshot, ...broken },
          { name: 'clone', lifetime: { kind: 'ephemeral' }, timeoutMs: TIMEOUT_MS },
        );
    const state = path.join(directory, 'broken-state');
    fs.writeFileSync(state, fs.readFileSync(snapshot.statePath).subarray(0, 10_000));
    await assert.rejects(restore({ statePath: state }));
    await assert.rejects(
      restore({ memoryPath: path.join(directory, 'none') }),
      isCode('ERR_ARCBOX_VM_CONFIG'),
    );
    await assert.rejects(restore({ driver: 'another' }), isCode('ERR_ARCBOX_VM_SNAPSHOT'));
    fs.rmSync(directory, { recursive: true });
  });

  it('at any moment of its start', async () => {
    for (let i = 0; i < 8; i++) {
      const victim = i % 2 === 0 ? 'guardian' : 'vmm';
      const killed = randomMoment(harness, victim, randomInt(1, 60));
      try {
        await using vm = await boot();
        await killed;
        await vm.kill();
      } catch (error) {
        assert.ok(error instanceof VmError, String(error));
      }
      await killed;
      await nothingLeft(`${victim} killed, round ${i}`);
    }
  });

  it('when its owner is killed: within a second', async () => {
    // The best of a few: on a machine that has much else to do, each takes as long as that lets it.
    let bestMs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < OWNER_ROUNDS && bestMs >= OWNER_GONE_MS_MAX; i++) {
      const { owner, handle } = await startOwner(harness, { kind: 'ephemeral' });
      const began = performance.now();
      owner.kill('SIGKILL');
      await backOff(() => harness.processes().length === 0);
      bestMs = Math.min(bestMs, performance.now() - began);
      await backOff(() => !fs.existsSync(handle.runDir));
      await assert.rejects(harness.driver().adopt(handle), isCode('ERR_ARCBOX_VM_GONE'));
    }
    assert.ok(bestMs < OWNER_GONE_MS_MAX, `its machine was gone after ${bestMs.toFixed(0)} ms at best`);
  });

  it('when its owner is killed and it is adopted: not at all', async () => {
    const { owner, handle } = await startOwner(harness, { kind: 'adoptable', orphanGraceMs: TIMEOUT_MS });
    owner.kill('SIGKILL');
    await new Promise((resolve) => owner.once('exit', resolve));
    await using vm = await harness.driver().adopt(handle);
    const agent = await vm.openAgent();
    await agent.batch([{ case: 'sync', value: {} }]);
    assert.ok((await vm.inspect()).pssBytes > 0);
    process.kill(vm.handle.pid, 'SIGKILL');
    assert.equal((await vm.exited).reason, 'crashed');
  });

  it('when its owner is killed and nobody adopts it: after the grace time', async () => {
    const { owner, handle } = await startOwner(harness, { kind: 'adoptable', orphanGraceMs: 300 });
    const began = performance.now();
    owner.kill('SIGKILL');
    await backOff(() => harness.processes().length === 0);
    assert.ok(performance.now() - began >= 290);
    await backOff(() => !fs.existsSync(handle.runDir));
  });
});

function isCode(code: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof VmError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };
}

function guardianOf(handle: VmHandle): number {
  const stat = fs.readFileSync(`/proc/${handle.pid}/stat`, 'latin1');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
}

/** Kills the guardian, or its child, of the next machine, so many ms after it was started. */
async function randomMoment(
  harness: QemuHarness,
  victim: 'guardian' | 'vmm',
  delayMs: number,
): Promise<void> {
  await new Promise<void>((resolve) => setTimeout(resolve, delayMs));
  for (const pid of harness.processes()) {
    try {
      const name = fs.readFileSync(`/proc/${pid}/comm`, 'latin1').trim();
      if ((name === 'guardian') === (victim === 'guardian')) process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended meanwhile.
    }
  }
}

/** Another program that boots a machine and keeps it. */
async function startOwner(
  harness: QemuHarness,
  lifetime: VmConfig['lifetime'],
): Promise<{ owner: ChildProcess; handle: VmHandle }> {
  const index = path.join(import.meta.dirname, '../../src/index.ts');
  const options = {
    runRoot: harness.runRoot,
    guardian: path.join(bootDirectory, 'guardian'),
    accelerator: 'tcg',
  };
  const script = `const { QemuDriver } = await import(${JSON.stringify(index)});
    const driver = new QemuDriver(${JSON.stringify(options)});
    const vm = await (await driver.create(${JSON.stringify(harness.config({ lifetime }))})).boot();
    process.stdout.write(JSON.stringify(vm.handle) + '\\n');`;
  const owner = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, NODE_NO_WARNINGS: '1' },
  });
  let text = '';
  for await (const data of owner.stdout) {
    text += String(data);
    if (text.endsWith('\n')) break;
  }
  const handle: VmHandle = JSON.parse(text);
  harness.watchCgroups(handle.cgroups);
  return { owner, handle };
}

async function backOff(done: () => boolean): Promise<void> {
  const end = performance.now() + TIMEOUT_MS;
  for (let waitMs = 1; !done(); waitMs = Math.min(waitMs * 2, 50)) {
    assert.ok(performance.now() < end, 'it did not happen in time');
    await new Promise<void>((resolve) => setTimeout(resolve, waitMs));
  }
}
