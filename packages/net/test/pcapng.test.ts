/** Captures, read by another program: tshark. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { CAPTURE_QUEUE_BYTES_MAX, Capture, LINK_TYPE_RAW } from '../src/pcapng/index.ts';

const run = promisify(execFile);

/** An ICMP echo request in Ethernet, its checksums right. */
function ping(payloadBytes: number): Buffer {
  const frame = Buffer.alloc(14 + 20 + 8 + payloadBytes, 0x61);
  frame.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
  frame.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1], 14);
  frame.writeUInt16BE(28 + payloadBytes, 16);
  frame.set([8, 0, 0, 0, 0, 1, 0, 1], 34);
  const sum = (from: number, to: number): number => {
    let total = 0;
    for (let at = from; at < to; at += 2) total += frame.readUInt16BE(at);
    while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
    return ~total & 0xffff;
  };
  frame.writeUInt16BE(sum(14, 34), 24);
  frame.writeUInt16BE(sum(34, frame.length), 36);
  return frame;
}

test('tshark reads what was captured: interfaces, nanoseconds, directions, cut packets, counts', async () => {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'arcbox-pcapng-'));
  try {
    const file = path.join(directory, 'a.pcapng');
    const frames = [ping(0), ping(2), ping(4), ping(1000)];
    {
      await using capture = new Capture(createWriteStream(file), { snapBytes: 500 });
      capture.describe({ name: 'vm1', description: 'the default machine', linkType: 1 });
      for (const [i, frame] of frames.entries()) {
        capture.frame('vm1', frame, i % 2 === 0 ? 'in' : 'out', 1_700_000_000_123_456_789n + BigInt(i));
      }
      capture.describe({ name: 'tun0', linkType: LINK_TYPE_RAW });
      capture.frame('tun0', ping(8).subarray(14), undefined, 1_700_000_001_000_000_000n);
      capture.frame('by its name alone', ping(8));
      assert.equal(capture.captured, 6);
    }
    const fields = [
      'frame.time_epoch',
      'frame.interface_name',
      'frame.len',
      'frame.cap_len',
      'frame.packet_flags_direction',
      'ip.src',
      'icmp.checksum.status',
      '_ws.malformed',
    ];
    const words = ['-r', file, '-o', 'ip.check_checksum:TRUE', '-T', 'fields', '-E', 'separator=,'];
    const { stdout } = await run('tshark', [...words, ...fields.flatMap((field) => ['-e', field])]);
    const rows = stdout.trim().split('\n');
    assert.deepEqual(rows.slice(0, 5), [
      '1700000000.123456789,vm1,42,42,0x00000001,10.0.0.2,1,',
      '1700000000.123456790,vm1,44,44,0x00000002,10.0.0.2,1,',
      '1700000000.123456791,vm1,46,46,0x00000001,10.0.0.2,1,',
      '1700000000.123456792,vm1,1042,500,0x00000002,10.0.0.2,2,',
      '1700000001.000000000,tun0,36,36,,10.0.0.2,1,',
    ]);
    assert.match(rows[5] ?? '', /^\d+\.\d{9},by its name alone,50,50,,10\.0\.0\.2,1,$/);
    const seconds = Number((rows[5] ?? '').split('.')[0]);
    assert.ok(Math.abs(seconds - Date.now() / 1000) < 60, 'the default clock is the wall clock');
    const { stdout: summary } = await run('capinfos', [file]);
    assert.match(summary, /Number of interfaces in file: 3/);
    assert.match(summary, /Capture application: ArcBox/);
    assert.match(summary, /Description = the default machine/);
    assert.match(summary, /Number of stat entries = 1/);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('a reader that does not keep up costs packets, which are counted, and no memory', async () => {
  const waiting: (() => void)[] = [];
  let bytes = 0;
  const slow = new Writable({
    write(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      waiting.push(done);
    },
  });
  const capture = new Capture(slow);
  const frame = ping(60_000);
  for (let i = 0; i < 1000; i++) capture.frame('vm', frame);
  assert.ok(slow.writableLength <= CAPTURE_QUEUE_BYTES_MAX + 1000);
  assert.ok(capture.dropped > 800);
  assert.equal(capture.captured + capture.dropped, 1000);
  const end = capture.end();
  const drain = setInterval(() => waiting.shift()?.(), 0);
  await end;
  clearInterval(drain);
  assert.ok(bytes > capture.captured * frame.length);
});

test('a stream that fails fails the end, not the packets', async () => {
  const broken = new Writable({
    write(_chunk, _encoding, done) {
      done(new Error('no space left'));
    },
  });
  const capture = new Capture(broken);
  await new Promise((resolve) => broken.once('close', resolve));
  capture.frame('vm', ping(0));
  assert.equal(capture.dropped, 1);
  await assert.rejects(capture.end(), /no space left/);
});
