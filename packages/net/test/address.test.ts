import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NetError } from '@arcbox/net';
import {
  formatIpv4,
  formatIpv6,
  formatMac,
  ipBytes,
  ipText,
  parseIpv4,
  parseIpv6,
  parseMac,
  tryParseIpv4,
  tryParseIpv6,
} from '@arcbox/net/wire';
import fc from 'fast-check';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

const refused = (code: string) => (error: unknown) => error instanceof NetError && error.code === code;

test('IPv4 addresses go to text and back', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0xffffffff }), (value) => {
      assert.equal(parseIpv4(formatIpv4(value)), value);
    }),
    { seed: SEED },
  );
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.4.5',
    '256.0.0.1',
    '1.2.3.04',
    '1.2.3.-4',
    ' 1.2.3.4',
    '0x1.2.3.4',
  ]) {
    assert.equal(tryParseIpv4(text), undefined, text);
  }
  assert.throws(() => parseIpv4('somewhere'), refused('ERR_ARCBOX_NET_ADDRESS'));
});

test('IPv6 addresses go to text and back', () => {
  const group = fc.oneof(fc.constant(0), fc.nat(0xffff));
  fc.assert(
    fc.property(fc.array(group, { minLength: 8, maxLength: 8 }), (groups) => {
      const bytes = Uint8Array.from(groups.flatMap((value) => [value >>> 8, value & 255]));
      assert.deepEqual(parseIpv6(formatIpv6(bytes)), bytes);
    }),
    { seed: SEED },
  );
});

test('IPv6 text is what RFC 5952 recommends', () => {
  for (const [text, canonical] of [
    ['2001:DB8:0:0:0:0:2:1', '2001:db8::2:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['::1', '::1'],
    ['fe80::', 'fe80::'],
    ['::ffff:10.1.2.3', '::ffff:10.1.2.3'],
  ] as const) {
    assert.equal(formatIpv6(parseIpv6(text)), canonical);
  }
  for (const text of [
    '',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '12345::',
    'g::',
    'fe80::1%0',
  ]) {
    assert.equal(tryParseIpv6(text), undefined, text);
  }
});

test('both families in one type', () => {
  assert.equal(ipText(ipBytes('10.0.0.1')), '10.0.0.1');
  assert.equal(ipText(ipBytes('fd00::1')), 'fd00::1');
  assert.throws(() => ipBytes('localhost'), refused('ERR_ARCBOX_NET_ADDRESS'));
});

test('MAC addresses', () => {
  assert.equal(formatMac(parseMac('02:00:5E:00:00:ff')), '02:00:5e:00:00:ff');
  assert.throws(() => parseMac('02:00:5e:00:00'), refused('ERR_ARCBOX_NET_ADDRESS'));
});
