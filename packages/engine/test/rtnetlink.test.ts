import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import {
  decodeErrors,
  deleteLink,
  encodeRequest,
  linkIndexes,
  newAddress,
  newVlan,
  noLinkLocal,
} from '../src/network/rtnetlink.ts';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

/** An answer to message `sequence`: struct nlmsgerr with this errno. */
function acknowledgement(sequence: number, errno: number): Buffer {
  const message = Buffer.alloc(36);
  message.writeUInt32LE(36, 0);
  message.writeUInt16LE(2, 4);
  message.writeUInt32LE(sequence, 8);
  message.writeInt32LE(-errno, 16);
  return message;
}

it('messages are laid out as rtnetlink(7) says', () => {
  const request = encodeRequest([
    deleteLink(7),
    newVlan({ index: 9, name: 'v5', parent: 2, id: 5, master: 8 }),
  ]);
  assert.equal(request.readUInt32LE(0), 32);
  assert.equal(request.readUInt16LE(4), 17);
  assert.equal(request.readUInt16LE(6), 5);
  assert.equal(request.readUInt32LE(8), 1);
  assert.equal(request.readInt32LE(20), 7);
  const second = request.subarray(32);
  assert.equal(second.readUInt32LE(0), second.length);
  assert.equal(second.readUInt16LE(6), 0x605);
  assert.equal(second.readUInt32LE(8), 2);
  // struct ifinfomsg: the index, up.
  assert.deepEqual([second.readInt32LE(20), second.readUInt32LE(24), second.readUInt32LE(28)], [9, 1, 1]);
  // The first attribute: IFLA_IFNAME, five bytes of header and "v5\0" padded to eight.
  assert.deepEqual(
    [second.readUInt16LE(32), second.readUInt16LE(34), second.toString('latin1', 36, 40)],
    [7, 3, 'v5\0\0'],
  );
});

it('a link without an address of its own making: attributes in the one of its family, in that of families', () => {
  const { type, payload } = noLinkLocal(7);
  assert.equal(type, 19);
  assert.deepEqual([payload.readInt32LE(4), payload.readUInt32LE(8), payload.readUInt32LE(12)], [7, 0, 0]);
  // IFLA_AF_SPEC, AF_INET6, IFLA_INET6_ADDR_GEN_MODE with one byte, padded to four.
  const attributes = Array.from({ length: 3 }, (_, at) => [16 + 4 * at, 18 + 4 * at]);
  assert.deepEqual(
    attributes.map(([length = 0, kind = 0]) => [
      payload.readUInt16LE(length),
      payload.readUInt16LE(kind) & 0x7fff,
    ]),
    [
      [16, 26],
      [12, 10],
      [5, 8],
    ],
  );
  assert.deepEqual([...payload.subarray(28)], [1, 0, 0, 0]);
});

it('an IPv4 address has its broadcast address, and an IPv6 one needs no detection', () => {
  const v4 = newAddress(2, Buffer.from([10, 1, 2, 3]), 20).payload;
  assert.deepEqual([v4[0], v4[1], v4.readUInt32LE(4)], [2, 20, 2]);
  assert.deepEqual([...v4.subarray(-4)], [10, 1, 15, 255]);
  const v6 = newAddress(2, Buffer.alloc(16, 1), 64).payload;
  assert.deepEqual([v6[0], v6.readUInt32LE(v6.length - 4)], [10, 2]);
});

it('each message has its answer', () => {
  const answer = Buffer.concat([acknowledgement(1, 0), acknowledgement(3, 17), acknowledgement(9, 1)]);
  assert.deepEqual(decodeErrors(answer, 3), [0, undefined, 17]);
});

it('whatever a guest answers is walked to its end', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(3), (bytes, at) => {
      const answer = Buffer.concat([acknowledgement(1, at), Buffer.from(bytes)]);
      assert.equal(decodeErrors(answer, 1).length, 1);
      linkIndexes(answer);
    }),
    { seed: SEED },
  );
});
