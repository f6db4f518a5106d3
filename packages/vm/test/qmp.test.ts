import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { closeFd, memfdCreate, receiveFds, socketFd } from '@arcbox/sys';
import { QmpClient, QmpError, VmError } from '../src/index.ts';

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}\r\n';

interface Command {
  readonly execute: string;
  readonly id: number;
  readonly arguments?: Record<string, unknown>;
}

describe('the monitor client', () => {
  let directory: string;
  let server: net.Server;
  const clients: QmpClient[] = [];
  const sockets: net.Socket[] = [];
  before(() => {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), 'arcbox-qmp-'));
    // Paused, so that a test can read a socket itself.
    server = net.createServer({ pauseOnConnect: true }).listen(path.join(directory, 's'));
  });
  afterEach(() => {
    for (const client of clients.splice(0)) client.close();
    for (const socket of sockets.splice(0)) socket.destroy();
  });
  after(async () => {
    await new Promise((resolve) => server.close(resolve));
    fs.rmSync(directory, { recursive: true });
  });

  /** A monitor that greets and does with commands what `answer` says. */
  const connect = async (
    answer: (command: Command, socket: net.Socket) => void,
    greeting = GREETING,
    timeoutMs?: number,
  ): Promise<{ client: QmpClient; socket: net.Socket }> => {
    const accepted = new Promise<net.Socket>((resolve) => server.once('connection', resolve));
    const ours = net.connect(path.join(directory, 's'));
    const socket = await accepted;
    socket.on('error', () => undefined);
    let text = '';
    socket.on('data', (data) => {
      text += String(data);
      for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n')) {
        const command: Command = JSON.parse(text.slice(0, at));
        text = text.slice(at + 1);
        if (greeting === '') return;
        if (command.id === 0) socket.write('{"return": {}, "id": 0}\r\n');
        else answer(command, socket);
      }
    });
    socket.resume();
    socket.write(greeting);
    sockets.push(socket);
    const client = await QmpClient.connect(ours, timeoutMs);
    clients.push(client);
    return { client, socket };
  };
  const reply = (socket: net.Socket, id: number, value: unknown): void => {
    socket.write(`${JSON.stringify({ return: value, id })}\r\n`);
  };
  const monitorError = (error: unknown): boolean =>
    error instanceof VmError && error.code === 'ERR_ARCBOX_VM_MONITOR';

  it('negotiates and knows the version', async () => {
    const { client } = await connect(() => undefined);
    assert.equal(client.version, '7.2.22');
  });

  it('matches answers with commands, in whatever order and pieces they come', async () => {
    const commands: Command[] = [];
    const { client } = await connect((command, socket) => {
      commands.push(command);
      if (commands.length < 2) return;
      const text = commands
        .reverse()
        .map(({ id, execute }) => JSON.stringify({ return: { was: execute }, id }))
        .join('\r\n');
      socket.write(text.slice(0, 20));
      setImmediate(() => socket.write(`${text.slice(20)}\r\n`));
    });
    assert.deepEqual(await Promise.all([client.execute('first'), client.execute('second')]), [
      { was: 'first' },
      { was: 'second' },
    ]);
  });

  it('reports what QEMU refuses', async () => {
    const { client } = await connect(({ id }, socket) => {
      socket.write(`{"error": {"class": "DeviceNotFound", "desc": "no such device"}, "id": ${id}}\r\n`);
    });
    await assert.rejects(client.execute('device_del'), (error) => {
      assert.ok(error instanceof QmpError);
      assert.deepEqual([error.command, error.errorClass], ['device_del', 'DeviceNotFound']);
      return true;
    });
  });

  it('hands out events, between and before answers', async () => {
    const { client } = await connect(({ id }, socket) => {
      socket.write('{"event": "DEVICE_DELETED", "data": {"device": "other"}}\r\n');
      socket.write('{"event": "DEVICE_DELETED", "data": {"device": "mine"}}\r\n');
      reply(socket, id, {});
    });
    const event = client.waitForEvent(({ data }) => data.device === 'mine', 'it was deleted');
    await client.execute('device_del');
    assert.deepEqual(await event, { name: 'DEVICE_DELETED', data: { device: 'mine' } });
    await assert.rejects(
      client.waitForEvent(() => true, 'something happened', 10),
      (error) => error instanceof VmError && error.code === 'ERR_ARCBOX_VM_TIMEOUT',
    );
  });

  it('sends descriptors with the command that they belong to', async () => {
    const accepted = new Promise<net.Socket>((resolve) => server.once('connection', resolve));
    const ours = net.connect(path.join(directory, 's'));
    const socket = await accepted;
    socket.write(GREETING);
    const client = await QmpClient.connect(ours);
    clients.push(client);
    const fd = memfdCreate('test');
    fs.writeSync(fd, 'what was sent', 0);
    const answer = client.execute('add-fd', {}, { fds: [fd] });
    answer.catch(() => undefined);
    // The server's end is read by hand: Node would lose the descriptor.
    const buffer = Buffer.alloc(4096);
    let text = '';
    let received: number[] = [];
    for (let waitMs = 1; received.length === 0; waitMs *= 2) {
      assert.ok(waitMs < 5000);
      await new Promise<void>((resolve) => setTimeout(resolve, waitMs));
      const message = receiveFds(socketFd(socket), buffer);
      if (message === undefined) continue;
      text += buffer.toString('utf8', 0, message.bytes);
      received = message.fds;
    }
    assert.match(text, /"execute":"add-fd"/);
    const [copy] = received;
    assert.ok(copy !== undefined);
    assert.equal(fs.readFileSync(`/proc/self/fd/${copy}`, 'utf8'), 'what was sent');
    closeFd(copy);
    closeFd(fd);
    client.close();
    await assert.rejects(answer, monitorError);
    socket.destroy();
  });

  it('ends calls when the connection ends', async () => {
    const { client } = await connect((_command, socket) => socket.destroy());
    await assert.rejects(client.execute('quit'), monitorError);
    await client.closed;
    await assert.rejects(client.execute('again'), monitorError);
  });

  it('does not wait for ever', async () => {
    const { client } = await connect(() => undefined);
    await assert.rejects(
      client.execute('stop', {}, { timeoutMs: 10 }),
      (error) => error instanceof VmError && error.code === 'ERR_ARCBOX_VM_TIMEOUT',
    );
    await assert.rejects(
      connect(() => undefined, '', 10),
      (error) => error instanceof VmError && error.code === 'ERR_ARCBOX_VM_TIMEOUT',
    );
  });

  for (const [what, text] of [
    ['no JSON', 'hello\r\n'],
    ['no object', '[1]\r\n'],
    ['another greeting', '{"hello": "world"}\r\n'],
    ['a line without end', 'x'.repeat(5 * 1024 * 1024)],
  ] as const) {
    it(`refuses ${what}`, async () => {
      await assert.rejects(
        connect(() => undefined, text),
        monitorError,
      );
      const { client, socket } = await connect(() => undefined);
      const call = client.execute('query-status');
      socket.write(text);
      if (what !== 'another greeting') await assert.rejects(call, monitorError);
      client.close();
      await assert.rejects(call, monitorError);
    });
  }
});
