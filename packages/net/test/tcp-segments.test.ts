/** TCP segment by segment, against a peer made by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TCP_EMBRYONIC_MAX } from '../src/limits.ts';
import { TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN } from '../src/wire/tcp.ts';
import { parse, tcp } from './support/frames.ts';
import { Lab } from './support/lab.ts';
import { Peer, settle } from './support/peer.ts';

const SCALED = [2, 4, 0x05, 0xb4, 1, 3, 3, 7];
const SACK_OK = [2, 4, 0x05, 0xb4, 1, 1, 4, 2];
const timestamps = (value: number, echo = 0): number[] => [
  ...[1, 1, 8, 10],
  ...[value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255],
  ...[echo >>> 24, (echo >>> 16) & 255, (echo >>> 8) & 255, echo & 255],
];

test('the handshake waits for the dial, and offers what was offered', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  let connect = (): void => {};
  lab.host.onConnect = (stream) => {
    connect = () => stream.events.connected();
  };
  peer.syn([2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7]);
  await settle();
  assert.deepEqual(peer.take(), [], 'nothing before the host has answered');
  assert.deepEqual(lab.host.streams[0]?.target, { address: '192.0.2.1', port: 80 });
  connect();
  const [answer, ...rest] = peer.take();
  assert.deepEqual(rest, []);
  assert.equal(answer?.flags, TCP_SYN | TCP_ACK);
  assert.equal(answer?.ack, 1001);
  assert.deepEqual([...(answer?.options ?? [])].slice(0, 8), [2, 4, 0x05, 0xb4, 4, 2, 8, 10]);
  assert.deepEqual([...(answer?.options ?? [])].slice(12, 16), [0, 0, 0, 9], 'the timestamp is echoed');
  assert.deepEqual([...(answer?.options ?? [])].slice(16), [1, 3, 3, 7]);
});

test('what is not offered is not used', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  peer.syn([]);
  await settle();
  assert.deepEqual([...(peer.take()[0]?.options ?? [])], [2, 4, 0x05, 0xb4], 'the MSS only');
});

test('an absurdly small MSS does not make a segment of every byte', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open([2, 4, 0, 1]);
  stream.send(new Uint8Array(480));
  assert.equal(peer.take().length, 10);
});

test('a SYN that comes again is answered again, by the same number, and dials once', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  peer.syn();
  peer.syn();
  await settle();
  const [first] = peer.take();
  peer.syn();
  const [second] = peer.take();
  assert.equal(second?.flags, TCP_SYN | TCP_ACK);
  assert.equal(second?.sequence, first?.sequence);
  assert.equal(lab.host.streams.length, 1);
});

test('nobody listens: the machine gets a reset that belongs to its SYN', async () => {
  const lab = new Lab();
  lab.host.onConnect = (stream) => stream.events.failed('ECONNREFUSED');
  const peer = new Peer(lab);
  peer.syn();
  await settle();
  const [answer] = peer.take();
  assert.equal(answer?.flags, TCP_RST | TCP_ACK);
  assert.equal(answer?.ack, 1001);
  assert.equal(answer?.sequence, 0);
  assert.equal(lab.stack.tcp.size, 0);
});

test('nobody is there: an ICMP error that quotes the SYN, and a reset', async () => {
  const lab = new Lab();
  lab.host.onConnect = (stream) => stream.events.failed('EHOSTUNREACH');
  const peer = new Peer(lab);
  peer.syn();
  await settle();
  const [error, reset] = lab.take().map(parse);
  assert.equal(error?.protocol, 1);
  assert.deepEqual([...(error?.data.subarray(0, 2) ?? [])], [3, 1], 'host unreachable');
  // The quote: an IPv4 header and the first eight bytes of the segment.
  const quote = error?.data.subarray(8) ?? new Uint8Array(0);
  assert.deepEqual([...quote.subarray(12, 24)], [10, 0, 0, 2, 192, 0, 2, 1, 0x9c, 0x40, 0, 80]);
  assert.equal(reset?.flags, TCP_RST | TCP_ACK);
});

test('the policy is asked once, and what it denies is prohibited', async () => {
  const asked: string[] = [];
  const lab = new Lab({
    network: {
      policy: async (flow) => {
        asked.push(
          `${flow.protocol} ${flow.source}:${flow.sourcePort} ${flow.destination}:${flow.destinationPort}`,
        );
        return { action: 'deny' };
      },
    },
  });
  const peer = new Peer(lab);
  peer.syn();
  peer.syn();
  await settle();
  const [error] = lab.take().map(parse);
  assert.deepEqual([...(error?.data.subarray(0, 2) ?? [])], [3, 13], 'prohibited');
  assert.deepEqual(asked, ['tcp 10.0.0.2:40000 192.0.2.1:80']);
  assert.equal(lab.host.streams.length, 0);
  assert.equal(lab.stack.counters.denied, 1);
  assert.equal(lab.stack.tcp.size, 0);
});

test('a policy that throws denies; one that redirects is followed', async () => {
  const broken = new Lab({
    network: {
      policy: () => {
        throw new Error('a mistake');
      },
    },
  });
  new Peer(broken).syn();
  await settle();
  assert.equal(broken.host.streams.length, 0);
  const lab = new Lab({
    network: { policy: () => ({ action: 'redirect', address: '127.0.0.1', port: 8080 }) },
  });
  await new Peer(lab).open();
  assert.deepEqual(lab.host.streams[0]?.target, { address: '127.0.0.1', port: 8080 });
});

test('the host’s addresses lead to its loopback, in both families', async () => {
  const lab = new Lab();
  await new Peer(lab, 1, 1, 80, { to: '10.0.0.254' }).open();
  await new Peer(lab, 1, 2, 80, { from: 'fd00::2', to: 'fd00::fe' }).open();
  assert.deepEqual(
    lab.host.streams.map(({ target }) => target.address),
    ['127.0.0.1', '::1'],
  );
});

test('a segment of no connection is reset by the rules, a reset is not', () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  peer.send({ flags: TCP_ACK, ack: 77 });
  assert.deepEqual(
    peer.take().map(({ flags, sequence }) => ({ flags, sequence })),
    [{ flags: TCP_RST, sequence: 77 }],
  );
  peer.send({ flags: TCP_FIN, data: Buffer.from('abc') });
  assert.deepEqual(
    peer.take().map(({ flags, sequence, ack }) => ({ flags, sequence, ack })),
    [{ flags: TCP_RST | TCP_ACK, sequence: 0, ack: 1004 }],
  );
  peer.send({ flags: TCP_RST });
  assert.deepEqual(peer.take(), []);
});

test('data goes to the host, is acknowledged, and comes back', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  peer.data('hello');
  assert.equal(stream.text, 'hello');
  assert.deepEqual(peer.take(), [], 'a small segment may wait');
  lab.pass(50);
  assert.equal(peer.take()[0]?.ack, peer.sequence, 'but not long');
  stream.send(Buffer.from('world'));
  const [answer] = peer.take();
  assert.equal(Buffer.from(answer?.data ?? []).toString(), 'world');
  assert.equal(answer?.flags, TCP_ACK | TCP_PSH);
});

test('half-close: the machine first', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  peer.data('bye', TCP_ACK | TCP_FIN);
  peer.sequence += 1;
  assert.equal(stream.text, 'bye');
  assert.equal(stream.ended, true);
  assert.equal(peer.take()[0]?.ack, peer.sequence);
  stream.send(Buffer.from('still here'));
  const [data] = peer.take();
  assert.equal(Buffer.from(data?.data ?? []).toString(), 'still here');
  stream.events.ended();
  const [fin] = peer.take();
  assert.equal(fin?.flags, TCP_ACK | TCP_FIN);
  peer.ack = ((fin?.sequence ?? 0) + 1) >>> 0;
  peer.send();
  assert.equal(lab.stack.tcp.size, 0);
});

test('half-close: the host first, then TIME_WAIT, which a new SYN may end', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  stream.events.ended();
  const [fin] = peer.take();
  assert.equal(fin?.flags, TCP_ACK | TCP_FIN);
  peer.ack += 1;
  peer.send();
  peer.data('more');
  assert.equal(stream.text, 'more', 'the other half is open');
  peer.send({ flags: TCP_ACK | TCP_FIN });
  peer.sequence += 1;
  assert.equal(stream.ended, true);
  assert.equal(peer.take().at(-1)?.ack, peer.sequence);
  assert.equal(lab.stack.tcp.size, 1, 'TIME_WAIT');
  peer.send({ flags: TCP_ACK | TCP_FIN, sequence: peer.sequence - 1 });
  assert.equal(peer.take().at(-1)?.ack, peer.sequence, 'a FIN that comes again is acknowledged again');
  const again = new Peer(lab, peer.sequence + 1000);
  await again.open();
  assert.equal(lab.host.streams.length, 2);
  lab.pass(40_000);
  assert.equal(lab.stack.tcp.size, 1, 'the new one');
});

test('a reset counts only with the right number (RFC 5961)', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  peer.send({ flags: TCP_RST, sequence: peer.sequence + 100 });
  assert.deepEqual(
    peer.take().map(({ flags, ack }) => ({ flags, ack })),
    [{ flags: TCP_ACK, ack: peer.sequence }],
    'a challenge',
  );
  peer.send({ flags: TCP_RST, sequence: (peer.sequence + 0x10000000) >>> 0 });
  assert.deepEqual(peer.take(), [], 'outside of the window: nothing');
  assert.equal(stream.destroyed, 'no');
  peer.send({ flags: TCP_RST });
  assert.equal(stream.destroyed, 'reset');
  assert.equal(lab.stack.tcp.size, 0);
});

test('a SYN within a connection is challenged, and challenges are rationed', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  await peer.open();
  for (let i = 0; i < 500; i += 1) peer.send({ flags: TCP_SYN, sequence: peer.sequence + 5 });
  const challenges = peer.take();
  assert.ok(challenges.length > 0 && challenges.length <= 100, `${challenges.length} challenges`);
  assert.equal(lab.stack.tcp.size, 1);
});

test('an acknowledgement of what was never sent does nothing but be answered', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  peer.send({ ack: peer.ack + 5000, data: Buffer.from('forged') });
  assert.equal(stream.text, '');
  assert.equal(peer.take()[0]?.ack, peer.sequence);
});

test('out of order: kept, reported with SACK, delivered when the gap is filled', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open(SACK_OK);
  const start = peer.sequence;
  peer.send({ sequence: start + 3, data: Buffer.from('def') });
  const [first] = peer.take();
  assert.equal(first?.ack, start);
  const sack = Buffer.from(first?.options ?? []);
  assert.deepEqual([...sack.subarray(0, 4)], [1, 1, 5, 10]);
  assert.deepEqual([sack.readUInt32BE(4), sack.readUInt32BE(8)], [start + 3, start + 6]);
  peer.send({ sequence: start + 9, data: Buffer.from('jkl') });
  const [second] = peer.take();
  assert.equal(Buffer.from(second?.options ?? []).readUInt32BE(4), start + 9, 'the latest first');
  peer.send({ sequence: start, data: Buffer.from('abcd') });
  assert.equal(stream.text, 'abcdef');
  peer.send({ sequence: start + 5, data: Buffer.from('fghi') });
  assert.equal(stream.text, 'abcdefghijkl');
  assert.equal(peer.take().at(-1)?.ack, start + 12);
  assert.equal(lab.arena.freeChunks, lab.arena.chunksTotal);
});

test('a FIN that comes before the data it follows waits', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  const start = peer.sequence;
  peer.send({ sequence: start + 3, data: Buffer.from('def'), flags: TCP_ACK | TCP_FIN });
  assert.equal(stream.ended, false);
  peer.send({ sequence: start, data: Buffer.from('abc') });
  assert.equal(stream.text, 'abcdef');
  assert.equal(stream.ended, true);
  assert.equal(peer.take().at(-1)?.ack, start + 7);
});

test('data beyond the window is cut off', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  stream.reads = false;
  const block = new Uint8Array(1460).fill(7);
  let acknowledged = peer.sequence;
  for (let i = 0; i < 100; i += 1) peer.data(block);
  for (const { ack, window } of peer.take()) acknowledged = ack + window;
  peer.send({ sequence: acknowledged + 1, data: block });
  assert.equal(peer.take().at(-1)?.window !== undefined, true);
  stream.release();
  assert.ok(stream.receivedBytes <= acknowledged - 1001, 'no more than was offered');
});

test('a closed window is probed, for ever, and opens', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  peer.window = 0;
  peer.send();
  stream.send(Buffer.from('waiting'));
  assert.deepEqual(peer.take(), []);
  let probes = 0;
  for (let i = 0; i < 40; i += 1) {
    lab.pass(30_000);
    for (const { sequence, data } of peer.take()) {
      assert.equal(data.length, 0);
      assert.equal(sequence, peer.ack - 1, 'an old number, which asks for an answer');
      probes += 1;
      peer.send();
    }
  }
  assert.ok(probes > 10, `${probes} probes`);
  peer.window = 100;
  peer.send();
  assert.equal(Buffer.from(peer.take()[0]?.data ?? []).toString(), 'waiting');
});

test('a tiny window gets no crumbs while something is on its way', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  peer.window = 1000;
  peer.send();
  stream.send(new Uint8Array(10_000));
  const first = peer.take();
  assert.deepEqual(
    first.map(({ data }) => data.length),
    [1000],
  );
  peer.ack += 1000;
  peer.send();
  assert.equal(peer.take()[0]?.data.length, 1000);
});

test('a window announced before a larger one does not shrink it (old acknowledgements)', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open(SCALED);
  stream.send(new Uint8Array(1460));
  peer.take();
  const old = peer.ack;
  peer.ack += 1460;
  peer.window = 1000;
  peer.send();
  peer.window = 0;
  peer.send({ ack: old });
  stream.send(new Uint8Array(1460));
  assert.equal(peer.take()[0]?.data.length, 1460);
});

test('lost: again after the timeout, later each time, and given up in the end', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  stream.send(Buffer.from('lost'));
  const times: number[] = [];
  for (let i = 0; i < 100_000 && lab.stack.tcp.size > 0; i += 1) {
    lab.pass(10);
    for (const { flags } of peer.take()) {
      times.push(lab.time.ms);
      if (flags & TCP_RST) assert.equal(stream.destroyed, 'reset');
    }
    if (lab.wheel.nextMs() > lab.time.ms + 20) lab.pass(lab.wheel.nextMs() - lab.time.ms - 10);
  }
  assert.equal(lab.stack.tcp.size, 0);
  assert.equal(stream.destroyed, 'reset');
  const gaps = times.slice(1).map((time, i) => time - (times[i] ?? 0));
  assert.ok(gaps.length >= 12, `${gaps}`);
  for (let i = 1; i < 6; i += 1) assert.ok((gaps[i] ?? 0) > (gaps[i - 1] ?? 0) * 1.5, `${gaps}`);
  assert.ok(Math.max(...gaps) <= 60_100, `${gaps}`);
});

test('three duplicate acknowledgements bring back what was lost, before any timeout', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  stream.send(new Uint8Array(1460 * 6));
  const sent = peer.take();
  assert.equal(sent.length, 6);
  for (let i = 0; i < 3; i += 1) peer.send();
  const again = peer.take();
  assert.equal(again[0]?.sequence, sent[0]?.sequence);
  assert.equal(again.length, 1);
});

test('with SACK only the holes are sent again', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open(SACK_OK);
  stream.send(new Uint8Array(1460 * 8));
  const sent = peer.take();
  const at = (i: number): number => sent[i]?.sequence ?? 0;
  const bytes = (value: number): number[] => [
    value >>> 24,
    (value >>> 16) & 255,
    (value >>> 8) & 255,
    value & 255,
  ];
  // The second and the fourth are missing.
  peer.ack = at(1);
  peer.send();
  for (const end of [5, 6, 7]) {
    peer.send({
      options: [1, 1, 5, 18, ...bytes(at(4)), ...bytes(at(end)), ...bytes(at(2)), ...bytes(at(3))],
    });
  }
  assert.deepEqual(
    peer.take().map(({ sequence }) => sequence),
    [at(1), at(3)],
  );
});

test('an old timestamp is a duplicate from long ago (PAWS)', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open([2, 4, 0x05, 0xb4, ...timestamps(5000)]).catch(() => undefined);
  // The peer's ACK in `open` has no timestamp, which RFC 7323 has us drop; so once more with one.
  peer.send({ options: timestamps(5001) });
  peer.send({ options: timestamps(5002), data: Buffer.from('new') });
  assert.equal(stream?.text, 'new');
  peer.sequence += 3;
  peer.send({ options: timestamps(4000), data: Buffer.from('old') });
  assert.equal(stream?.text, 'new');
  assert.equal(peer.take().at(-1)?.ack, peer.sequence);
});

test('a silent machine is asked whether it is there, and given up', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open();
  lab.pass(2 * 60 * 60_000 - 1000);
  assert.deepEqual(peer.take(), []);
  lab.pass(2000);
  assert.equal(peer.take()[0]?.sequence, peer.ack - 1);
  peer.send();
  lab.pass(60 * 60_000);
  assert.deepEqual(peer.take(), [], 'it answered');
  lab.pass(3 * 60 * 60_000);
  assert.equal(stream.destroyed, 'reset');
  assert.equal(lab.stack.tcp.size, 0);
});

test('a SYN-ACK that nobody answers is given up, and so is the host’s connection', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  peer.syn();
  await settle();
  lab.pass(200_000);
  const answers = peer.take();
  assert.ok(answers.filter(({ flags }) => flags === (TCP_SYN | TCP_ACK)).length >= 4);
  assert.equal(lab.stack.tcp.size, 0);
  assert.equal(lab.host.streams[0]?.destroyed, 'reset');
});

test('a flood of SYNs is bounded, and does not keep others out for long', async () => {
  const lab = new Lab();
  lab.host.onConnect = () => {};
  for (let i = 0; i < TCP_EMBRYONIC_MAX + 500; i += 1) {
    lab.link.deliver(
      tcp(
        { fromPort: 1024 + (i % 60_000), toPort: 80, sequence: i, flags: TCP_SYN },
        { to: '192.0.2.9', mac: Uint8Array.of(2, 0, 0, 1, 0, i % 32) },
      ),
    );
  }
  await settle();
  assert.equal(lab.stack.tcp.size, TCP_EMBRYONIC_MAX);
  assert.equal(lab.host.streams.length, TCP_EMBRYONIC_MAX);
  assert.equal(lab.stack.tcp.counters.droppedSyns, 500);
  for (const stream of lab.host.streams) stream.events.failed('ETIMEDOUT');
  assert.equal(lab.stack.tcp.size, 0);
  lab.host.onConnect = (stream) => stream.events.connected();
  await new Peer(lab, 1, 2).open();
});

test('the link is gone: every connection ends', async () => {
  const lab = new Lab();
  const stream = await new Peer(lab).open();
  lab.link.receiver?.closed();
  assert.equal(stream.destroyed, 'reset');
  assert.equal(lab.stack.tcp.size, 0);
  assert.equal(lab.arena.freeChunks, lab.arena.chunksTotal);
});

test('a machine that takes no frames blocks what is sent to it, not what it sends', async () => {
  const lab = new Lab({ network: { mtu: 65_520 }, chunks: 2048 });
  const peer = new Peer(lab, 1, 1, 80);
  const stream = await peer.open([2, 4, 0xff, 0xff, 1, 3, 3, 14]);
  peer.window = 0xffff;
  peer.send();
  lab.link.takes = false;
  for (let i = 0; i < 100; i += 1) {
    stream.send(new Uint8Array(65_536));
    if (stream.paused) break;
  }
  peer.data('up');
  assert.equal(stream.text, 'up');
  lab.link.release();
  const bytes = peer.take().reduce((sum, { data }) => sum + data.length, 0);
  assert.ok(bytes > 500_000, `${bytes}`);
});
