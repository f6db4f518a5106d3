/**
 * Connections that break in the middle of a frame: no byte of a stream is lost, none comes twice.
 *
 * `socket` makes a new connection each time, so the agent sees the old one hang up. `port` is what a virtio-serial port
 * is like when the agent missed the hang-up: the next host talks on the same byte stream, behind what was half sent
 * and half received.
 */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import net from 'node:net';
import { Duplex } from 'node:stream';
import { AgentClient, type Attachment, type UnackedInput } from '@arcbox/protocol';
import { type Cut, CutChannel } from './support/cut-channel.ts';
import { HostAgent, SECRET } from './support/host-agent.ts';
import { freshId, shell } from './support/run.ts';
import { test } from './support/test.ts';

const CUTS = 50;

type Connect = (cut: Cut) => Promise<AgentClient>;

/** Some early, in the handshake and the first frames; most in the midst of the stream. */
function cutAt(random: () => number, round: number, most: number): number {
  const early = round % 5 === 0;
  return 1 + Math.floor(early ? 1000 * random() : most * (0.1 + 0.9 * random()));
}

/** mulberry32: the cuts are the same every time. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** One socket, many hosts one after the other: none of them closes it. */
class Port {
  readonly #socket: net.Socket;

  constructor(socket: net.Socket) {
    this.#socket = socket;
  }

  open(cut: Cut): Duplex {
    const socket = this.#socket;
    let readLeft = cut.readBytes ?? Number.POSITIVE_INFINITY;
    let writeLeft = cut.writtenBytes ?? Number.POSITIVE_INFINITY;
    const take = (piece: Buffer): void => {
      const taken = piece.subarray(0, readLeft);
      readLeft -= taken.length;
      host.push(taken);
      if (readLeft > 0) return;
      host.destroy();
    };
    const host = new Duplex({
      read() {
        socket.resume();
      },
      write(piece: Buffer, _encoding, done) {
        const taken = piece.subarray(0, writeLeft);
        writeLeft -= taken.length;
        socket.write(taken, (error) => {
          if (writeLeft <= 0) host.destroy();
          done(error);
        });
      },
      final: (done) => done(),
      destroy(error, done) {
        socket.off('data', take);
        socket.pause();
        done(error);
      },
    });
    socket.on('data', take);
    return host;
  }
}

for (const kind of ['socket', 'port'] as const) {
  async function connector(agent: HostAgent): Promise<{ connect: Connect; end(): void }> {
    if (kind === 'socket') {
      return { connect: (cut) => agent.connect((socket) => new CutChannel(socket, cut)), end() {} };
    }
    const socket = await agent.socket();
    const port = new Port(socket);
    return {
      connect: (cut) => AgentClient.connect(port.open(cut), { secret: SECRET, timeoutMs: 20_000 }),
      end: () => socket.destroy(),
    };
  }

  test(`output over breaking connections (${kind})`, async () => {
    await using agent = await HostAgent.start();
    const { connect, end } = await connector(agent);
    const random = seeded(1);
    const last = 5_000_000;
    const id = freshId();
    {
      const client = await connect({});
      await client.batch([shell(`exec seq 1 ${last}`, { id })]);
      await client.close();
    }
    // `kept` is what survives us; what was received after it is lost with the connection.
    let kept = 0;
    let errorKept = 0;
    let number = 1;
    let partial = '';
    let lost: Buffer[] = [];
    const keep = (): void => {
      const bytes = Buffer.concat(lost);
      lost = [];
      kept += bytes.length;
      const lines = (partial + bytes.toString()).split('\n');
      partial = lines.pop() ?? '';
      for (const line of lines) {
        if (line !== String(number)) assert.fail(`${line} came instead of ${number}`);
        number++;
      }
    };
    let handshakesCut = 0;
    let streamsCut = 0;
    let losses = 0;
    let delivered = false;
    for (let round = 0; !delivered; round++) {
      assert.ok(round < 10 * CUTS, 'the stream does not come to its end');
      const cut = round < CUTS ? { readBytes: cutAt(random, round, 1_000_000) } : {};
      let client: AgentClient;
      try {
        client = await connect(cut);
      } catch {
        handshakesCut++;
        continue;
      }
      lost = [];
      let attachment: Attachment | undefined;
      let chunks = 0;
      try {
        attachment = await client.attach(id, {
          output: { offset: kept, windowBytes: 300_000 },
          error: { offset: errorKept },
          onChunk({ channel, data, eof, offset }) {
            if (channel === 2) {
              errorKept = offset + data.length;
              return;
            }
            assert.equal(offset, kept + lost.reduce((sum, { length }) => sum + length, 0));
            lost.push(Buffer.from(data));
            chunks++;
            // Not after each chunk, so that there is something to lose.
            if (attachment !== undefined && (eof || chunks % 3 === 0)) {
              keep();
              attachment.ack(1, kept);
            }
          },
        });
        keep();
        attachment.ack(1, kept);
        await attachment.closed;
        delivered = true;
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'ERR_ARCBOX_AGENT_CLOSED', String(error));
        if (kept > 0) streamsCut++;
        if (lost.length > 0) losses++;
      }
      await client.close();
    }
    // The connection that delivered the end may have been cut right after it.
    const client = await connect({});
    assert.equal((await client.wait(id)).code, 0);
    await client.batch([{ case: 'release', value: { id } }]);
    await client.close();
    assert.equal(number, last + 1);
    assert.equal(partial, '');
    // It was a test: both happened often enough.
    assert.ok(streamsCut > CUTS / 2, `${streamsCut} streams were cut, ${handshakesCut} handshakes`);
    assert.ok(losses > CUTS / 4, `${losses} connections lost bytes that had come`);
    end();
  });

  test(`input over breaking connections (${kind})`, async () => {
    await using agent = await HostAgent.start();
    const { connect, end } = await connector(agent);
    const random = seeded(2);
    const source = randomBytes(40_000_000);
    const id = freshId();
    {
      const client = await connect({});
      await client.batch([shell('exec sha256sum', { id, stdin: true })]);
      await client.close();
    }
    let input: UnackedInput | undefined;
    let outputKept = 0;
    let errorKept = 0;
    let output = '';
    let delivered = false;
    let resumed = 0;
    for (let round = 0; !delivered; round++) {
      assert.ok(round < 10 * CUTS, 'the stream does not come to its end');
      // Both ways: a lost acknowledgement is as good a trap as a lost byte.
      const cut =
        round >= CUTS
          ? {}
          : round % 4 === 0
            ? { readBytes: cutAt(random, round, 2000) }
            : { writtenBytes: cutAt(random, round, 1_000_000) };
      let client: AgentClient;
      try {
        client = await connect(cut);
      } catch {
        continue;
      }
      let attachment: Attachment | undefined;
      try {
        attachment = await client.attach(id, {
          output: { offset: outputKept },
          error: { offset: errorKept },
          ...(input === undefined ? {} : { input }),
          onChunk({ channel, offset, data }) {
            if (channel === 2) {
              errorKept = offset + data.length;
              return;
            }
            output += Buffer.from(data).toString();
            outputKept += data.length;
          },
        });
        attachment.ack(1, outputKept);
        const sent = input === undefined ? 0 : input.offset + bytesOf(input);
        if (input?.eof !== true) {
          for (let at = sent; at < source.length; at += 100_000) {
            await attachment.write(source.subarray(at, at + 100_000), { eof: at + 100_000 >= source.length });
          }
        }
        await client.wait(id);
        attachment.ack(1, outputKept);
        await attachment.closed;
        delivered = true;
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'ERR_ARCBOX_AGENT_CLOSED', String(error));
        if (attachment !== undefined) input = attachment.unacked();
        if (input !== undefined && bytesOf(input) > 0) resumed++;
      }
      await client.close();
    }
    const client = await connect({});
    await client.batch([{ case: 'release', value: { id } }]);
    await client.close();
    assert.ok(resumed > CUTS / 4, `${resumed} connections left something to send again`);
    assert.equal(output, `${createHash('sha256').update(source).digest('hex')}  -\n`);
    end();
  });
}

function bytesOf({ data }: UnackedInput): number {
  return data.reduce((sum, { length }) => sum + length, 0);
}

test('a connection that is still there gives way to a new one, and calls in flight end', async () => {
  await using agent = await HostAgent.start();
  const first = await agent.connect();
  const id = freshId();
  await first.batch([shell('exec sleep 1000', { id })]);
  const wait = first.wait(id);
  wait.catch(() => {});
  const attachment = await first.attach(id, { onChunk() {} });
  await using second = await agent.connect();
  assert.equal(second.hello.epoch, first.hello.epoch + 1n);
  assert.equal((await first.closed).code, 'ERR_ARCBOX_AGENT_CLOSED');
  await assert.rejects(wait, { code: 'ERR_ARCBOX_AGENT_CLOSED' });
  await assert.rejects(attachment.closed, { code: 'ERR_ARCBOX_AGENT_CLOSED' });
  const [result] = await second.batch([{ case: 'listObjects', value: {} }]);
  assert.ok(result?.result.case === 'objects');
  assert.deepEqual(
    result.result.value.objects.map(({ id, ended }) => [id, ended]),
    [[id, false]],
  );
  await second.batch([{ case: 'release', value: { id } }]);
  await first.close();
});

test('an operation goes on when its connection ends', async () => {
  await using agent = await HostAgent.start();
  const first = await agent.connect();
  const id = freshId();
  const file = agent.path('pid');
  const go = agent.path('go');
  // It is answered when the launcher has ended: after the connection.
  const launch = first.batch([
    shell(`until [ -e ${go} ]; do sleep 0.01; done; sleep 1000 & echo $! > ${file}`, {
      id,
      adoptPidFile: file,
    }),
  ]);
  launch.catch(() => {});
  await first.batch([{ case: 'sync', value: {} }]);
  await first.close();
  await assert.rejects(launch, { code: 'ERR_ARCBOX_AGENT_CLOSED' });
  await writeFile(go, '');
  await using second = await agent.connect();
  const wait = second.wait(id);
  await second.batch([{ case: 'signal', value: { id, signal: 9, group: true } }]);
  assert.equal((await wait).signaled, true);
  await second.batch([{ case: 'release', value: { id } }]);
});

test('a Hello that is repeated after it was answered disturbs nothing', async () => {
  await using agent = await HostAgent.start();
  const before = await agent.connect();
  await before.close();
  const socket = net.connect(agent.socketPath);
  let hello: Buffer | undefined;
  let repeats = 0;
  // As when the repetition was on its way before the answer came: it arrives with what the host says next.
  const channel = new Duplex({
    read: () => socket.resume(),
    write(piece: Buffer, _encoding, done) {
      const repeated = hello !== undefined && repeats++ < 3;
      socket.write(repeated ? Buffer.concat([hello ?? piece, piece]) : piece, done);
      hello ??= Buffer.from(piece);
    },
    final: (done) => void socket.end(done),
    destroy(error, done) {
      socket.destroy();
      done(error);
    },
  });
  socket.on('data', (piece: Buffer) => channel.push(piece));
  socket.on('close', () => channel.push(null));
  await using client = await AgentClient.connect(channel, { secret: SECRET, timeoutMs: 5000 });
  assert.equal(client.hello.epoch, before.hello.epoch + 1n);
  for (let i = 0; i < 3; i++) await client.batch([{ case: 'sync', value: {} }], { timeoutMs: 5000 });
  const id = freshId();
  await client.batch([shell('exit 3', { id })]);
  assert.equal((await client.wait(id)).code, 3);
  await client.batch([{ case: 'release', value: { id } }]);
  assert.equal(repeats > 2, true);
});
