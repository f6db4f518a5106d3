/** What is on disks: boot disks and hot-plugged ones, written, cloned, and images that are refused. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type DiskConfig, type RunningVm, VmError } from '../../src/index.ts';
import { QemuHarness } from './harness.ts';

const DISK_BYTES = 1024 * 1024;
const TIMEOUT_MS = 60_000;

describe('disks', () => {
  let harness: QemuHarness;
  let directory: string;
  before(() => {
    harness = new QemuHarness();
    directory = harness.makeDirectory();
  });
  after(() => harness[Symbol.asyncDispose]());

  const makeDisk = (id: string, text: string, readOnly = false): DiskConfig => {
    const file = path.join(directory, `${id}-${text.replaceAll(' ', '-')}`);
    fs.writeFileSync(file, text.padEnd(DISK_BYTES, '.'), { mode: 0o600 });
    return { id, path: file, format: 'raw', readOnly };
  };
  const onHost = (file: string): string => fs.readFileSync(file, 'latin1').replace(/\.*$/, '');

  it('hold what the guest wrote, and read-only ones what they held', async () => {
    const boot = makeDisk('boot', 'at first');
    const hot = makeDisk('hot', 'hot at first');
    const fixed = makeDisk('fixed', 'for ever', true);
    const prepared = await harness.driver().create(harness.config({ disks: [boot] }));
    await using vm = await prepared.boot();
    await vm.attachDisk(hot);
    await vm.attachDisk(fixed);
    const [bootNode, hotNode, fixedNode] = await Promise.all([
      deviceOf(vm, { case: 'serial', value: 'boot' }),
      deviceOf(vm, { case: 'scsiLun', value: 0 }),
      deviceOf(vm, { case: 'scsiLun', value: 1 }),
    ]);
    assert.equal(await readDevice(vm, bootNode), 'at first');
    assert.equal(await readDevice(vm, fixedNode), 'for ever');
    await writeDevice(vm, bootNode, 'by the guest');
    await writeDevice(vm, hotNode, 'hot by the guest');
    await assert.rejects(writeDevice(vm, fixedNode, 'no'));
    await vm.detachDisk('hot');
    assert.equal(onHost(hot.path), 'hot by the guest');
    await vm.kill();
    assert.equal(onHost(boot.path), 'by the guest');
    assert.equal(onHost(fixed.path), 'for ever');
  });

  it('make the machine stand still while the host has no room for them, and go on', async () => {
    const full = path.join(directory, 'full');
    fs.mkdirSync(full);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', full]);
    try {
      const disk: DiskConfig = { id: 'big', path: path.join(full, 'disk'), format: 'raw', readOnly: false };
      fs.writeFileSync(disk.path, '', { mode: 0o600 });
      fs.truncateSync(disk.path, 3 * DISK_BYTES);
      fs.writeFileSync(path.join(full, 'filler'), Buffer.alloc(3 * DISK_BYTES));
      const prepared = await harness.driver().create(harness.config());
      await using vm = await prepared.boot();
      await vm.attachDisk(disk);
      const node = await deviceOf(vm, { case: 'scsiLun', value: 0 });
      const agent = await vm.openAgent();
      const data = Buffer.alloc(DISK_BYTES, 'x');
      const writing = agent.batch(
        [0, 1, 2].map((n) => ({
          case: 'write',
          value: { path: node, data, offset: n * DISK_BYTES, sync: true },
        })),
      );
      for (let waitMs = 1; vm.state !== 'paused'; waitMs = Math.min(waitMs * 2, 50))
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      fs.rmSync(path.join(full, 'filler'));
      await writing;
      assert.equal(vm.state, 'running');
      assert.equal(fs.readFileSync(disk.path, 'latin1'), 'x'.repeat(3 * DISK_BYTES));
      await vm.kill();
    } finally {
      execFileSync('umount', [full]);
    }
  });

  it('of clones are their own', async () => {
    const boot = makeDisk('boot', 'template');
    const hot = makeDisk('hot', 'hot template');
    const driver = harness.driver();
    const ram = path.join(directory, 'ram');
    const prepared = await driver.create(
      harness.config({ disks: [boot], memory: { kind: 'template', path: ram } }),
    );
    const template = await prepared.boot();
    await template.attachDisk(hot);
    await deviceOf(template, { case: 'scsiLun', value: 0 });
    const snapshot = await template.snapshot(directory);
    await template.kill();
    const names = ['one', 'two'];
    const clones = await Promise.all(
      names.map((name) =>
        driver.restore(snapshot, {
          name,
          lifetime: { kind: 'ephemeral' },
          timeoutMs: TIMEOUT_MS,
          diskPaths: {
            boot: makeDisk('boot', `boot of ${name}`).path,
            hot: makeDisk('hot', `hot of ${name}`).path,
          },
        }),
      ),
    );
    for (const clone of clones) {
      const bootNode = await deviceOf(clone, { case: 'serial', value: 'boot' });
      const hotNode = await deviceOf(clone, { case: 'scsiLun', value: 0 });
      await writeDevice(clone, bootNode, `written by ${clone.name}`);
      await writeDevice(clone, hotNode, `hot by ${clone.name}`);
    }
    await clones[0]?.detachDisk('hot');
    for (const clone of clones) {
      const { path: bootPath } = clone.config.disks[0] ?? { path: '' };
      await clone.kill();
      assert.equal(onHost(bootPath), `written by ${clone.name}`);
      assert.equal(onHost(path.join(directory, `hot-hot-of-${clone.name}`)), `hot by ${clone.name}`);
    }
    assert.equal(onHost(boot.path), 'template');
    assert.equal(onHost(hot.path), 'hot template');
  });

  it('that name other files of the host are refused', async () => {
    const prepared = await harness.driver().create(harness.config());
    await using vm = await prepared.boot();
    const attach = (header: Buffer): Promise<unknown> => {
      const file = path.join(directory, 'image.qcow2');
      fs.writeFileSync(file, header);
      return vm.attachDisk({ id: 'image', path: file, format: 'qcow2', readOnly: true });
    };
    const refused = (pattern: RegExp) => (error: unknown) =>
      error instanceof VmError && error.code === 'ERR_ARCBOX_VM_CONFIG' && pattern.test(error.message);
    await assert.rejects(attach(Buffer.alloc(512)), refused(/no qcow2 image/));
    const header = Buffer.alloc(512);
    header.writeUInt32BE(0x514649fb, 0);
    header.writeUInt32BE(3, 4);
    const backed = Buffer.from(header);
    backed.writeBigUInt64BE(104n, 8);
    await assert.rejects(attach(backed), refused(/backing or data file/));
    const external = Buffer.from(header);
    external.writeBigUInt64BE(4n, 72);
    await assert.rejects(attach(external), refused(/backing or data file/));
    assert.deepEqual(vm.hotDisks, []);
    // The same disk twice for writing would be two truths: QEMU's lock on the image refuses it.
    const shared = makeDisk('shared', 'one writer');
    await vm.attachDisk(shared);
    await assert.rejects(
      vm.attachDisk({ ...shared, id: 'again' }),
      (error) => error instanceof VmError && error.code === 'ERR_ARCBOX_VM_DISK',
    );
    await vm.kill();
  });
});

type Match = { case: 'serial'; value: string } | { case: 'scsiLun'; value: number };

async function deviceOf(vm: RunningVm, match: Match): Promise<string> {
  const agent = await vm.openAgent();
  const [answer] = await agent.batch([{ case: 'waitDevice', value: { match, timeoutMs: TIMEOUT_MS } }]);
  assert.ok(answer?.result.case === 'device');
  return answer.result.value.path;
}

async function readDevice(vm: RunningVm, device: string): Promise<string> {
  const agent = await vm.openAgent();
  const [answer] = await agent.batch([{ case: 'read', value: { path: device, limit: 4096 } }]);
  assert.ok(answer?.result.case === 'data');
  return Buffer.from(answer.result.value.data).toString('latin1').replace(/\.*$/, '');
}

async function writeDevice(vm: RunningVm, device: string, text: string): Promise<void> {
  const agent = await vm.openAgent();
  const data = Buffer.from(text.padEnd(4096, '.'));
  await agent.batch([{ case: 'write', value: { path: device, data, offset: 0, sync: true } }]);
}
