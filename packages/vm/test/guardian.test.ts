/** The guardian alone, with small programs in the place of a VMM. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { PidFd, processStartTime, SysError } from '@arcbox/sys';
import { VmError } from '../src/index.ts';
import { Lease } from '../src/qemu/lease.ts';

const repository = path.join(import.meta.dirname, '../../..');
const guardian = path.join(process.env.ARCBOX_BOOT_DIR ?? path.join(repository, 'build/boot'), 'guardian');
/** Of what happens at once, on a machine that has much else to do; no grace time of a test is shorter. */
const TIMEOUT_MS = 20_000;

describe('the guardian', () => {
  let root: string;
  let runDir: string;
  beforeEach(() => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'arcbox-guardian-'));
    runDir = path.join(root, '0123abcd');
    fs.mkdirSync(runDir);
  });
  afterEach(() => fs.rmSync(root, { recursive: true }));

  const options = (...more: string[]): string[] => [
    ...[
      '--dir',
      runDir,
      '--owner-fd',
      '3',
      '--keep-fd-max',
      '3',
      '--log',
      'vmm.log=2',
      '--log',
      'console.log=1',
    ],
    ...more,
    '--',
  ];
  const start = (command: readonly string[], ...more: string[]): Lease =>
    Lease.spawn(guardian, [...options(...more), ...command], []);

  it('tells how its program ended, with the ends of its logs, and leaves nothing', async () => {
    const lease = start(['/bin/sh', '-c', 'echo to the console; echo to the log >&2; exit 7']);
    await lease.waitUntilUp();
    const end = await lease.ended;
    assert.ok(end.kind === 'exit');
    assert.deepEqual([end.code, end.signal, end.by], [7, 0, 'itself']);
    assert.equal(end.logs.get('console.log'), 'to the console\n');
    assert.equal(end.logs.get('vmm.log'), 'to the log\n');
    assert.deepEqual(fs.readdirSync(root), []);
    fs.mkdirSync(runDir);
  });

  it('tells which signal ended its program', async () => {
    const lease = start(['/bin/sh', '-c', 'kill -SEGV $$']);
    const end = await lease.ended;
    assert.ok(end.kind === 'exit');
    assert.equal(end.signal, os.constants.signals.SIGSEGV);
  });

  it('kills at once when its owner leaves', async () => {
    const lease = start(['/bin/sleep', '1000']);
    const { pid, startTime } = await lease.waitUntilUp();
    using process = PidFd.open(pid, startTime);
    lease.close();
    await gone(process);
    await backOff(() => !fs.existsSync(runDir));
  });

  it('kills when told to, and when it is told to end itself', async () => {
    const first = start(['/bin/sleep', '1000']);
    await first.waitUntilUp();
    first.kill();
    const end = await first.ended;
    assert.ok(end.kind === 'exit');
    assert.equal(end.by, 'owner');
    fs.mkdirSync(runDir);
    const second = start(['/bin/sleep', '1000']);
    await second.waitUntilUp();
    assert.ok(second.guardianPid);
    process.kill(second.guardianPid, 'SIGTERM');
    const terminated = await second.ended;
    assert.ok(terminated.kind === 'exit');
    assert.equal(terminated.by, 'signal');
  });

  it('takes its program with it when it is killed', async () => {
    const lease = start(['/bin/sleep', '1000']);
    const { pid, startTime } = await lease.waitUntilUp();
    using program = PidFd.open(pid, startTime);
    assert.ok(lease.guardianPid);
    process.kill(lease.guardianPid, 'SIGKILL');
    assert.deepEqual(await lease.ended, { kind: 'lost' });
    await gone(program);
  });

  it('waits its grace time for another owner, who then decides', async () => {
    const first = start(['/bin/sleep', '1000'], '--orphan-ms', '60000');
    const program = await first.waitUntilUp();
    first.close();
    const second = await Lease.connect(path.join(runDir, 'lease.sock'));
    assert.deepEqual(await second.waitUntilUp(), program);
    second.kill();
    const end = await second.ended;
    assert.ok(end.kind === 'exit');
    assert.equal(end.by, 'owner');
  });

  it('ends an orphan when its grace time is over, and not before', async () => {
    const lease = start(['/bin/sleep', '1000'], '--orphan-ms', '150');
    const { pid, startTime } = await lease.waitUntilUp();
    using program = PidFd.open(pid, startTime);
    const began = performance.now();
    lease.close();
    await gone(program);
    assert.ok(performance.now() - began >= 145);
    // The guardian removes it after that.
    await backOff(() => !fs.existsSync(runDir));
  });

  it('keeps an orphan for ever when the grace time has no end', async () => {
    const lease = start(['/bin/sleep', '1000'], '--orphan-ms', '-1');
    await lease.waitUntilUp();
    lease.close();
    const next = await Lease.connect(path.join(runDir, 'lease.sock'));
    const { pid, startTime } = await next.waitUntilUp();
    assert.equal(processStartTime(pid), startTime);
    next.kill();
    await next.ended;
  });

  it('makes the sockets that its program listens on', async () => {
    // `socat` would do; the shell's `exec` shows that the descriptor is there and is a socket.
    const lease = start(
      ['/bin/sh', '-c', 'readlink /proc/self/fd/70; sleep 1000'],
      '--listen',
      'test.sock=70',
    );
    await lease.waitUntilUp();
    const socket = net.connect(path.join(runDir, 'test.sock'));
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    socket.destroy();
    await backOff(() => fs.readFileSync(path.join(runDir, 'console.log'), 'utf8').startsWith('socket:'));
    lease.kill();
    await lease.ended;
  });

  it('bounds what a program can write', async () => {
    const lease = start([
      '/bin/sh',
      '-c',
      'head -c 3000000 /dev/zero | tr "\\0" x; echo the end; sleep 1000',
    ]);
    await lease.waitUntilUp();
    const log = path.join(runDir, 'console.log');
    await backOff(() => fs.readFileSync(log, 'latin1').endsWith('the end\n'));
    assert.ok(fs.statSync(log).size <= 256 * 1024);
    lease.kill();
    const end = await lease.ended;
    assert.ok(end.kind === 'exit');
    assert.equal(end.logs.get('console.log')?.length, 4096);
  });

  it('confines its program', { skip: process.getuid?.() !== 0 && 'only root can change users' }, async () => {
    const script =
      'cat /proc/self/status; ulimit -c; ls /proc/self/fd; env; for n in net ipc; do readlink /proc/self/ns/$n; done';
    const lease = start(['/bin/sh', '-c', script], '--uid', '1879050000');
    const end = await lease.ended;
    assert.ok(end.kind === 'exit');
    const text = end.logs.get('console.log') ?? '';
    assert.match(text, /^Uid:\t1879050000\t1879050000\t1879050000\t1879050000$/m);
    assert.match(text, /^Gid:\t1879050000\t1879050000\t1879050000\t1879050000$/m);
    assert.match(text, /^Groups:\s*$/m);
    assert.match(text, /^CapEff:\t0+$/m);
    assert.match(text, /^NoNewPrivs:\t1$/m);
    // `ls` has its directory open as 3; nothing else came through.
    assert.match(text, /^0\n0\n1\n2\n3\n[A-Z]/m);
    for (const kind of ['net', 'ipc']) {
      const [own] = new RegExp(`^${kind}:\\[\\d+\\]$`, 'm').exec(text) ?? [];
      assert.ok(own !== undefined && own !== fs.readlinkSync(`/proc/self/ns/${kind}`), `${kind}: ${own}`);
    }
  });

  it('gives a program its descriptor for a path, and leaves other paths alone', async () => {
    const file = path.join(root, 'private');
    fs.writeFileSync(file, 'the content');
    const other = path.join(root, 'other');
    fs.writeFileSync(other, 'another', { mode: 0o666 });
    fs.chmodSync(root, 0o755);
    const fd = fs.openSync(file, 'r');
    const args = [
      '--dir',
      runDir,
      '--owner-fd',
      '3',
      '--keep-fd-max',
      '4',
      '--log',
      'vmm.log=2',
      '--log',
      'console.log=1',
    ];
    const script = `const fs = require('fs');
      const ram = fs.openSync('/arcbox/ram', 'r+');
      console.log(fs.readFileSync(ram, 'utf8'), fs.readFileSync(fs.openSync(${JSON.stringify(other)}, 'r+'), 'utf8'));
      try { fs.writeSync(ram, 'x', 0) } catch (error) { console.log(error.code) }`;
    const command = ['--inject', '/arcbox/ram=4', '--', process.execPath, '-e', script];
    const lease = Lease.spawn(guardian, [...args, ...command], [fd]);
    fs.closeSync(fd);
    const end = await lease.ended;
    assert.ok(end.kind === 'exit');
    assert.equal(end.logs.get('console.log'), 'the content another\nEBADF\n');
    assert.equal(fs.readFileSync(file, 'utf8'), 'the content');
  });

  it('says what it could not do, and leaves nothing', async () => {
    const noDirectory = Lease.spawn(
      guardian,
      [...options().map((arg) => arg.replace(runDir, `${runDir}/none`)), '/bin/true'],
      [],
    );
    await assert.rejects(noDirectory.waitUntilUp(), /could not open the run directory/);
    const noCgroup = start(['/bin/true'], '--cgroup', '/proc/nowhere');
    await assert.rejects(noCgroup.waitUntilUp(), /could not make the cgroup/);
    assert.deepEqual(fs.readdirSync(root), []);
    fs.mkdirSync(runDir);
    const noProgram = start(['/nowhere/vmm']);
    const end = await noProgram.ended;
    assert.ok(end.kind === 'exit');
    assert.equal(end.code, 126);
    assert.match(end.logs.get('vmm.log') ?? '', /cannot execute the VMM: No such file or directory/);
    const nonsense = Lease.spawn(guardian, ['--nonsense', '1', '--', '/bin/true'], []);
    await assert.rejects(
      nonsense.waitUntilUp(),
      (error) => error instanceof VmError && error.code === 'ERR_ARCBOX_VM_HOST',
    );
    const misspelt = Lease.spawn(guardian, options('--orphan-ms', 'soon'), []);
    await assert.rejects(misspelt.waitUntilUp(), /could not read the options/);
    assert.deepEqual(fs.readdirSync(root), []);
    fs.mkdirSync(runDir);
    const missing = Lease.spawn('/nowhere/guardian', [], []);
    await assert.rejects(missing.waitUntilUp(), (error) => error instanceof VmError);
  });

  it('kills when its owner is killed, however that was', async () => {
    const lease = path.join(repository, 'packages/vm/src/qemu/lease.ts');
    const args = JSON.stringify([...options(), '/bin/sleep', '1000']);
    const script = `const { Lease } = await import(${JSON.stringify(lease)});
      const lease = Lease.spawn(${JSON.stringify(guardian)}, ${args}, []);
      const { pid, startTime } = await lease.waitUntilUp();
      process.stdout.write(pid + ' ' + startTime + '\\n');
      setInterval(() => {}, 1000);`;
    const owner = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const line = await new Promise<string>((resolve) =>
      owner.stdout.once('data', (data: Buffer) => resolve(data.toString())),
    );
    const [pid, startTime] = line.trim().split(' ');
    using program = PidFd.open(Number(pid), startTime);
    owner.kill('SIGKILL');
    await gone(program);
    await backOff(() => !fs.existsSync(runDir));
  });
});

/** Waits for a process that is not our child; a zombie has ended. */
async function gone(process: PidFd): Promise<void> {
  await backOff(() => {
    if (!process.signal(0)) return true;
    try {
      return /\) Z /.test(fs.readFileSync(`/proc/${process.pid}/stat`, 'latin1'));
    } catch {
      return true;
    }
  });
}

async function backOff(done: () => boolean): Promise<void> {
  const end = performance.now() + TIMEOUT_MS;
  for (let waitMs = 1; !done(); waitMs = Math.min(waitMs * 2, 50)) {
    assert.ok(performance.now() < end, 'it did not happen in time');
    await new Promise<void>((resolve) => setTimeout(resolve, waitMs));
  }
}

it('a pidfd of another process is not taken for it', () => {
  assert.throws(
    () => PidFd.open(process.pid, '1'),
    (error) => error instanceof SysError && error.code === 'ESRCH',
  );
});
