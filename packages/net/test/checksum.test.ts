import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  checksum,
  finish,
  fold,
  putU16,
  putU32,
  sum16,
  swapped,
  u16,
  u32,
  updated16,
  updated32,
} from '@arcbox/net/wire';
import fc from 'fast-check';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

test('the example of RFC 1071 section 3', () => {
  const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
  assert.equal(fold(sum16(bytes, 0, 8)), 0xddf2);
  assert.equal(checksum(bytes, 0, 8), 0xffff & ~0xddf2);
});

test('a packet with its checksum in it sums to zero, and one with a flipped bit does not', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 4, maxLength: 200 }), fc.nat(), (bytes, bit) => {
      putU16(bytes, 2, 0);
      putU16(bytes, 2, checksum(bytes, 0, bytes.length));
      assert.equal(checksum(bytes, 0, bytes.length), 0);
      const at = (bit >>> 3) % bytes.length;
      bytes[at] = (bytes[at] as number) ^ (1 << (bit & 7));
      assert.notEqual(checksum(bytes, 0, bytes.length), 0);
    }),
    { seed: SEED },
  );
});

test('parts can be summed apart, wherever they are cut', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(300), (bytes, where) => {
      const cut = Math.min(where, bytes.length);
      const first = sum16(bytes, 0, cut);
      const second = sum16(bytes, cut, bytes.length);
      const sum = first + (cut % 2 === 0 ? second : swapped(second));
      assert.equal(finish(sum), checksum(bytes, 0, bytes.length));
    }),
    { seed: SEED },
  );
});

test('an incremental update equals a recomputation', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 12, maxLength: 60 }),
      fc.nat(0xffff),
      fc.integer({ min: 0, max: 0xffffffff }),
      (bytes, word, address) => {
        // The checksum is at 0, a word that is never all zero keeps the one's complement zero unambiguous.
        bytes[2] = 1;
        const seal = (): void => {
          putU16(bytes, 0, 0);
          putU16(bytes, 0, checksum(bytes, 0, bytes.length));
        };
        seal();
        const narrow = updated16(u16(bytes, 0), u16(bytes, 4), word);
        putU16(bytes, 4, word);
        seal();
        assert.equal(narrow, u16(bytes, 0));
        const wide = updated32(u16(bytes, 0), u32(bytes, 6), address);
        putU32(bytes, 6, address);
        seal();
        assert.equal(wide, u16(bytes, 0));
      },
    ),
    { seed: SEED },
  );
});

test('the example of RFC 1624 section 4, where RFC 1141 gives the wrong zero', () => {
  assert.equal(updated16(0xdd2f, 0x5555, 0x3285), 0x0000);
});
