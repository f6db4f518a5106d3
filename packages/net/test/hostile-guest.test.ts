/** What a machine with raw sockets tries: to end the stack, to be somebody else, to get where it may not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NameTable } from '../src/dns/index.ts';
import {
  TCP_EMBRYONIC_PER_MAC_MAX,
  TCP_MSS_MIN,
  UDP_FLOWS_PER_MAC_MAX,
  UDP_UNANSWERED_IDLE_MS,
} from '../src/limits.ts';
import type { Flow } from '../src/stack/policy.ts';
import { ETH_HEADER_BYTES, VLAN_TAG_BYTES } from '../src/wire/ethernet.ts';
import { TCP_RST } from '../src/wire/tcp.ts';
import { WorkerPolicies } from '../src/worker/policies.ts';
import { icmp, tcp, udp } from './support/frames.ts';
import { GUEST_MAC, Lab, TestLink } from './support/lab.ts';
import { Peer, settle } from './support/peer.ts';

const NOT_ASKED = (): Promise<never> => Promise.reject(new Error('nobody has a function'));

const SYN = 2;
const nothing = new Uint8Array(0);

test('port 0 never gets to the host, and a host that throws ends nothing but the flow', async () => {
  const lab = new Lab();
  lab.link.deliver(udp(5000, 0, nothing), tcp({ sequence: 1, flags: SYN, toPort: 0 }));
  await settle();
  assert.equal(lab.host.flows.length + lab.host.streams.length, 0);
  assert.equal(lab.stack.udp.counters.malformed, 1);
  assert.equal(lab.stack.tcp.counters.malformed, 1);

  const refuse = (): never => {
    throw Object.assign(new Error('no descriptors'), { code: 'EMFILE' });
  };
  lab.host.connect = refuse;
  lab.host.datagrams = refuse;
  lab.host.ping = refuse;
  lab.take();
  const peer = new Peer(lab);
  peer.syn();
  lab.link.deliver(udp(5000, 53, nothing), icmp(8, 0, [0, 1, 0, 1]));
  await settle();
  assert.ok(((peer.take()[0]?.flags ?? 0) & TCP_RST) !== 0);
  assert.equal(lab.stack.udp.size, 0);
  assert.equal(lab.stack.tcp.size, 0);
});

test('an IPv4 address in IPv6’s clothes leads nowhere, not to the host’s loopback', async () => {
  const lab = new Lab();
  for (const to of ['::ffff:127.0.0.1', '::ffff:10.0.0.254', '::ffff:192.0.2.1', '::1', '::']) {
    const way = { from: 'fd00::2', to };
    lab.link.deliver(tcp({ sequence: 1, flags: SYN }, way), udp(5000, 53, nothing, way));
    lab.link.deliver(icmp(128, 0, [0, 1, 0, 1], way));
  }
  await settle();
  assert.equal(lab.host.streams.length + lab.host.flows.length + lab.host.pings.length, 0);
});

test('the smallest MSS is ours to choose', async () => {
  const lab = new Lab();
  const peer = new Peer(lab);
  const stream = await peer.open([2, 4, 0, 1]);
  stream.send(new Uint8Array(10 * TCP_MSS_MIN));
  const sizes = peer.take().map(({ data }) => data.length);
  assert.equal(Math.max(...sizes), TCP_MSS_MIN);
});

test('a frame with two tags is not passed on', () => {
  const lab = new Lab();
  const other = new TestLink('other');
  const port = lab.switch.plug(other, () => {});
  lab.switch.attach(port, 0, lab.stack.name);
  lab.switch.attach(lab.port, 7, lab.stack.name);
  const toMac = Uint8Array.of(2, 0, 0, 0, 0, 9);
  const inner = udp(5000, 53, Buffer.from('in'), { toMac, vlan: 7 });
  lab.link.deliver(inner);
  assert.equal(other.frames.length, 1, 'one tag is taken off on the way');
  for (const tag of [
    [0x81, 0, 0, 9],
    [0x88, 0xa8, 0, 9],
  ]) {
    const at = ETH_HEADER_BYTES - 2 + VLAN_TAG_BYTES;
    lab.link.deliver(Uint8Array.from([...inner.subarray(0, at), ...tag, ...inner.subarray(at)]));
  }
  lab.link.deliver(
    Uint8Array.from([...toMac, ...GUEST_MAC, 0x88, 0xa8, 0, 9, ...inner.subarray(ETH_HEADER_BYTES)]),
  );
  assert.equal(other.frames.length, 1);
  assert.equal(lab.switch.counters.strays, 3);
});

test('who sends from nobody’s address has no more rights than he who has least', async () => {
  const names = new NameTable();
  names.addNetwork('n', { subnet: '10.0.0.0/24', gateway: ['10.0.0.1'] });
  const policies = new WorkerPolicies(names, () => {}, NOT_ASKED);
  const judge = async (source: string, link = 'vm', sourceMac = '02:00:00:00:00:02'): Promise<string> => {
    const flow: Flow = {
      protocol: 'tcp',
      network: 'n',
      link,
      sourceMac,
      source,
      sourcePort: 1,
      destination: '192.0.2.1',
      destinationPort: 80,
    };
    return (await policies.judge(flow)).action;
  };
  const asks = (address: string): boolean => policies.mayAsk({ vm: 'vm', network: 'n', address }, 'x.test');
  for (const [owner, address] of [
    ['bound', '10.0.0.2'],
    ['free', '10.0.0.3'],
  ] as const) {
    const mac = owner === 'free' ? { mac: '02:00:00:00:00:02' } : {};
    names.add({ owner, network: 'n', addresses: [address], names: [owner], ...mac });
  }
  assert.equal(await judge('10.0.0.99'), 'allow');
  assert.equal(await judge('10.0.0.3', 'vm', '02:00:00:00:00:66'), 'deny', 'nobody has a policy yet');
  policies.set({ kind: 'owner', name: 'bound' }, { default: 'deny' });
  assert.equal(await judge('10.0.0.2'), 'deny');
  assert.equal(await judge('10.0.0.3'), 'allow');
  assert.equal(await judge('10.0.0.99'), 'deny');
  assert.equal(await judge('10.0.0.3', 'vm', '02:00:00:00:00:66'), 'deny', 'his address, another card');
  assert.deepEqual(['10.0.0.2', '10.0.0.3', '10.0.0.99'].map(asks), [false, true, false]);
  policies.set({ kind: 'owner', name: 'bound' }, { default: 'allow' });
  assert.equal(await judge('10.0.0.99'), 'deny');
  policies.set({ kind: 'owner', name: 'bound' }, undefined);
  assert.equal(await judge('10.0.0.99'), 'allow');
  policies.set({ kind: 'link', name: 'vm' }, { default: 'deny' });
  assert.equal(await judge('10.0.0.99'), 'deny');
  assert.equal(await judge('10.0.0.3', ''), 'deny', 'a machine that nobody knows');
});

test('who floods takes nothing from his neighbours', async () => {
  const lab = new Lab();
  lab.host.onConnect = () => {}; // nobody answers
  for (let port = 1; port <= TCP_EMBRYONIC_PER_MAC_MAX + 50; port += 1) {
    lab.link.deliver(tcp({ sequence: 1, flags: SYN, fromPort: port }));
  }
  for (let port = 1; port <= UDP_FLOWS_PER_MAC_MAX + 50; port += 1) {
    lab.link.deliver(udp(port, 9, nothing));
  }
  assert.equal(lab.host.streams.length, TCP_EMBRYONIC_PER_MAC_MAX);
  assert.equal(lab.stack.tcp.counters.droppedSyns, 50);
  assert.equal(lab.host.flows.length, UDP_FLOWS_PER_MAC_MAX);
  const neighbour = { from: '10.0.0.3', mac: Uint8Array.of(2, 0, 0, 0, 0, 3) };
  lab.link.deliver(tcp({ sequence: 1, flags: SYN }, neighbour), udp(5000, 9, nothing, neighbour));
  assert.equal(lab.host.streams.length, TCP_EMBRYONIC_PER_MAC_MAX + 1);
  assert.equal(lab.host.flows.length, UDP_FLOWS_PER_MAC_MAX + 1);
  // What ends is given back.
  for (const stream of lab.host.streams.slice()) stream.events.failed('ECONNREFUSED');
  lab.pass(UDP_UNANSWERED_IDLE_MS + 1000);
  assert.equal(lab.stack.udp.size + lab.stack.tcp.size, 0);
  lab.link.deliver(tcp({ sequence: 1, flags: SYN }), udp(5000, 9, nothing));
  assert.equal(lab.stack.udp.size + lab.stack.tcp.size, 2);
});
