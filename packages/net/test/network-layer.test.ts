/** ARP, neighbour discovery, echo, UDP, fragments: what a gateway answers, and what it does not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { REASSEMBLY_BYTES_MAX, REASSEMBLY_DATAGRAMS_MAX } from '../src/limits.ts';
import { ipBytes } from '../src/wire/address.ts';
import { writeArp } from '../src/wire/arp.ts';
import { u16, u32 } from '../src/wire/bytes.ts';
import { ETHERTYPE_ARP, writeEthernet } from '../src/wire/ethernet.ts';
import { IPV4_MORE_FRAGMENTS } from '../src/wire/ipv4.ts';
import { icmp, ip, parse, udp } from './support/frames.ts';
import { GATEWAY_MAC, GUEST_MAC, Lab } from './support/lab.ts';
import { settle } from './support/peer.ts';

const v4 = (text: string): number => u32(ipBytes(text), 12);

function arp(operation: number, from: string, target: string, mac = GUEST_MAC): Uint8Array {
  const frame = new Uint8Array(42);
  const at = writeEthernet(frame, 0, new Uint8Array(6).fill(255), mac, 0, ETHERTYPE_ARP);
  writeArp(frame, at, operation, mac, v4(from), new Uint8Array(6), v4(target));
  return frame;
}

const v6 = { from: 'fd00::2', to: 'fd00::1', hopLimit: 255 } as const;

test('ARP: the gateway and the host’s addresses are ours, others are not', () => {
  const lab = new Lab();
  lab.link.deliver(
    arp(1, '10.0.0.2', '10.0.0.1'),
    arp(1, '10.0.0.2', '10.0.0.254'),
    arp(1, '10.0.0.2', '10.0.0.7'),
  );
  const answers = lab.take();
  assert.equal(answers.length, 2);
  assert.deepEqual([...(answers[0]?.subarray(0, 12) ?? [])], [...GUEST_MAC, ...GATEWAY_MAC]);
  assert.equal(u16(answers[0] ?? new Uint8Array(42), 20), 2);
  assert.deepEqual(
    answers.map((frame) => u32(frame, 28)),
    [v4('10.0.0.1'), v4('10.0.0.254')],
  );
});

test('we ask for a machine three times, and use the answer', () => {
  const lab = new Lab();
  const found: unknown[] = [];
  lab.stack.neighbours.find('10.0.0.9', (hop) => found.push(hop?.mac));
  assert.equal(lab.take().length, 1);
  lab.pass(1100);
  assert.equal(lab.take().length, 1);
  lab.link.deliver(arp(2, '10.0.0.9', '10.0.0.1'));
  assert.deepEqual(found.slice(), [GUEST_MAC]);
  lab.stack.neighbours.find('10.0.0.10', (hop) => found.push(hop?.mac));
  lab.pass(10_000);
  assert.equal(lab.take().length, 3);
  assert.deepEqual(found[1], undefined);
});

test('who claims an address that is not his is not believed', () => {
  const lab = new Lab();
  const thief = Uint8Array.of(2, 0, 0, 0, 0, 9);
  lab.stack.neighbours.accepts = (address, hop) => address !== '10.0.0.9' || hop.mac[5] === GUEST_MAC[5];
  const found: unknown[] = [];
  lab.stack.neighbours.find('10.0.0.9', (hop) => found.push(hop?.mac));
  lab.link.deliver(arp(2, '10.0.0.9', '10.0.0.1', thief));
  assert.deepEqual(found, []);
  lab.link.deliver(arp(2, '10.0.0.9', '10.0.0.1'));
  assert.deepEqual(found, [GUEST_MAC]);
  lab.link.deliver(arp(2, '10.0.0.9', '10.0.0.1', thief));
  assert.deepEqual(lab.stack.neighbours.get('10.0.0.9')?.mac, GUEST_MAC);
  lab.stack.neighbours.forget('10.0.0.9');
  assert.equal(lab.stack.neighbours.get('10.0.0.9'), undefined);
});

test('neighbour discovery: solicited, for duplicate address detection, with a wrong hop limit', () => {
  const lab = new Lab();
  const solicit = (target: string, options: { from: string; to: string; hopLimit: number }): Uint8Array =>
    icmp(135, 0, [0, 0, 0, 0, ...ipBytes(target), 1, 1, ...GUEST_MAC], options);
  lab.link.deliver(solicit('fd00::1', v6));
  const [answer] = lab.take().map(parse);
  assert.equal(answer?.data[0], 136);
  assert.equal(answer?.to, 'fd00::2');
  assert.equal((answer?.data[4] ?? 0) & 0xe0, 0xe0, 'router, solicited, override');
  assert.deepEqual([...(answer?.data.subarray(24) ?? [])], [2, 1, ...GATEWAY_MAC]);
  lab.link.deliver(solicit('fd00::1', { ...v6, from: '::' }));
  assert.equal(lab.take().map(parse)[0]?.to, 'ff02::1');
  lab.link.deliver(solicit('fd00::1', { ...v6, hopLimit: 64 }), solicit('fd00::77', v6));
  assert.deepEqual(lab.take(), []);
});

test('a router advertisement: asked for, and from time to time', () => {
  const lab = new Lab();
  lab.link.deliver(icmp(133, 0, [0, 0, 0, 0], { ...v6, from: 'fe80::2', to: 'ff02::2' }));
  const [answer] = lab.take().map(parse);
  assert.equal(answer?.data[0], 134);
  assert.equal(answer?.to, 'fe80::2');
  const data = answer?.data ?? new Uint8Array(0);
  assert.equal(u16(data, 6), 1800, 'lifetime');
  const prefix = data.subarray(16 + 8 + 8);
  assert.deepEqual([...prefix.subarray(0, 4)], [3, 4, 64, 0xc0]);
  assert.deepEqual(prefix.subarray(16, 32), ipBytes('fd00::'));
  assert.deepEqual(prefix.subarray(40, 56), ipBytes('fd00::1'), 'name server');
  lab.pass(201_000);
  assert.equal(lab.take().map(parse)[0]?.to, 'ff02::1');
});

test('no router advertisement where addresses are given out by somebody else', () => {
  const lab = new Lab({ network: { advertises: false } });
  lab.link.deliver(icmp(133, 0, [0, 0, 0, 0], { ...v6, from: 'fe80::2', to: 'ff02::2' }));
  lab.pass(201_000);
  assert.deepEqual(lab.take(), []);
});

test('the gateway answers an echo itself, in both families, whatever its size', () => {
  const lab = new Lab({ network: { mtu: 65_520 } });
  const payload = new Array<number>(60_000).fill(7);
  lab.link.deliver(
    icmp(8, 0, [0x12, 0x34, 0, 1, ...payload], { to: '10.0.0.1' }),
    icmp(128, 0, [0x12, 0x34, 0, 2, 1, 2, 3], v6),
  );
  const [first, second] = lab.take().map(parse);
  assert.equal(first?.data[0], 0);
  assert.equal(first?.from, '10.0.0.1');
  assert.equal(first?.data.length, 60_008);
  assert.deepEqual(
    [...(second?.data.subarray(0, 2) ?? []), ...(second?.data.subarray(4) ?? [])],
    [129, 0, 0x12, 0x34, 0, 2, 1, 2, 3],
  );
});

test('an echo for somebody else goes to the host, and comes back with its own identifier', async () => {
  const lab = new Lab();
  lab.link.deliver(icmp(8, 0, [0x12, 0x34, 0, 9, 1], {}));
  await settle();
  const [ping] = lab.host.pings;
  assert.equal(ping?.address, '192.0.2.1');
  assert.deepEqual(ping?.sent, [9]);
  ping?.events.reply(9, Uint8Array.of(1));
  const [answer] = lab.take().map(parse);
  assert.deepEqual([...(answer?.data.subarray(4) ?? [])], [0x12, 0x34, 0, 9, 1]);
  assert.equal(answer?.from, '192.0.2.1');
  lab.pass(60_000);
  assert.equal(ping?.closed, true);
  assert.equal(lab.stack.echo.size, 0);
});

test('UDP: a flow to the host, its answer, its idle end', async () => {
  const lab = new Lab();
  lab.link.deliver(udp(5000, 53, Buffer.from('ask')), udp(5000, 53, Buffer.from('again')));
  const [flow] = lab.host.flows;
  assert.equal(lab.host.flows.length, 1);
  assert.deepEqual(flow?.target, { address: '192.0.2.1', port: 53 });
  assert.deepEqual(
    flow?.sent.map((payload) => Buffer.from(payload).toString()),
    ['ask', 'again'],
  );
  flow?.events.datagram(Buffer.from('answer'));
  const [answer] = lab.take().map(parse);
  assert.deepEqual(
    [answer?.from, answer?.fromPort, answer?.to, answer?.toPort, Buffer.from(answer?.data ?? []).toString()],
    ['192.0.2.1', 53, '10.0.0.2', 5000, 'answer'],
  );
  lab.pass(100_000);
  assert.equal(lab.stack.udp.size, 1);
  lab.pass(30_000);
  assert.equal(lab.stack.udp.size, 0);
  assert.equal(flow?.closed, true);
});

test('UDP: refused and denied become ICMP errors', async () => {
  const lab = new Lab({
    network: {
      policy: (flow) => ({ action: flow.destinationPort === 9 ? 'deny' : 'allow' }),
    },
  });
  lab.link.deliver(udp(5000, 7, Buffer.from('x')));
  lab.host.flows[0]?.events.refused();
  assert.deepEqual([...(lab.take().map(parse)[0]?.data.subarray(0, 2) ?? [])], [3, 3]);
  lab.link.deliver(udp(5000, 9, Buffer.from('x')), udp(5000, 9, Buffer.from('x')));
  assert.deepEqual(
    lab.take().map((frame) => [...parse(frame).data.subarray(0, 2)]),
    [[3, 13]],
    'once',
  );
  lab.link.deliver(udp(5000, 99, Buffer.from('x'), { from: 'fd00::2', to: 'fd00::1' }));
  assert.deepEqual(
    [...(lab.take().map(parse)[0]?.data.subarray(0, 2) ?? [])],
    [1, 4],
    'a port of the gateway',
  );
});

test('UDP services hear their port, broadcasts too', () => {
  const lab = new Lab();
  const heard: string[] = [];
  using _service = lab.stack.udp.bind(67, ({ payload, sourcePort }) => {
    heard.push(`${sourcePort} ${Buffer.from(payload)}`);
  });
  lab.link.deliver(
    udp(68, 67, Buffer.from('unicast'), { to: '10.0.0.1' }),
    udp(68, 67, Buffer.from('broadcast'), { from: '0.0.0.0', to: '255.255.255.255' }),
    udp(68, 67, Buffer.from('elsewhere'), { to: '192.0.2.1' }),
    udp(68, 69, Buffer.from('deaf'), { from: '0.0.0.0', to: '255.255.255.255' }),
  );
  assert.deepEqual(heard, ['68 unicast', '68 broadcast']);
});

test('a datagram larger than the link is sent in fragments that fit', () => {
  for (const [from, to, header] of [
    ['10.0.0.2', '192.0.2.1', 34],
    ['fd00::2', '2001:db8::1', 62],
  ] as const) {
    const lab = new Lab();
    lab.link.deliver(udp(5000, 53, Buffer.from('ask'), { from, to }));
    const payload = Uint8Array.from({ length: 10_000 }, (_, i) => i * 7);
    lab.host.flows[0]?.events.datagram(payload);
    const frames = lab.take();
    assert.equal(frames.length, 7);
    for (const frame of frames) assert.ok(frame.length <= 1514);
    const whole = Buffer.concat(frames.map((frame) => frame.subarray(header)));
    assert.deepEqual(new Uint8Array(whole.subarray(8)), payload);
    // What we send in fragments we must be able to read.
    const back = new Lab({
      network: {
        mac: GUEST_MAC,
        gateways: [
          { address: '10.0.0.2', prefixLength: 24 },
          { address: 'fd00::2', prefixLength: 64 },
        ],
      },
    });
    const heard: number[] = [];
    back.stack.udp.bind(5000, (datagram) => heard.push(datagram.payload.length));
    back.link.deliver(...frames.toReversed());
    assert.deepEqual(heard, [10_000]);
  }
});

test('fragments: overlapping ones are dropped, incomplete ones are bounded in number, bytes and time', () => {
  const lab = new Lab();
  const heard: number[] = [];
  lab.stack.udp.bind(53, ({ payload }) => heard.push(payload.length));
  const part = (id: number, offset: number, more: boolean, length: number): Uint8Array =>
    ip(17, new Uint8Array(length), {
      to: '10.0.0.1',
      id,
      fragment: (offset >>> 3) | (more ? IPV4_MORE_FRAGMENTS : 0),
    });
  lab.link.deliver(part(1, 0, true, 16), part(1, 8, false, 16));
  assert.deepEqual(heard, []);
  for (let id = 0; id < 1000; id += 1) lab.link.deliver(part(id, 0, true, 1400));
  assert.ok(REASSEMBLY_DATAGRAMS_MAX * 1400 < REASSEMBLY_BYTES_MAX);
  // The oldest gave way; the youngest is still there.
  const whole = udp(1, 53, new Uint8Array(3000), { to: '10.0.0.1' }).subarray(34);
  const send = (id: number, passMs: number): void => {
    lab.link.deliver(ip(17, whole.subarray(0, 1600), { to: '10.0.0.1', id, fragment: IPV4_MORE_FRAGMENTS }));
    lab.pass(passMs);
    lab.link.deliver(ip(17, whole.subarray(1600), { to: '10.0.0.1', id, fragment: 200 }));
  };
  send(5000, 10);
  assert.deepEqual(heard, [3000]);
  send(5001, 31_000);
  assert.deepEqual(heard, [3000], 'too late');
});

test('what cannot be routed is not', () => {
  const lab = new Lab();
  for (const to of ['127.0.0.1', '0.0.0.0', '224.0.0.1', '240.0.0.1', '10.0.0.255', '255.255.255.255']) {
    lab.link.deliver(udp(1, 9, Buffer.from('x'), { to }));
  }
  for (const to of ['::1', 'fe80::1', 'ff02::1', '::']) {
    lab.link.deliver(udp(1, 9, Buffer.from('x'), { from: 'fd00::2', to }));
  }
  lab.link.deliver(udp(1, 9, Buffer.from('x'), { from: '127.0.0.1', to: '192.0.2.1' }));
  lab.link.deliver(udp(1, 9, Buffer.from('x'), { from: '::ffff:1.2.3.4', to: '192.0.2.1' }));
  assert.equal(lab.host.flows.filter(({ target }) => target.address !== '192.0.2.1').length, 0);
  assert.deepEqual(lab.take(), []);
  lab.link.deliver(udp(1, 9, Buffer.from('x'), { to: '10.0.0.77' }));
  assert.deepEqual(
    [...(lab.take().map(parse)[0]?.data.subarray(0, 2) ?? [])],
    [3, 1],
    'a neighbour is not behind us',
  );
});

test('a bad checksum is dropped and counted', () => {
  const lab = new Lab();
  const good = udp(5000, 53, Buffer.from('x'));
  for (let at = 34; at < good.length; at += 1) {
    const bad = good.slice();
    bad[at] = (bad[at] as number) ^ 0x10;
    lab.link.deliver(bad);
  }
  assert.equal(lab.host.flows.length, 0);
  assert.ok(lab.stack.udp.counters.badChecksums + lab.stack.udp.counters.malformed >= good.length - 34 - 2);
});
