/** The suite that every VM driver passes, the fake included. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import {
  FAULT_POINTS,
  type FaultHook,
  type FaultPoint,
  type RunningVm,
  type Snapshot,
  type VmConfig,
  type VmDriver,
  VmError,
  type VmErrorCode,
} from '../src/index.ts';

export interface ContractHarness extends AsyncDisposable {
  /** A driver; those of one harness share the host, as one program after another does. */
  driver(fault?: FaultHook): VmDriver;
  config(overrides?: Partial<VmConfig>): VmConfig;
  /** An empty directory for snapshots and disks. */
  makeDirectory(): string;
  /** A line for each process, file, socket, cgroup and descriptor of machines that is there. */
  leftovers(): string[];
}

const TIMEOUT_MS = 60_000;
/** How long a guardian or a machine takes to be gone after it was told, at most. */
const SETTLE_MS = 5000;
const ephemeral = { kind: 'ephemeral' } as const;

export function vmContract(name: string, makeHarness: () => Promise<ContractHarness>): void {
  describe(`${name} keeps the VM contract`, () => {
    let harness: ContractHarness;
    let driver: VmDriver;
    const boot = async (overrides: Partial<VmConfig> = {}, by = driver): Promise<RunningVm> => {
      const prepared = await by.create(harness.config(overrides));
      return prepared.boot();
    };
    /** Runs a test's body and checks that it left nothing; a process that has been told to end may still be ending. */
    const clean = (body: () => Promise<void>) => async (): Promise<void> => {
      const before = harness.leftovers();
      await body();
      await settled(before, 'something is left behind');
    };
    const settled = async (before: readonly string[], message: string): Promise<void> => {
      const endMs = performance.now() + SETTLE_MS;
      await backOff(() => isDeepStrictEqual(harness.leftovers(), before) || performance.now() > endMs);
      assert.deepEqual(harness.leftovers(), before, message);
    };

    before(async () => {
      harness = await makeHarness();
      driver = harness.driver();
      // What a program opens once and keeps is no leftover.
      await using vm = await boot();
      await vm.kill();
    });
    after(async () => {
      await harness[Symbol.asyncDispose]();
    });

    it(
      'boots to an agent that answers, and is killed',
      clean(async () => {
        const vm = await boot();
        assert.equal(vm.state, 'running');
        await write(vm, '/run/greeting', 'hello');
        assert.equal(await read(vm, '/run/greeting'), 'hello');
        assert.equal((await vm.inspect()).pid, vm.handle.pid);
        const exit = await vm.kill();
        assert.equal(exit.reason, 'killed');
        assert.equal(vm.state, 'stopped');
        assert.deepEqual(await vm.exited, exit);
        assert.deepEqual(await vm.kill(), exit);
        await assert.rejects(vm.inspect(), code('ERR_ARCBOX_VM_GONE'));
        await assert.rejects(vm.pause(), code('ERR_ARCBOX_VM_GONE'));
      }),
    );

    it(
      'stops when asked',
      clean(async () => {
        const vm = await boot();
        const exit = await vm.stop({ timeoutMs: TIMEOUT_MS });
        assert.equal(exit.reason, 'stopped', exit.detail);
      }),
    );

    it(
      'reports a guest that shuts down by itself',
      clean(async () => {
        const vm = await boot();
        const agent = await vm.openAgent();
        await agent.batch([{ case: 'shutdown', value: { reboot: true } }]).catch(() => undefined);
        const exit = await vm.exited;
        assert.equal(exit.reason, 'guest-shutdown', exit.detail);
      }),
    );

    it(
      'is disposed with its scope, booted or not',
      clean(async () => {
        let exited: Promise<unknown>;
        {
          await using prepared = await driver.create(harness.config());
          await using vm = await prepared.boot();
          exited = vm.exited;
          await assert.rejects(prepared.boot(), code('ERR_ARCBOX_VM_STATE'));
        }
        await exited;
        await using unused = await driver.create(harness.config());
        assert.equal(unused.config.name, harness.config().name);
      }),
    );

    it(
      'shares one agent client, and greets anew after it was closed',
      clean(async () => {
        await using vm = await boot();
        const first = await vm.openAgent();
        assert.equal(await vm.openAgent(), first);
        await write(vm, '/run/kept', 'by the guest');
        await first.close();
        const second = await vm.openAgent();
        assert.notEqual(second, first);
        assert.ok(second.hello.epoch > first.hello.epoch);
        assert.equal(await read(vm, '/run/kept'), 'by the guest');
      }),
    );

    it(
      'pauses and resumes',
      clean(async () => {
        await using vm = await boot();
        await write(vm, '/run/file', 'before');
        const agent = await vm.openAgent();
        await vm.pause();
        assert.equal(vm.state, 'paused');
        await assert.rejects(vm.pause(), code('ERR_ARCBOX_VM_STATE'));
        let answered = false;
        const answer = agent.batch([{ case: 'read', value: { path: '/run/file' } }]).then(() => {
          answered = true;
        });
        await vm.inspect();
        assert.equal(answered, false);
        await vm.resume();
        await answer;
        await assert.rejects(vm.resume(), code('ERR_ARCBOX_VM_STATE'));
        await vm.pause();
        assert.equal((await vm.stop()).reason, 'killed');
      }),
    );

    it(
      'attaches disks and detaches them',
      clean(async () => {
        const directory = harness.makeDirectory();
        const disk = (id: string, readOnly: boolean): Parameters<RunningVm['attachDisk']>[0] => {
          const file = path.join(directory, id);
          fs.writeFileSync(file, Buffer.alloc(64 * 1024, id));
          return { id, path: file, format: 'raw', readOnly };
        };
        await using vm = await boot();
        const first = await vm.attachDisk(disk('first', true));
        const second = await vm.attachDisk(disk('second', false));
        assert.notEqual(first.lun, second.lun);
        assert.deepEqual(vm.hotDisks, [first, second]);
        const agent = await vm.openAgent();
        for (const { lun } of [first, second]) {
          await agent.batch([
            { case: 'waitDevice', value: { match: { case: 'scsiLun', value: lun }, timeoutMs: TIMEOUT_MS } },
          ]);
        }
        await assert.rejects(vm.attachDisk(disk('first', true)), code('ERR_ARCBOX_VM_DISK'));
        await vm.detachDisk('first');
        assert.deepEqual(vm.hotDisks, [second]);
        await assert.rejects(vm.detachDisk('first'), code('ERR_ARCBOX_VM_DISK'));
        // Its place and its name are free again.
        assert.equal((await vm.attachDisk(disk('first', true))).lun, first.lun);
        await assert.rejects(
          vm.attachDisk({ id: 'none', path: path.join(directory, 'none'), format: 'raw', readOnly: true }),
          code('ERR_ARCBOX_VM_CONFIG'),
        );
        await vm.kill();
        fs.rmSync(directory, { recursive: true });
      }),
    );

    it(
      'connects to its network cards, one after another',
      clean(async () => {
        await using vm = await boot({ nics: [{ mac: '52:54:00:00:00:01', mtu: 1500 }] });
        for (let i = 0; i < 2; i++) {
          const nic = await vm.openNic(0);
          await new Promise<void>((resolve) => {
            nic.once('close', resolve);
            nic.destroy();
          });
        }
        await assert.rejects(vm.openNic(1), code('ERR_ARCBOX_VM_CONFIG'));
        assert.throws(() => vm.nicPath(1), code('ERR_ARCBOX_VM_CONFIG'));
      }),
    );

    it(
      'clones a template, each clone with a memory of its own',
      clean(async () => {
        const directory = harness.makeDirectory();
        const file = path.join(directory, 'disk');
        fs.writeFileSync(file, Buffer.alloc(64 * 1024, 'disk'));
        const template = await boot({ memory: { kind: 'template', path: path.join(directory, 'ram') } });
        await write(template, '/run/who', 'template');
        const disk = await template.attachDisk({ id: 'shared', path: file, format: 'raw', readOnly: true });
        const snapshot = JSON.parse(JSON.stringify(await template.snapshot(directory)));
        assert.equal(template.state, 'paused');
        await template.kill();
        const clones = await Promise.all(
          ['one', 'two'].map((clone) =>
            driver.restore(snapshot, { name: clone, lifetime: ephemeral, timeoutMs: TIMEOUT_MS }),
          ),
        );
        for (const clone of clones) {
          assert.equal(clone.state, 'running');
          assert.deepEqual(clone.hotDisks, [disk]);
          assert.equal(await read(clone, '/run/who'), 'template');
          await write(clone, '/run/who', clone.name);
        }
        for (const clone of clones) assert.equal(await read(clone, '/run/who'), clone.name);
        await clones[0]?.detachDisk('shared');
        await Promise.all(clones.map((clone) => clone.kill()));
        fs.rmSync(directory, { recursive: true });
      }),
    );

    it(
      'snapshots a machine that goes on, and a clone',
      clean(async () => {
        const directory = harness.makeDirectory();
        const second = path.join(directory, 'second');
        fs.mkdirSync(second);
        await using vm = await boot();
        await write(vm, '/run/who', 'at the snapshot');
        const snapshot = await vm.snapshot(directory);
        assert.equal(vm.state, 'running');
        await write(vm, '/run/who', 'later');
        await using clone = await driver.restore(snapshot, {
          name: 'clone',
          lifetime: ephemeral,
          timeoutMs: TIMEOUT_MS,
        });
        assert.equal(await read(clone, '/run/who'), 'at the snapshot');
        assert.equal(await read(vm, '/run/who'), 'later');
        await write(clone, '/run/who', 'in the clone');
        const again = await clone.snapshot(second);
        assert.equal(clone.state, 'running');
        await write(clone, '/run/who', 'in the clone, later');
        await using grandchild = await driver.restore(again, {
          name: 'grandchild',
          lifetime: ephemeral,
          timeoutMs: TIMEOUT_MS,
        });
        assert.equal(await read(grandchild, '/run/who'), 'in the clone');
        assert.equal(await read(clone, '/run/who'), 'in the clone, later');
        await Promise.all([vm.kill(), clone.kill(), grandchild.kill()]);
        fs.rmSync(directory, { recursive: true });
      }),
    );

    it(
      'goes on in the memory of its snapshot, again and again',
      clean(async () => {
        const directory = harness.makeDirectory();
        let vm = await boot();
        for (const round of ['one', 'two']) {
          await write(vm, '/run/who', round);
          const snapshot: Snapshot = JSON.parse(JSON.stringify(await vm.snapshot(directory)));
          await write(vm, '/run/who', 'after the snapshot');
          await vm.kill();
          const options = { name: 'again', lifetime: ephemeral, timeoutMs: TIMEOUT_MS, takeMemory: true };
          vm = await driver.restore(snapshot, options);
          assert.equal(await read(vm, '/run/who'), round);
          assert.equal(fs.existsSync(snapshot.memoryPath), false, 'nobody else can use it');
          await assert.rejects(driver.restore(snapshot, options));
          fs.rmSync(snapshot.statePath);
          const { pssBytes, guestRamPssBytes } = await vm.inspect();
          assert.ok(pssBytes === 0 || guestRamPssBytes > 0, 'its memory is known again');
        }
        await vm.kill();
        fs.rmdirSync(directory);
      }),
    );

    it(
      'refuses a second snapshot in one place, and goes on',
      clean(async () => {
        const directory = harness.makeDirectory();
        await using vm = await boot();
        await vm.snapshot(directory);
        await assert.rejects(vm.snapshot(directory), code('ERR_ARCBOX_VM_SNAPSHOT'));
        assert.equal(vm.state, 'running');
        await write(vm, '/run/still', 'here');
        await vm.kill();
        fs.rmSync(directory, { recursive: true });
      }),
    );

    it(
      'hands a machine over to another program',
      clean(async () => {
        const directory = harness.makeDirectory();
        const file = path.join(directory, 'disk');
        fs.writeFileSync(file, Buffer.alloc(64 * 1024, 'disk'));
        const vm = await boot({ lifetime: { kind: 'adoptable', orphanGraceMs: TIMEOUT_MS } });
        await write(vm, '/run/who', 'first owner');
        const disk = await vm.attachDisk({ id: 'kept', path: file, format: 'raw', readOnly: false });
        await vm.disown();
        await assert.rejects(vm.inspect(), code('ERR_ARCBOX_VM_GONE'));
        const adopted = await harness.driver().adopt(JSON.parse(JSON.stringify(vm.handle)));
        assert.equal(adopted.state, 'running');
        assert.deepEqual(adopted.hotDisks, [disk]);
        assert.equal(await read(adopted, '/run/who'), 'first owner');
        await adopted.detachDisk('kept');
        assert.equal((await adopted.stop({ timeoutMs: TIMEOUT_MS })).reason, 'stopped');
        await assert.rejects(driver.adopt(vm.handle), code('ERR_ARCBOX_VM_GONE'));
        fs.rmSync(directory, { recursive: true });
      }),
    );

    it(
      'ends a machine that cannot be taken over',
      clean(async () => {
        const vm = await boot({ lifetime: { kind: 'adoptable', orphanGraceMs: TIMEOUT_MS } });
        await vm.disown();
        const broken = harness.driver((point) => {
          if (point === 'adopt:monitor') throw new Error('as the test wanted');
        });
        await assert.rejects(broken.adopt(vm.handle), /as the test wanted/);
        await assert.rejects(driver.adopt(vm.handle), code('ERR_ARCBOX_VM_GONE'));
      }),
    );

    it(
      'ends a machine that nobody adopts in its grace time',
      clean(async () => {
        const before = harness.leftovers();
        const vm = await boot({ lifetime: { kind: 'adoptable', orphanGraceMs: 30 } });
        await vm.disown();
        await backOff(() => harness.leftovers().length === before.length);
        await assert.rejects(driver.adopt(vm.handle), code('ERR_ARCBOX_VM_GONE'));
      }),
    );

    it(
      'refuses to disown an ephemeral machine',
      clean(async () => {
        await using vm = await boot();
        await assert.rejects(vm.disown(), code('ERR_ARCBOX_VM_STATE'));
        assert.equal(vm.state, 'running');
      }),
    );

    it(
      'refuses what is no machine',
      clean(async () => {
        const wrong: Partial<VmConfig>[] = [
          { vcpus: 0 },
          { vcpus: 1.5 },
          { memoryMib: 1 },
          { name: '' },
          { kernel: '/nowhere/vmlinux' },
          { initramfs: '/' },
          { kernelArgs: ['two words'] },
          { nics: [{ mac: 'none', mtu: 1500 }] },
          { nics: [{ mac: '52:54:00:00:00:01', mtu: 10 }] },
          { disks: [{ id: 'Not!', path: '/dev/null', format: 'raw', readOnly: true }] },
          { lifetime: { kind: 'adoptable', orphanGraceMs: -1 } },
          { bootTimeoutMs: 0 },
        ];
        for (const overrides of wrong) {
          await assert.rejects(
            driver.create(harness.config(overrides)),
            code('ERR_ARCBOX_VM_CONFIG'),
            JSON.stringify(overrides),
          );
        }
      }),
    );

    it(
      'gives up a boot when told to',
      clean(async () => {
        const reason = new Error('changed my mind');
        const early = await driver.create(harness.config());
        await assert.rejects(early.boot({ signal: AbortSignal.abort(reason) }), reason);
        const late = new AbortController();
        const stopping = harness.driver((point) => {
          if (point === 'boot:started') late.abort(reason);
        });
        const prepared = await stopping.create(harness.config());
        await assert.rejects(prepared.boot({ signal: late.signal }), reason);
      }),
    );

    for (const point of FAULT_POINTS.filter((name) => name.startsWith('boot:'))) {
      it(
        `leaves nothing when ${point} fails at boot`,
        clean(async () => {
          const directory = harness.makeDirectory();
          const failing = harness.driver(failAt(point));
          const memory = { kind: 'template', path: path.join(directory, 'ram') } as const;
          await assert.rejects(boot({ memory }, failing), hasCause(point));
          assert.deepEqual(fs.readdirSync(directory), []);
          fs.rmdirSync(directory);
        }),
      );
    }

    it(
      'leaves nothing when a step of a restore fails',
      clean(async () => {
        const directory = harness.makeDirectory();
        await using vm = await boot();
        const snapshot = await vm.snapshot(directory);
        await vm.kill();
        for (const point of FAULT_POINTS.filter((name) => name.startsWith('boot:'))) {
          const before = harness.leftovers();
          const failing = harness.driver(failAt(point));
          const options = { name: 'clone', lifetime: ephemeral, timeoutMs: TIMEOUT_MS };
          await assert.rejects(failing.restore(snapshot, options), hasCause(point));
          await settled(before, `something is left behind by ${point}`);
        }
        fs.rmSync(directory, { recursive: true });
      }),
    );

    it(
      'goes on as it was when a step of a snapshot or of a disk fails',
      clean(async () => {
        const directory = harness.makeDirectory();
        const file = path.join(directory, 'disk');
        fs.writeFileSync(file, Buffer.alloc(64 * 1024, 'disk'));
        let failing: FaultPoint | undefined;
        const faulty = harness.driver((point) => {
          if (point === failing) throw new Error(`injected at ${point}`);
        });
        await using vm = await boot({}, faulty);
        const disk = { id: 'disk', path: file, format: 'raw', readOnly: false } as const;
        const before = harness.leftovers();
        for (const point of FAULT_POINTS.filter((name) => name.startsWith('attach:'))) {
          failing = point;
          await assert.rejects(vm.attachDisk(disk), hasCause(point));
          assert.deepEqual(vm.hotDisks, []);
        }
        for (const point of FAULT_POINTS.filter((name) => name.startsWith('snapshot:'))) {
          failing = point;
          await assert.rejects(vm.snapshot(directory), hasCause(point));
          assert.equal(vm.state, 'running');
          assert.deepEqual(fs.readdirSync(directory), ['disk']);
        }
        failing = undefined;
        await settled(before, 'something is left behind');
        await vm.attachDisk(disk);
        await vm.snapshot(directory);
        await write(vm, '/run/still', 'here');
        // A machine that cannot be asked to stop is killed when its time is up.
        failing = 'stop:asked';
        assert.equal((await vm.stop({ timeoutMs: 50 })).reason, 'killed');
        fs.rmSync(directory, { recursive: true });
      }),
    );
  });
}

async function write(vm: RunningVm, file: string, text: string): Promise<void> {
  const agent = await vm.openAgent();
  await agent.batch([
    { case: 'write', value: { path: file, data: Buffer.from(text), create: true, truncate: true } },
  ]);
}

async function read(vm: RunningVm, file: string): Promise<string> {
  const agent = await vm.openAgent();
  const [answer] = await agent.batch([{ case: 'read', value: { path: file } }]);
  assert.ok(answer?.result.case === 'data');
  return Buffer.from(answer.result.value.data).toString();
}

function code(wanted: VmErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof VmError, String(error));
    assert.equal(error.code, wanted, error.message);
    return true;
  };
}

function failAt(wanted: FaultPoint): FaultHook {
  return (point) => {
    if (point === wanted) throw new Error(`injected at ${point}`);
  };
}

/** The error, or one that it was caused by, is the injected one. */
function hasCause(point: FaultPoint): (error: unknown) => boolean {
  return (error) => {
    for (let at = error; at instanceof Error; at = at.cause)
      if (at.message === `injected at ${point}`) return true;
    throw new assert.AssertionError({ message: `not the injected failure of ${point}: ${String(error)}` });
  };
}

async function backOff(done: () => boolean): Promise<void> {
  const end = performance.now() + TIMEOUT_MS;
  for (let waitMs = 1; !done(); waitMs = Math.min(waitMs * 2, 50)) {
    assert.ok(performance.now() < end, 'it did not happen in time');
    await new Promise<void>((resolve) => setTimeout(resolve, waitMs));
  }
}
