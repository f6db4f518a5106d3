import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ARP_OPERATION,
  ARP_REPLY,
  ARP_SENDER_IP,
  ARP_TARGET_MAC,
  checksum,
  ETHERTYPE_IPV4,
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_SOURCE,
  ipv4HeaderLength,
  isArp,
  isFragment4,
  isIpv6,
  isTagged,
  isUdp,
  NEXT_DESTINATION,
  NEXT_FRAGMENT,
  NEXT_HOP_BY_HOP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  parseIpv6,
  putU16,
  sameMac,
  TCP_ACK,
  TCP_DESTINATION_PORT,
  TCP_FLAGS,
  TCP_SEQUENCE,
  tcpHeaderLength,
  UNTAGGED,
  u16,
  u32,
  upperLayer6,
  vlanOf,
  writeArp,
  writeEthernet,
  writeIpv4,
  writeIpv6,
  writeTcp,
  writeUdp,
} from '@arcbox/net/wire';
import fc from 'fast-check';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

const mac = fc.uint8Array({ minLength: 6, maxLength: 6 });
const ip = fc.integer({ min: 0, max: 0xffffffff });

test('an Ethernet header, tagged or not, reads as it was written', () => {
  fc.assert(
    fc.property(mac, mac, fc.integer({ min: 0, max: 4094 }), (to, from, vlan) => {
      const bytes = new Uint8Array(32);
      const payload = writeEthernet(bytes, 2, to, from, vlan, ETHERTYPE_IPV4);
      assert.equal(payload, vlan === UNTAGGED ? 16 : 20);
      assert.equal(u16(bytes, payload - 2), ETHERTYPE_IPV4);
      assert.equal(isTagged(bytes, 2), vlan !== UNTAGGED);
      assert.equal(vlanOf(bytes, 2), vlan);
      assert.ok(sameMac(bytes, 2, to, 0) && sameMac(bytes, 8, from, 0));
    }),
    { seed: SEED },
  );
});

test('an ARP packet reads as it was written', () => {
  fc.assert(
    fc.property(mac, ip, mac, ip, (fromMac, fromIp, toMac, toIp) => {
      const bytes = new Uint8Array(40);
      const end = writeArp(bytes, 4, ARP_REPLY, fromMac, fromIp, toMac, toIp);
      assert.ok(isArp(bytes, 4, end));
      assert.ok(!isArp(bytes, 4, end - 1));
      assert.equal(u16(bytes, 4 + ARP_OPERATION), ARP_REPLY);
      assert.equal(u32(bytes, 4 + ARP_SENDER_IP), fromIp);
      assert.ok(sameMac(bytes, 4 + ARP_TARGET_MAC, toMac, 0));
    }),
    { seed: SEED },
  );
});

test('an IPv4 header reads as it was written, and every damaged length is refused', () => {
  fc.assert(
    fc.property(ip, ip, fc.nat(64), fc.nat(0xffff), (source, destination, payload, id) => {
      const bytes = new Uint8Array(100);
      const total = 20 + payload;
      writeIpv4(bytes, 3, total, PROTOCOL_UDP, source, destination, id);
      assert.equal(ipv4HeaderLength(bytes, 3, 3 + total), 20);
      assert.equal(ipv4HeaderLength(bytes, 3, bytes.length), 20, 'padding is allowed');
      assert.equal(u32(bytes, 3 + IPV4_SOURCE), source);
      assert.equal(u32(bytes, 3 + IPV4_DESTINATION), destination);
      assert.ok(!isFragment4(bytes, 3));
      for (let end = 3; end < 3 + total; end += 1) assert.equal(ipv4HeaderLength(bytes, 3, end), -1);
    }),
    { seed: SEED },
  );
});

test('an IPv4 header with any IHL or total length is refused or within the packet', () => {
  const bytes = new Uint8Array(60);
  for (let first = 0; first < 256; first += 1) {
    for (let total = 0; total < 80; total += 1) {
      writeIpv4(bytes, 0, total, PROTOCOL_TCP, 1, 2, 3);
      bytes[0] = first;
      const header = (first & 15) * 4;
      putU16(bytes, IPV4_CHECKSUM, 0);
      if (header <= bytes.length) putU16(bytes, IPV4_CHECKSUM, checksum(bytes, 0, header));
      const sound = first >>> 4 === 4 && header >= 20 && total >= header && total <= bytes.length;
      assert.equal(ipv4HeaderLength(bytes, 0, bytes.length), sound ? header : -1, `${first} ${total}`);
    }
  }
});

test('the extension headers of IPv6 are walked, and a broken chain is refused', () => {
  const bytes = new Uint8Array(120);
  const from = parseIpv6('fd00::1');
  const to = parseIpv6('fd00::2');
  let at = writeIpv6(bytes, 0, 80, NEXT_HOP_BY_HOP, from, to);
  bytes.set([NEXT_DESTINATION, 0], at);
  at += 8;
  bytes.set([PROTOCOL_TCP, 1], at);
  at += 16;
  assert.ok(isIpv6(bytes, 0, 120));
  assert.ok(!isIpv6(bytes, 0, 119));
  assert.equal(upperLayer6(bytes, 0, 120), at * 0x10000 + 48);
  bytes[49] = 200;
  assert.equal(upperLayer6(bytes, 0, 120), -1, 'past the end');
  bytes.set([NEXT_FRAGMENT], 48);
  bytes[49] = 1;
  assert.equal(upperLayer6(bytes, 0, 120), at * 0x10000 + 48, 'stops at a fragment header');
  for (let i = 40; i < 120; i += 8) bytes.set([NEXT_DESTINATION, 0], i);
  assert.equal(upperLayer6(bytes, 0, 120), -1, 'too many');
});

test('UDP lengths', () => {
  const bytes = new Uint8Array(40);
  const payload = writeUdp(bytes, 4, 53, 1024, 10);
  assert.equal(payload, 12);
  assert.ok(isUdp(bytes, 4, 22));
  assert.ok(isUdp(bytes, 4, 30));
  assert.ok(!isUdp(bytes, 4, 21));
  assert.ok(!isUdp(bytes, 4, 11));
  putU16(bytes, 8, 7);
  assert.ok(!isUdp(bytes, 4, 40));
});

test('a TCP header reads as it was written, and every damaged offset is refused', () => {
  const bytes = new Uint8Array(64);
  const options = writeTcp(bytes, 2, 32, 80, 40000, 0xfffffff0, 7, TCP_ACK, 1000);
  assert.equal(options, 22);
  assert.equal(tcpHeaderLength(bytes, 2, 34), 32);
  assert.equal(u32(bytes, 2 + TCP_SEQUENCE), 0xfffffff0);
  assert.equal(u16(bytes, 2 + TCP_DESTINATION_PORT), 40000);
  assert.equal(bytes[2 + TCP_FLAGS], TCP_ACK);
  for (let offset = 0; offset < 16; offset += 1) {
    bytes[14] = offset << 4;
    const sound = offset >= 5 && offset * 4 <= 42;
    assert.equal(tcpHeaderLength(bytes, 2, 44), sound ? offset * 4 : -1);
    assert.equal(tcpHeaderLength(bytes, 2, 21), -1);
  }
});
