import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { sweepRunRoot, VmError } from '../src/index.ts';
import { makeRunDir, removeRunDir, vmUid } from '../src/qemu/run-dir.ts';

describe('run directories', () => {
  let root: string;
  before(() => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'arcbox-run-'));
  });
  after(() => fs.rmSync(root, { recursive: true }));

  it('are private, and each has a user of its own', () => {
    const dirs = Array.from({ length: 200 }, () => makeRunDir(root));
    assert.equal(new Set(dirs.map(vmUid)).size, 200);
    for (const dir of dirs) {
      assert.match(path.basename(dir), /^[0-9a-f]{8}$/);
      assert.equal(fs.statSync(dir).mode & 0o777, 0o700);
      assert.ok(vmUid(dir) >= 1_879_048_192);
      removeRunDir(dir);
    }
  });

  it('whose sockets would have too long a path are refused', () => {
    const long = path.join(root, 'x'.repeat(100));
    fs.mkdirSync(long);
    assert.throws(
      () => makeRunDir(long),
      (error) => error instanceof VmError && error.code === 'ERR_ARCBOX_VM_CONFIG',
    );
    assert.deepEqual(fs.readdirSync(long), []);
    fs.rmdirSync(long);
  });

  it('that nobody listens in are swept, others stay', async () => {
    const names = ['00000001', '00000002', '00000003', 'not-ours'];
    const [dead, alive, young, other] = names.map((name) => path.join(root, name));
    assert.ok(dead && alive && young && other);
    for (const dir of [dead, alive, young, other]) fs.mkdirSync(dir);
    // A socket that its process left behind: bound, and then closed without being unlinked.
    const gone = net.createServer().listen(path.join(root, 'gone'));
    await new Promise((resolve) => gone.once('listening', resolve));
    fs.linkSync(path.join(root, 'gone'), path.join(dead, 'lease.sock'));
    await new Promise((resolve) => gone.close(resolve));
    const server = net.createServer().listen(path.join(alive, 'lease.sock'));
    await new Promise((resolve) => server.once('listening', resolve));
    assert.deepEqual(await sweepRunRoot(root), [dead]);
    assert.deepEqual(fs.readdirSync(root).sort(), ['00000002', '00000003', 'not-ours']);
    fs.utimesSync(young, 1, 1);
    assert.deepEqual(await sweepRunRoot(root), [young]);
    await new Promise((resolve) => server.close(resolve));
    assert.deepEqual(await sweepRunRoot(path.join(root, 'not-ours')), []);
    fs.rmdirSync(other);
    fs.rmSync(alive, { recursive: true });
  });
});
