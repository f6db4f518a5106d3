/** Several machines and several networks on one switch. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SWITCH_ADDRESSES_MAX } from '../src/limits.ts';
import { icmp, parse, udp } from './support/frames.ts';
import { GATEWAY_MAC, Lab, NETWORK, TestLink } from './support/lab.ts';

const mac = (last: number): Uint8Array => Uint8Array.of(2, 0, 0, 0, 1, last);

/** Two machines; network A is VLAN 5 on both, network B is VLAN 6 on the first and 7 on the second. */
function twoMachines(): { lab: Lab; one: TestLink; two: TestLink } {
  const lab = new Lab();
  const one = new TestLink('one');
  const two = new TestLink('two');
  const ports = [one, two].map((link) => lab.switch.plug(link, () => {}));
  lab.switch.addNetwork({ ...NETWORK, name: 'a' });
  lab.switch.addNetwork({ ...NETWORK, name: 'b' });
  for (const [index, port] of ports.entries()) {
    lab.switch.attach(port, 5, 'a');
    lab.switch.attach(port, 6 + index, 'b');
  }
  return { lab, one, two };
}

const hello = (vlan: number, from: number, to: Uint8Array): Uint8Array =>
  udp(1, 2, Buffer.from('hi'), { vlan, mac: mac(from), toMac: to, from: `10.0.0.${from}`, to: '10.0.0.3' });

test('frames between machines keep to their network, and get the tag that it has there', () => {
  const { one, two } = twoMachines();
  one.deliver(hello(5, 2, mac(3)));
  assert.deepEqual(
    two.frames.splice(0).map((frame) => parse(frame).vlan),
    [5],
    'an unknown address is looked for everywhere',
  );
  one.deliver(hello(6, 2, mac(3)));
  assert.deepEqual(
    two.frames.splice(0).map((frame) => parse(frame).vlan),
    [7],
  );
  assert.deepEqual(one.frames, []);
});

test('a known address gets its frames where it is, and nobody else does', () => {
  const { lab, one, two } = twoMachines();
  const three = new TestLink('three');
  lab.switch.attach(
    lab.switch.plug(three, () => {}),
    5,
    'a',
  );
  two.deliver(hello(5, 3, GATEWAY_MAC));
  // What it asked us for is not ours.
  two.frames.splice(0);
  one.deliver(hello(5, 2, mac(3)));
  assert.equal(two.frames.splice(0).length, 1);
  assert.equal(three.frames.length, 0);
  // It moves.
  three.deliver(hello(5, 3, GATEWAY_MAC));
  three.frames.splice(0);
  one.deliver(hello(5, 2, mac(3)));
  assert.equal(two.frames.length, 0);
  assert.equal(three.frames.length, 1);
});

test('a broadcast reaches everybody in the network, and us', () => {
  const { lab, one, two } = twoMachines();
  const heard: string[] = [];
  lab.switch.network('a')?.udp.bind(67, ({ hop }) => heard.push(hop.port.link.name));
  one.deliver(
    udp(68, 67, Buffer.from('x'), {
      vlan: 5,
      mac: mac(2),
      toMac: new Uint8Array(6).fill(255),
      from: '0.0.0.0',
      to: '255.255.255.255',
    }),
  );
  assert.deepEqual(heard, ['one']);
  assert.equal(two.frames.length, 1);
  assert.equal(one.frames.length, 0);
});

test('each network has a gateway of its own; what has a strange tag is dropped', () => {
  const { lab, one } = twoMachines();
  const ping = (vlan: number): Uint8Array => icmp(8, 0, [0, 1, 0, 1], { vlan, to: '10.0.0.1', mac: mac(2) });
  one.deliver(ping(5), ping(6), ping(7), ping(0));
  assert.deepEqual(
    one.frames.map((frame) => parse(frame).vlan),
    [5, 6],
  );
  assert.equal(lab.switch.counters.strays, 2);
});

test('the addresses it remembers are bounded: the oldest is looked for everywhere again', () => {
  const { one, two } = twoMachines();
  const address = (i: number): Uint8Array => Uint8Array.of(2, 0, 0, 9, i >>> 8, i);
  const last = SWITCH_ADDRESSES_MAX + 100;
  for (let i = 0; i <= last; i += 1) {
    one.deliver(udp(1, 2, Buffer.from('x'), { vlan: 5, mac: address(i), to: '10.0.0.1' }));
  }
  two.frames.splice(0);
  one.deliver(hello(5, 2, address(last)));
  assert.equal(two.frames.length, 0, 'it is where the frame came from');
  one.deliver(hello(5, 2, address(0)));
  assert.equal(two.frames.length, 1);
});

test('a link whose stream is no sequence of frames is closed', () => {
  for (const length of [0, 1, 13, 65_554, 0x7fffffff, 0x80000000, 0xffffffff]) {
    const lab = new Lab();
    let reason: Error | undefined;
    const link = new TestLink('bad');
    lab.switch.plug(link, (error) => {
      reason = error;
    });
    const bytes = Buffer.alloc(64);
    bytes.writeUInt32BE(length);
    link.raw(bytes);
    assert.match(reason?.message ?? '', /announced a frame of/, `${length}`);
    assert.equal(link.closed, true);
  }
});

test('frames arrive whole, however the stream is cut', () => {
  const lab = new Lab();
  const frame = icmp(8, 0, [0, 1, 0, 1, 1, 2, 3, 4], { to: '10.0.0.1' });
  const batch = Buffer.concat(
    Array.from({ length: 20 }, () => Buffer.concat([Buffer.from([0, 0, 0, frame.length]), frame])),
  );
  for (let size = 1; size < 130; size += 1) {
    for (let at = 0; at < batch.length; at += size) lab.link.raw(batch.subarray(at, at + size));
    assert.equal(lab.take().length, 20, `cut into ${size}`);
  }
});

test('a network that is removed ends; its tag is a stranger’s then', async () => {
  const { lab, one } = twoMachines();
  lab.switch.removeNetwork('a');
  one.deliver(icmp(8, 0, [0, 1, 0, 1], { vlan: 5, to: '10.0.0.1', mac: mac(2) }));
  assert.deepEqual(one.frames, []);
  assert.equal(lab.switch.network('a'), undefined);
  lab.switch.close();
  assert.equal([...lab.switch.ports].length, 0);
});
