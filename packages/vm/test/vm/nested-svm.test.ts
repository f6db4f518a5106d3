/**
 * KVM with hardware semantics on a machine that has none: QEMU's TCG emulates AMD's virtualization, so a Linux in it
 * has a working /dev/kvm. The probe must say so there, and QEMU with `-accel kvm` must boot our guest inside.
 *
 * The outer machine is one of ours. It gets a disk with QEMU, what QEMU is linked with, the probe and the boot
 * assets; the inner QEMU's agent port is its standard input and output, so that the inner agent can be greeted from
 * here, through the outer one.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { Duplex } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { AgentClient, type Attachment, type OutputChannel } from '@arcbox/protocol';
import { parseProbe } from '../../src/accelerator.ts';
import type { RunningVm } from '../../src/index.ts';
import { bootDirectory, QemuHarness, repository } from './harness.ts';

const MS_BIND = 4096;
const MS_RDONLY = 1;
const TIMEOUT_MS = 120_000;
const QEMU = '/usr/bin/qemu-system-x86_64';
const ROOT = '/nested';
const CLOCKS = '/sys/devices/system/clocksource/clocksource0';

describe('a machine with nested virtualization', { timeout: 2 * TIMEOUT_MS }, () => {
  let harness: QemuHarness;
  let vm: RunningVm;
  let agent: AgentClient;

  before(async () => {
    harness = new QemuHarness();
    const disk = makeDisk(harness.root);
    const driver = harness.driver(undefined, { cpu: 'EPYC,+svm,+npt', tcgCacheMib: 256 });
    const prepared = await driver.create(
      harness.config({
        memoryMib: 1024,
        disks: [{ id: 'nested', path: disk, format: 'raw', readOnly: true }],
        bootTimeoutMs: TIMEOUT_MS,
      }),
    );
    vm = await prepared.boot();
    agent = await vm.openAgent();
    const mount = (source: string, target: string, type: string, flags: number) =>
      ({
        case: 'mount',
        value: { source, target: ROOT + target, type, flags, mkdirTarget: target === '' },
      }) as const;
    await agent.batch([
      mount('/dev/vda', '', 'squashfs', MS_RDONLY),
      mount('/dev', '/dev', '', MS_BIND),
      mount('proc', '/proc', 'proc', 0),
      mount('tmpfs', '/tmp', 'tmpfs', 0),
    ]);
  });
  after(async () => {
    await vm[Symbol.asyncDispose]();
    await harness[Symbol.asyncDispose]();
  });

  it('has a KVM that the probe finds good', async () => {
    let text = '';
    await run(agent, 'probe', ['/kvm-probe'], (data) => {
      text += data.toString();
    });
    const probe = parseProbe(text);
    assert.ok(probe.ok, probe.reason);
    assert.equal(probe.apiVersion, 12);
  });

  it('runs our driver, which chooses KVM, boots a confined machine, and clones it', async () => {
    let text = '';
    await run(
      agent,
      'driver',
      ['/node', '--disable-warning=ExperimentalWarning', '/src/nested-driver.ts'],
      (data) => {
        text += data.toString();
      },
    );
    const result: unknown = JSON.parse(text);
    assert.deepEqual(result, { accelerator: 'kvm', clone: 'written before the snapshot', leftovers: [] });
  });

  it("boots our guest with QEMU's -accel kvm, up to its agent's answer", async () => {
    const command = [
      QEMU,
      ...[
        '-machine',
        'microvm,x-option-roms=off,rtc=on,acpi=off',
        '-accel',
        'kvm',
        '-cpu',
        'host',
        '-m',
        '256M',
      ],
      ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
      ...['-global', 'virtio-mmio.force-legacy=off', '-serial', 'file:/tmp/console'],
      ...['-chardev', 'stdio,id=agent,signal=off', '-device', 'virtio-serial-device'],
      ...['-device', 'virtserialport,chardev=agent,name=org.arcbox.agent'],
      ...['-kernel', '/vmlinux', '-initrd', '/initramfs', '-append', 'console=ttyS0 reboot=t panic=-1 quiet'],
    ];
    await using channel = await openProcess(agent, 'inner', command);
    await using inner = await AgentClient.connect(channel, {
      secret: randomBytes(16),
      timeoutMs: TIMEOUT_MS,
    });
    assert.equal(inner.hello.isInit, true);
    // Only a guest of KVM sees this clock.
    assert.match(await readFile(inner, `${CLOCKS}/available_clocksource`), /kvm-clock/);
    await inner.batch([{ case: 'shutdown', value: { reboot: true } }]).catch(() => undefined);
    const end = await agent.wait('inner');
    assert.deepEqual([end.signaled, end.code], [false, 0]);
  });
});

async function readFile(agent: AgentClient, file: string): Promise<string> {
  const [answer] = await agent.batch([{ case: 'read', value: { path: file } }]);
  assert.ok(answer?.result.case === 'data');
  return Buffer.from(answer.result.value.data).toString();
}

/** Runs a program in the nested root; resolves when it exited with 0. */
async function run(
  agent: AgentClient,
  id: string,
  argv: string[],
  onData: (data: Buffer) => void,
): Promise<void> {
  await agent.batch([{ case: 'spawn', value: spawnIn(id, argv, false) }]);
  const stream = await attach(agent, id, (channel, data) => {
    if (channel === 1) onData(data);
    else process.stderr.write(data);
  });
  const end = await agent.wait(id);
  await stream.closed;
  await agent.batch([{ case: 'release', value: { id } }]);
  assert.deepEqual([end.signaled, end.code], [false, 0]);
}

/** A program in the nested root, as a stream of its input and output. */
async function openProcess(agent: AgentClient, id: string, argv: string[]): Promise<Duplex> {
  await agent.batch([{ case: 'spawn', value: spawnIn(id, argv, true) }]);
  const duplex = new Duplex({
    read: () => undefined,
    write: (data: Buffer, _encoding, done) => {
      stream.write(Buffer.from(data)).then(() => done(), done);
    },
  });
  const stream = await attach(agent, id, (channel, data) => {
    if (channel === 1) duplex.push(data);
    else process.stderr.write(data);
  });
  stream.closed.then(
    () => duplex.push(null),
    (error: Error) => duplex.destroy(error),
  );
  return duplex;
}

/** Takes all output and acknowledges it; a chunk can come before the attachment is there. */
async function attach(
  agent: AgentClient,
  id: string,
  onData: (channel: OutputChannel, data: Buffer) => void,
): Promise<Attachment> {
  const ends = new Map<OutputChannel, number>();
  let stream: Attachment | undefined;
  stream = await agent.attach(id, {
    onChunk: ({ channel, offset, data }) => {
      ends.set(channel, offset + data.length);
      onData(channel, Buffer.from(data));
      stream?.ack(channel, offset + data.length);
    },
  });
  for (const [channel, end] of ends) stream.ack(channel, end);
  return stream;
}

function spawnIn(id: string, argv: string[], stdin: boolean) {
  return { id, argv: ['/bin/busybox', 'chroot', ROOT, ...argv], env: ['PATH=/usr/bin'], cwd: '/', stdin };
}

/** A squashfs image with everything that QEMU needs, at the places where it looks. */
function makeDisk(directory: string): string {
  const root = path.join(directory, 'nested');
  const libraries = [QEMU, process.execPath].flatMap(librariesOf);
  // The firmware that this machine type has under KVM.
  const files = new Set([QEMU, '/usr/share/qemu/qboot.rom', ...libraries]);
  for (const file of files) {
    fs.mkdirSync(path.join(root, path.dirname(file)), { recursive: true });
    fs.copyFileSync(file, path.join(root, file));
  }
  copySources(root);
  for (const name of ['dev', 'proc', 'tmp']) fs.mkdirSync(path.join(root, name));
  for (const name of ['kvm-probe', 'vmlinux', 'initramfs']) {
    fs.copyFileSync(path.join(bootDirectory, name), path.join(root, name));
  }
  const image = path.join(directory, 'nested.squashfs');
  execFileSync('/usr/bin/mksquashfs', [
    root,
    image,
    '-quiet',
    '-no-progress',
    '-noI',
    '-noD',
    '-noF',
    '-noX',
    '-all-root',
  ]);
  return image;
}

function librariesOf(program: string): string[] {
  const lines = execFileSync('/usr/bin/ldd', [program], { encoding: 'utf8' }).split('\n');
  return lines.flatMap((line) => /(\/\S+) \(0x/.exec(line)?.[1] ?? []);
}

/** Node, the driver's sources, and what they import. */
function copySources(root: string): void {
  fs.copyFileSync(process.execPath, path.join(root, 'node'));
  fs.copyFileSync(path.join(bootDirectory, 'guardian'), path.join(root, 'guardian'));
  const modules = path.join(root, 'node_modules');
  const dependency = '@bufbuild/protobuf';
  fs.cpSync(path.join(repository, 'node_modules', dependency), path.join(modules, dependency), {
    recursive: true,
  });
  fs.mkdirSync(path.join(modules, '@arcbox'));
  for (const name of ['sys', 'protocol', 'vm']) {
    const source = path.join(repository, 'packages', name);
    for (const part of ['src', 'package.json']) {
      fs.cpSync(path.join(source, part), path.join(root, 'src', name, part), { recursive: true });
    }
    // Node does not strip types below node_modules, but follows links first.
    fs.symlinkSync(`/src/${name}`, path.join(modules, '@arcbox', name));
  }
  fs.copyFileSync(
    path.join(import.meta.dirname, 'nested-driver.ts'),
    path.join(root, 'src/nested-driver.ts'),
  );
}
