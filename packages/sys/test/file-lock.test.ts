import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { FileLock, processStartTime, SysError } from '../src/index.ts';

describe('a file lock', () => {
  let directory: string;
  let file: string;
  before(() => {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), 'arcbox-lock-'));
    file = path.join(directory, 'lock');
  });
  after(() => fs.rmSync(directory, { recursive: true }));

  it('has one holder, who is named to others, and can be taken again after', () => {
    const first = FileLock.tryAcquire(file);
    assert.ok(first.held);
    const second = FileLock.tryAcquire(file);
    assert.ok(!second.held);
    assert.deepEqual(second.holder, { pid: process.pid, startTime: processStartTime(process.pid) });
    first.lock[Symbol.dispose]();
    first.lock[Symbol.dispose]();
    const third = FileLock.tryAcquire(file);
    assert.ok(third.held);
    third.lock[Symbol.dispose]();
    assert.equal(fs.readFileSync(file, 'utf8'), '');
  });

  it('is released when its holder is killed', async () => {
    const index = path.join(import.meta.dirname, '../src/index.ts');
    const script = `const { FileLock } = await import(${JSON.stringify(index)});
      process.stdout.write(String(FileLock.tryAcquire(${JSON.stringify(file)}).held));
      setInterval(() => {}, 1000);`;
    const holder = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const said = await new Promise<string>((resolve) =>
      holder.stdout.once('data', (data) => resolve(String(data))),
    );
    assert.equal(said, 'true');
    const refused = FileLock.tryAcquire(file);
    assert.ok(!refused.held);
    assert.equal(refused.holder?.pid, holder.pid);
    holder.kill('SIGKILL');
    await new Promise((resolve) => holder.once('exit', resolve));
    const taken = FileLock.tryAcquire(file);
    assert.ok(taken.held);
    taken.lock[Symbol.dispose]();
  });

  it('is not inherited by programs that its holder starts', async () => {
    const first = FileLock.tryAcquire(file);
    assert.ok(first.held);
    const child = spawn('/bin/sleep', ['1000'], { stdio: 'ignore' });
    await new Promise((resolve) => child.once('spawn', resolve));
    first.lock[Symbol.dispose]();
    const second = FileLock.tryAcquire(file);
    assert.ok(second.held);
    second.lock[Symbol.dispose]();
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
  });

  it('leaks no descriptor, taken or refused', () => {
    const count = (): number => fs.readdirSync('/proc/self/fd').length;
    const before = count();
    for (let i = 0; i < 20; i++) {
      const first = FileLock.tryAcquire(file);
      assert.ok(first.held);
      assert.ok(!FileLock.tryAcquire(file).held);
      first.lock[Symbol.dispose]();
    }
    assert.equal(count(), before);
  });
});

it('a failed call has its code, number and name', () => {
  const error = SysError.fromErrno('openat', 2);
  assert.deepEqual([error.code, error.errno, error.syscall], ['ENOENT', 2, 'openat']);
  assert.equal(error.message, 'openat failed: no such file or directory (ENOENT)');
  assert.equal(SysError.fromErrno('openat', 9999).code, 'E9999');
});
