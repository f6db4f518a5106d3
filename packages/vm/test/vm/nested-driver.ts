/** Runs inside a machine that has KVM (nested-svm.test.ts): the driver from the probe to a clone. Prints what it saw. */
import fs from 'node:fs';
import { QemuDriver, type RunningVm } from '@arcbox/vm';

const root = '/tmp/nested';
const runRoot = `${root}/run`;
const snapshotDirectory = `${root}/snapshot`;
const TIMEOUT_MS = 120_000;
const ephemeral = { kind: 'ephemeral' } as const;

async function read(vm: RunningVm, path: string): Promise<string> {
  const agent = await vm.openAgent();
  const [answer] = await agent.batch([{ case: 'read', value: { path } }]);
  if (answer?.result.case !== 'data') throw new Error(`${path} cannot be read`);
  return Buffer.from(answer.result.value.data).toString();
}

for (const directory of [runRoot, snapshotDirectory]) fs.mkdirSync(directory, { recursive: true });
const driver = await QemuDriver.detect({ runRoot, bootDirectory: '/' });
const prepared = await driver.create({
  name: 'inner',
  architecture: 'x86_64',
  vcpus: 1,
  memoryMib: 128,
  memory: { kind: 'template', path: `${snapshotDirectory}/ram` },
  kernel: '/vmlinux',
  initramfs: '/initramfs',
  kernelArgs: [],
  disks: [],
  nics: [],
  lifetime: ephemeral,
  bootTimeoutMs: TIMEOUT_MS,
});
const vm = await prepared.boot();
const { accelerator } = await vm.inspect();
const agent = await vm.openAgent();
const data = Buffer.from('written before the snapshot');
await agent.batch([{ case: 'write', value: { path: '/run/file', data, create: true } }]);
const snapshot = await vm.snapshot(snapshotDirectory);
await vm.kill();
const clone = await driver.restore(snapshot, { name: 'clone', lifetime: ephemeral, timeoutMs: TIMEOUT_MS });
const text = await read(clone, '/run/file');
await clone.kill();
const leftovers = fs.readdirSync(runRoot).filter((name) => name !== 'kvm-probe.json');
process.stdout.write(JSON.stringify({ accelerator, clone: text, leftovers }));
