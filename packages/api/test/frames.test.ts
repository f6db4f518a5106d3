import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ApiError } from '../src/errors.ts';
import { CONTROL_FRAME_BYTES_MAX, FRAME_BYTES_MAX } from '../src/limits.ts';
import {
  FrameDecoder,
  FrameType,
  frame,
  frameHeader,
  jsonFrame,
  numbersFrame,
  readNumbers,
} from '../src/stdio/frames.ts';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

const DATA: readonly number[] = [FrameType.stdin, FrameType.stdout, FrameType.stderr];

/** Frames as a receiver sees them: pieces of data frames put together. */
function decode(bytes: Buffer, cuts: readonly number[]): { type: number; payload: string }[] {
  const frames: { type: number; payload: string }[] = [];
  const decoder = new FrameDecoder((type, payload) => {
    const last = frames.at(-1);
    if (last !== undefined && last.type === type && DATA.includes(type)) {
      last.payload += payload.toString('latin1');
    } else {
      frames.push({ type, payload: payload.toString('latin1') });
    }
  });
  const positions = [...new Set([0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort(
    (a, b) => a - b,
  );
  for (const [index, to] of positions.slice(1).entries()) decoder.push(bytes.subarray(positions[index], to));
  assert.ok(decoder.atBoundary);
  return frames;
}

test('however the bytes are cut, the frames come out', () => {
  const any = fc.record({
    type: fc.constantFrom(...Object.values(FrameType)),
    payload: fc.uint8Array({ maxLength: 100 }),
  });
  fc.assert(
    fc.property(fc.array(any, { maxLength: 20 }), fc.array(fc.nat(), { maxLength: 30 }), (frames, cuts) => {
      const bytes = Buffer.concat(frames.map(({ type, payload }) => frame(type, payload)));
      assert.deepEqual(decode(bytes, cuts), decode(bytes, []));
      const total = frames.reduce((sum, { payload }) => sum + payload.length, 0);
      assert.equal(
        decode(bytes, cuts).reduce((sum, { payload }) => sum + payload.length, 0),
        total,
      );
    }),
    { seed: SEED },
  );
});

test('numbers and JSON come through', () => {
  const seen: [number, Buffer][] = [];
  const decoder = new FrameDecoder((type, payload) => seen.push([type, payload]));
  decoder.push(numbersFrame(FrameType.cursor, 8, 2 ** 40 + 7));
  decoder.push(numbersFrame(FrameType.resize, 4, 24, 80));
  decoder.push(jsonFrame(FrameType.exit, { exitCode: 3, error: '' }));
  assert.deepEqual(readNumbers(seen[0]?.[1] ?? Buffer.alloc(0), 8, 1), [2 ** 40 + 7]);
  assert.deepEqual(readNumbers(seen[1]?.[1] ?? Buffer.alloc(0), 4, 2), [24, 80]);
  assert.equal(seen[2]?.[1].toString(), '{"exitCode":3,"error":""}');
  assert.throws(() => readNumbers(Buffer.alloc(3), 4, 1), /a frame of 4 bytes has 3/);
});

test('a frame that cannot be is refused before anything is allocated for it', () => {
  const refused = (bytes: Buffer): void =>
    assert.throws(
      () => new FrameDecoder(() => {}).push(bytes),
      (error) => error instanceof ApiError && error.code === 'ERR_ARCBOX_STREAM_PROTOCOL',
    );
  refused(frameHeader(FrameType.stdout, FRAME_BYTES_MAX + 1));
  refused(frameHeader(FrameType.exit, CONTROL_FRAME_BYTES_MAX + 1));
  refused(Buffer.from('GET / HTTP/1.1\r\n'));
});
