/** Acknowledgements wait a little for company (RFC 9293 section 3.8.6.3): 40 ms, or until there are two segments of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TCP_DELAYED_ACK_MS } from '../src/limits.ts';
import { TCP_ACK, TCP_FIN } from '../src/wire/tcp.ts';
import { Lab } from './support/lab.ts';
import { Peer } from './support/peer.ts';

const MSS = [2, 4, 0x05, 0xb4];
const TIMESTAMPS = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0];
const MSS_BYTES = 1460;

test('one small segment is acknowledged after 40 ms, not before and not twice', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  await peer.open();
  peer.data('one');
  assert.deepEqual(peer.take(), []);
  lab.pass(TCP_DELAYED_ACK_MS - 1);
  assert.deepEqual(peer.take(), []);
  lab.pass(1);
  const acks = peer.take();
  assert.deepEqual(
    acks.map(({ flags, ack, data }) => ({ flags, ack, bytes: data.length })),
    [{ flags: TCP_ACK, ack: peer.sequence, bytes: 0 }],
  );
  lab.pass(10 * TCP_DELAYED_ACK_MS);
  assert.deepEqual(peer.take(), []);
});

test('the second segment is acknowledged at once, and both with it', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  await peer.open();
  for (let pair = 0; pair < 3; pair += 1) {
    peer.data('first');
    assert.deepEqual(peer.take(), []);
    peer.data('second');
    assert.deepEqual(
      peer.take().map(({ ack }) => ack),
      [peer.sequence],
    );
  }
  lab.pass(10 * TCP_DELAYED_ACK_MS);
  assert.deepEqual(peer.take(), [], 'no timer is left over');
});

test('of full segments every second one at least is acknowledged at once', async () => {
  // With timestamps a full segment holds less than the MSS says.
  for (const options of [[], TIMESTAMPS]) {
    const bytes = MSS_BYTES - options.length;
    const lab = new Lab();
    const peer = new Peer(lab);
    await peer.open([...MSS, ...options]);
    const from = peer.sequence;
    for (let segment = 1; segment <= 6; segment += 1) {
      peer.send({ data: new Uint8Array(bytes), options });
      peer.sequence += bytes;
      const last = peer.take().at(-1)?.ack;
      if (segment % 2 === 0) assert.equal(last, from + segment * bytes);
      else assert.ok(last === undefined || last === from + segment * bytes);
    }
  }
});

test('what goes to the machine meanwhile carries the acknowledgement, and none follows', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  peer.data('question');
  stream.send(Buffer.from('answer'));
  const [segment, ...rest] = peer.take();
  assert.deepEqual(rest, []);
  assert.equal(Buffer.from(segment?.data ?? []).toString(), 'answer');
  assert.equal(segment?.ack, peer.sequence);
  peer.ack += 'answer'.length;
  peer.send();
  lab.pass(10 * TCP_DELAYED_ACK_MS);
  assert.deepEqual(peer.take(), []);
});

test('a gap, what fills it, and the end are acknowledged at once', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  await peer.open();
  const begin = peer.sequence;
  const bytes = Buffer.from('tail');
  peer.send({ data: bytes, sequence: begin + 4 });
  assert.deepEqual(
    peer.take().map(({ ack }) => ack),
    [begin],
    'a duplicate acknowledgement, which says what is missing',
  );
  peer.data('head');
  peer.sequence = begin + 8;
  assert.deepEqual(
    peer.take().map(({ ack }) => ack),
    [peer.sequence],
  );
  peer.send({ flags: TCP_ACK | TCP_FIN });
  assert.equal(peer.take().at(-1)?.ack, peer.sequence + 1);
});
