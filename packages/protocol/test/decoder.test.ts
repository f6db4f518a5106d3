/** Properties of the decoders: seeded, so that a failure can be repeated. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { decodeAttachFrame, encodeChunkHead, encodeCredit, encodeOpen } from '../src/attach-codec.ts';
import { encodeFrame, FrameDecoder } from '../src/frame.ts';
import { ResponseSchema } from '../src/gen/ttrpc/ttrpc_pb.ts';
import { HelloScanner } from '../src/hello.ts';
import { AttachFrameSchema, HelloResponseSchema, ProtocolError } from '../src/index.ts';

const RUNS = { seed: 20261122, numRuns: 300 } as const;

const frame = fc.record({
  streamId: fc.integer({ min: 0, max: 0xffffffff }),
  type: fc.integer({ min: 1, max: 3 }),
  flags: fc.integer({ min: 0, max: 7 }),
  // Around the size of a header, of a piece, and of the buffer that is kept.
  data: fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.integer({ min: 0, max: 200_000 }).map((bytes) => new Uint8Array(bytes).fill(bytes)),
  ),
});

function cut(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (let index = 0; at < bytes.length; index++) {
    const size = Math.max(1, sizes[index % sizes.length] ?? 1);
    pieces.push(bytes.subarray(at, at + size));
    at += size;
  }
  return pieces;
}

test('frames decode alike however the bytes are cut', () => {
  const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 70_000 })), {
    minLength: 1,
    maxLength: 6,
  });
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 8 }), sizes, (frames, pieceSizes) => {
      const bytes = Buffer.concat(
        frames.map(({ streamId, type, flags, data }) => encodeFrame(streamId, type, flags, data)),
      );
      // Tiny pieces only for what is not large: the test has to end.
      const pieces = cut(bytes, bytes.length > 50_000 ? pieceSizes.map((size) => size + 500) : pieceSizes);
      const seen: unknown[] = [];
      const decoder = new FrameDecoder((streamId, type, flags, data) => {
        seen.push({ streamId, type, flags, data: new Uint8Array(data) });
      });
      for (const piece of pieces) decoder.push(piece);
      assert.ok(decoder.atBoundary);
      assert.deepEqual(
        seen,
        frames.map(({ streamId, type, flags, data }) => ({
          streamId,
          type,
          flags,
          data: new Uint8Array(data),
        })),
      );
    }),
    RUNS,
  );
});

test('random bytes give frames, or an error, and never anything else', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 20 }), (pieces) => {
      let bytes = 0;
      const decoder = new FrameDecoder((_streamId, _type, _flags, data) => {
        bytes += data.length;
      });
      try {
        for (const piece of pieces) decoder.push(piece);
      } catch (error) {
        assert.ok(error instanceof ProtocolError && error.code === 'ERR_ARCBOX_AGENT_PROTOCOL');
      }
      assert.ok(bytes <= 64 * 20);
    }),
    { ...RUNS, numRuns: 2000 },
  );
});

test('a decoder that was stopped within a piece hands out nothing more', () => {
  const bytes = Buffer.concat([1, 3, 5].map((streamId) => encodeFrame(streamId, 3, 0, new Uint8Array(4))));
  const seen: number[] = [];
  const decoder = new FrameDecoder((streamId) => {
    seen.push(streamId);
    if (streamId === 3) decoder.stop();
  });
  decoder.push(bytes);
  decoder.push(bytes);
  assert.deepEqual(seen, [1, 3]);
});

const offset = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.maxSafeNat());
const channel = fc.integer({ min: 0, max: 0xffffffff });

test('stream messages encode as the generated code decodes them', () => {
  const chunk = fc.record({ channel, offset, eof: fc.boolean(), data: fc.uint8Array({ maxLength: 300 }) });
  fc.assert(
    fc.property(chunk, ({ channel, offset, eof, data }) => {
      const bytes = Buffer.concat([encodeChunkHead(channel, offset, eof, data.length), data]);
      const { frame } = fromBinary(AttachFrameSchema, bytes);
      assert.ok(frame.case === 'chunk');
      const { value } = frame;
      assert.deepEqual(
        [value.channel, value.offset, value.eof, Buffer.from(value.data)],
        [channel, BigInt(offset), eof, Buffer.from(data)],
      );
    }),
    RUNS,
  );
  fc.assert(
    fc.property(channel, offset, offset, (channel, acked, limit) => {
      const { frame } = fromBinary(AttachFrameSchema, encodeCredit(channel, acked, limit));
      assert.ok(frame.case === 'credit');
      const { value } = frame;
      assert.deepEqual([value.channel, value.acked, value.limit], [channel, BigInt(acked), BigInt(limit)]);
    }),
    RUNS,
  );
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), offset, offset, (id, acked, limit) => {
      const { frame } = fromBinary(
        AttachFrameSchema,
        encodeOpen(id, { acked, limit }, { acked: limit, limit: acked }),
      );
      assert.ok(frame.case === 'open');
      assert.equal(frame.value.id, id.toWellFormed());
      assert.equal(frame.value.output?.acked, BigInt(acked));
      assert.equal(frame.value.error?.acked, BigInt(limit));
    }),
    RUNS,
  );
});

test('stream messages decode as the generated code encodes them, unknown fields included', () => {
  const message = fc.oneof(
    fc
      .record({ channel, offset, eof: fc.boolean(), data: fc.uint8Array({ maxLength: 300 }) })
      .map((value) => ({
        case: 'chunk' as const,
        value: { ...value, offset: BigInt(value.offset) },
      })),
    fc.record({ channel, acked: offset, limit: offset }).map(({ channel, acked, limit }) => ({
      case: 'credit' as const,
      value: { channel, acked: BigInt(acked), limit: BigInt(limit) },
    })),
    fc.record({ id: fc.string({ unit: 'grapheme' }), acked: offset }).map(({ id, acked }) => ({
      case: 'open' as const,
      value: { id: id.toWellFormed(), output: { channel: 1, acked: BigInt(acked) } },
    })),
  );
  // A varint, a fixed64, a fixed32 and a string with field numbers that we do not know.
  const unknown = Buffer.from(
    'f80601f10601020304050607 08f506010203 04fa06036162 63'.replaceAll(' ', ''),
    'hex',
  );
  fc.assert(
    fc.property(message, fc.boolean(), (frame, more) => {
      const bytes = toBinary(AttachFrameSchema, create(AttachFrameSchema, { frame }));
      const decoded = decodeAttachFrame(more ? Buffer.concat([unknown, bytes, unknown]) : bytes);
      assert.equal(decoded.kind, frame.case);
      if (decoded.kind === 'chunk' && frame.case === 'chunk') {
        const { channel, offset, eof, data } = frame.value;
        assert.deepEqual(
          [decoded.channel, BigInt(decoded.offset), decoded.eof, Buffer.from(decoded.data)],
          [channel, offset, eof, Buffer.from(data)],
        );
      } else if (decoded.kind === 'credit' && frame.case === 'credit') {
        const { channel, acked, limit } = frame.value;
        assert.deepEqual(
          [decoded.channel, BigInt(decoded.acked), BigInt(decoded.limit)],
          [channel, acked, limit],
        );
      } else if (decoded.kind === 'open' && frame.case === 'open') {
        assert.equal(decoded.id, frame.value.id);
        assert.equal(BigInt(decoded.output?.acked ?? -1), frame.value.output.acked);
        assert.equal(decoded.error, undefined);
      }
    }),
    RUNS,
  );
});

test('random stream messages decode, or are refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        decodeAttachFrame(bytes);
      } catch (error) {
        assert.ok(
          error instanceof ProtocolError && error.code === 'ERR_ARCBOX_AGENT_PROTOCOL',
          String(error),
        );
      }
    }),
    { ...RUNS, numRuns: 5000 },
  );
});

test('the answer to Hello is found behind anything, however it is cut', () => {
  const nonce = new Uint8Array(16).map((_, index) => index + 1);
  const answer = (payloadNonce: Uint8Array): Uint8Array => {
    const hello = create(HelloResponseSchema, {
      nonce: payloadNonce,
      protocolVersion: 1,
      epoch: 7n,
      agentVersion: '0.1',
      kernelRelease: '6.1',
      isInit: true,
    });
    const payload = toBinary(HelloResponseSchema, hello);
    return encodeFrame(1, 2, 0, toBinary(ResponseSchema, create(ResponseSchema, { payload })));
  };
  const ours = answer(nonce);
  const other = answer(new Uint8Array(16).fill(9));
  const before = fc.array(
    fc.oneof(
      fc.uint8Array({ maxLength: 50 }),
      fc.integer({ min: 0, max: other.length }).map((bytes) => other.subarray(0, bytes)),
      // Our own answer, cut off: the agent was interrupted while it sent it, and said it again.
      fc.integer({ min: 0, max: 30 }).map((bytes) => ours.subarray(0, bytes)),
    ),
    { maxLength: 5 },
  );
  const after = fc.uint8Array({ maxLength: 40 });
  const sizes = fc.array(fc.integer({ min: 1, max: 80 }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(before, after, sizes, (garbage, rest, pieceSizes) => {
      const scanner = new HelloScanner(1, nonce);
      const lead = Buffer.concat(garbage);
      const bytes = Buffer.concat([lead, ours, rest]);
      let fed = 0;
      for (const piece of cut(bytes, pieceSizes)) {
        fed += piece.length;
        const found = scanner.push(piece);
        if (found === undefined) continue;
        assert.equal(found.hello.epoch, 7n);
        assert.equal(scanner.skippedBytes, lead.length);
        assert.deepEqual(Buffer.from(found.rest), bytes.subarray(lead.length + ours.length, fed));
        return;
      }
      assert.fail('the answer was not found');
    }),
    { ...RUNS, numRuns: 1000 },
  );
});
