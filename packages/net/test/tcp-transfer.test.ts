import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { Dice, type Lab } from './support/lab.ts';
import { type Program, TwoStacks, type WireOptions } from './support/two-stacks.ts';

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

function noise(length: number, seed: number): Uint8Array {
  const dice = new Dice(seed);
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < words.length; i += 1) words[i] = dice.u32();
  return new Uint8Array(words.buffer, 0, length);
}

/** Everything has come back that a connection had. */
function assertEmpty(lab: Lab): void {
  assert.equal(lab.arena.freeChunks, lab.arena.chunksTotal, 'chunks');
}

/** Both directions at once, then an orderly end. */
async function transfer(options: WireOptions, bytes: number, address = '192.0.2.1'): Promise<TwoStacks> {
  const pair = new TwoStacks(options);
  const program = pair.connect(address, 80);
  const up = noise(bytes, 7);
  const down = noise(bytes, 8);
  pair.gateway.host.onConnect = (stream) => {
    stream.events.connected();
    stream.send(down, () => stream.events.ended());
  };
  program.send(up);
  const finished = await pair.run(
    () => program.end !== undefined && pair.gateway.host.streams[0]?.ended === true,
  );
  const stream = pair.gateway.host.streams[0];
  const where = `up ${stream?.receivedBytes}, down ${program.receivedBytes} of ${bytes}; ${pair.lost} of ${pair.frames} lost`;
  assert.ok(finished, where);
  assert.equal(program.end, 'closed');
  assert.equal(digest(Buffer.concat(stream?.received ?? [])), digest(up), where);
  assert.equal(digest(program.bytes), digest(down), where);
  assert.deepEqual(stream?.target, { address, port: 80 });
  assert.ok(
    await pair.run(() => pair.gateway.stack.tcp.size === 0 && pair.machine.stack.tcp.size === 0, 200_000),
  );
  assertEmpty(pair.gateway);
  assertEmpty(pair.machine);
  assert.equal(pair.gateway.stack.tcp.counters.badChecksums, 0);
  return pair;
}

test('a megabyte each way', async () => {
  await transfer({}, 1_000_000);
});

test('over IPv6', async () => {
  await transfer({}, 1_000_000, '2001:db8::1');
});

test('with jumbo frames', async () => {
  await transfer({ mtu: 65_520 }, 5_000_000);
});

test('sequence numbers that wrap around', async () => {
  for (const start of [0xffffffff, 0xfffffff0, 0xffff0000, 0x7fffffff]) {
    await transfer({ random: { u32: () => start } }, 300_000);
  }
});

for (const loss of [0.01, 0.05, 0.1, 0.2, 0.3]) {
  test(`with ${loss * 100} % loss`, async () => {
    for (const seed of [11, 12, 14]) await transfer({ loss, seed }, 200_000);
  });
}

test('with reordering', async () => {
  for (const seed of [21, 22]) await transfer({ reorders: 0.3, seed }, 300_000);
});

test('with duplicates', async () => {
  for (const seed of [31, 32]) await transfer({ duplicates: 0.3, seed }, 300_000);
});

test('with everything at once, and wrapping numbers', async () => {
  for (const seed of [41, 42, 43, 44]) {
    const dice = new Dice(seed);
    await transfer(
      {
        loss: 0.05,
        duplicates: 0.1,
        reorders: 0.2,
        seed,
        mtu: 1500 + dice.below(10_000),
        random: { u32: () => 0xfffff000 + dice.below(0xfff) },
      },
      200_000,
    );
  }
});

test('without loss nothing is sent twice', async () => {
  const pair = await transfer({ delayMs: 5 }, 1_000_000);
  // 1 MB each way in 1448-byte segments, and an acknowledgement for two of them at least.
  assert.ok(pair.frames < 2 * (1_000_000 / 1448) * 1.6, `${pair.frames} frames`);
});

test('a machine that does not read stops the host, and loses nothing', async () => {
  const pair = new TwoStacks();
  const program: Program = pair.connect('192.0.2.1', 80);
  program.reads = false;
  const down = noise(12_000_000, 9);
  pair.gateway.host.onConnect = (stream) => {
    stream.events.connected();
    stream.send(down, () => stream.events.ended());
  };
  assert.equal(await pair.run(() => false, 20_000), false);
  const stream = pair.gateway.host.streams[0];
  assert.equal(stream?.paused, true);
  assert.equal(program.receivedBytes, 0);
  // Minutes later the connection is still there, kept by probes.
  assert.equal(await pair.run(() => program.end !== undefined, 600_000), false);
  program.reads = true;
  program.readable();
  program.send(new Uint8Array(0));
  assert.ok(await pair.run(() => program.end !== undefined));
  assert.equal(digest(program.bytes), digest(down));
});

test('a host that does not read closes the window of the machine, and loses nothing', async () => {
  const pair = new TwoStacks();
  const program = pair.connect('192.0.2.1', 80);
  const up = noise(12_000_000, 10);
  pair.gateway.host.onConnect = (stream) => {
    stream.reads = false;
    stream.events.connected();
  };
  program.send(up);
  assert.equal(await pair.run(() => false, 300_000), false);
  const stream = pair.gateway.host.streams[0];
  const held = program.connection?.sending.length ?? 0;
  assert.ok(held > 0, 'the machine waits');
  stream?.release();
  stream?.events.ended();
  assert.ok(await pair.run(() => program.end !== undefined && stream?.ended === true));
  assert.equal(digest(Buffer.concat(stream?.received ?? [])), digest(up));
  assertEmpty(pair.gateway);
});
