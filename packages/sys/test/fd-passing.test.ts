import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  closeFd,
  copySparse,
  FDS_PER_MESSAGE_MAX,
  memfdCreate,
  readProcessMemory,
  receiveFds,
  SysError,
  sendFds,
  socketFd,
} from '../src/index.ts';
import { address } from '../src/libc.ts';

describe('descriptors over a Unix socket', () => {
  let directory: string;
  let server: net.Server;
  before(() => {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), 'arcbox-fds-'));
    server = net.createServer({ pauseOnConnect: true }).listen(path.join(directory, 's'));
  });
  after(async () => {
    await new Promise((resolve) => server.close(resolve));
    fs.rmSync(directory, { recursive: true });
  });
  const pair = async (): Promise<[net.Socket, net.Socket]> => {
    const accepted = new Promise<net.Socket>((resolve) => server.once('connection', resolve));
    const client = net.connect(path.join(directory, 's'));
    client.pause();
    await new Promise((resolve) => client.once('connect', resolve));
    return [client, await accepted];
  };

  it('arrive with their bytes and are open files', async () => {
    const [a, b] = await pair();
    const files = ['one', 'two', 'three'].map((text) => {
      const fd = memfdCreate('test');
      fs.writeSync(fd, text, 0);
      return fd;
    });
    assert.equal(sendFds(socketFd(a), Buffer.from('hello'), files), 5);
    for (const fd of files) closeFd(fd);
    const buffer = Buffer.alloc(16);
    const received = receiveFds(socketFd(b), buffer);
    assert.equal(received?.bytes, 5);
    assert.equal(buffer.toString('utf8', 0, 5), 'hello');
    assert.deepEqual(
      received?.fds.map((fd) => fs.readFileSync(`/proc/self/fd/${fd}`, 'utf8')),
      ['one', 'two', 'three'],
    );
    for (const fd of received?.fds ?? []) closeFd(fd);
    assert.equal(receiveFds(socketFd(b), buffer), undefined);
    a.destroy();
    b.destroy();
  });

  it('are not sent when the socket is full, and are refused when there are too many', async () => {
    const [a, b] = await pair();
    const data = Buffer.alloc(64 * 1024);
    const fd = socketFd(a);
    while (sendFds(fd, data, [0]) > 0);
    assert.equal(sendFds(fd, data, [0]), 0);
    const many = Array.from({ length: FDS_PER_MESSAGE_MAX + 1 }, () => 0);
    assert.throws(() => sendFds(fd, data, many), RangeError);
    assert.throws(() => sendFds(fd, data, []), RangeError);
    assert.throws(
      () => sendFds(fd, data, [9999]),
      (error) => error instanceof SysError && error.code === 'EBADF',
    );
    a.destroy();
    b.destroy();
    await new Promise((resolve) => a.once('close', resolve));
    assert.throws(() => socketFd(a), SysError);
  });
});

describe('memory files', () => {
  it('are copied with their holes', async () => {
    const from = memfdCreate('from');
    const to = memfdCreate('to');
    const MIB = 1024 * 1024;
    fs.ftruncateSync(from, 64 * MIB);
    fs.ftruncateSync(to, 64 * MIB);
    fs.writeSync(from, Buffer.alloc(MIB, 'a'), 0, MIB, 4 * MIB);
    fs.writeSync(from, Buffer.alloc(17 * MIB, 'b'), 0, 17 * MIB, 40 * MIB);
    assert.equal(await copySparse(from, to), 18 * MIB);
    assert.equal(fs.fstatSync(to).blocks * 512, 18 * MIB);
    const read = (fd: number): Buffer => fs.readFileSync(`/proc/self/fd/${fd}`);
    assert.ok(read(from).equals(read(to)));
    closeFd(from);
    closeFd(to);
  });

  it('of another process can be read by ranges', () => {
    const source = Buffer.from('the memory of a process');
    const into = Buffer.alloc(6);
    const start = address(source);
    readProcessMemory(
      process.pid,
      [
        { start: start + 4n, length: 3 },
        { start: start + 4n, length: 3 },
      ],
      into,
    );
    assert.equal(into.toString(), 'memmem');
    assert.throws(() => readProcessMemory(process.pid, [{ start, length: 7 }], into), RangeError);
    assert.throws(() => readProcessMemory(process.pid, [{ start: 4096n, length: 1 }], into), SysError);
  });
});
