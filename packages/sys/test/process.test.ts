import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { it } from 'node:test';
import { PidFd, processStartTime, SysError } from '../src/index.ts';

const isEsrch = (error: unknown): boolean => error instanceof SysError && error.code === 'ESRCH';

it('a pidfd reaches its process and nobody else', async () => {
  const child = spawn('/bin/sleep', ['1000'], { stdio: 'ignore' });
  await new Promise((resolve) => child.once('spawn', resolve));
  assert.ok(child.pid);
  const startTime = processStartTime(child.pid);
  assert.throws(() => PidFd.open(child.pid ?? 0, `${startTime}0`), isEsrch);
  using pidfd = PidFd.open(child.pid, startTime);
  assert.equal(pidfd.signal(0), true);
  assert.equal(pidfd.signal(9), true);
  await new Promise((resolve) => child.once('exit', resolve));
  assert.equal(pidfd.signal(0), false);
  assert.throws(() => PidFd.open(child.pid ?? 0), isEsrch);
  assert.throws(() => processStartTime(child.pid ?? 0), isEsrch);
});

it('a start time is that of field 22, whatever the program is called', async () => {
  const script = 'exec -a "a) 1 2 3 (b" sleep 1000';
  const child = spawn('/bin/bash', ['-c', script], { stdio: 'ignore' });
  await new Promise((resolve) => child.once('spawn', resolve));
  assert.ok(child.pid);
  const own = Number(processStartTime(process.pid));
  assert.ok(Number(processStartTime(child.pid)) >= own);
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
});

it('a signal that there is not is refused', () => {
  using pidfd = PidFd.open(process.pid);
  assert.throws(
    () => pidfd.signal(1000),
    (error) => error instanceof SysError && error.code === 'EINVAL',
  );
});
