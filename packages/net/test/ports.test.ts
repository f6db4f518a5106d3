import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NetError } from '../src/errors.ts';
import { parsePortSpec } from '../src/ports/index.ts';

const code = (expected: string) => (error: unknown) => error instanceof NetError && error.code === expected;

test('specifications as docker takes them', () => {
  const one = { containerPort: 80, protocol: 'tcp' };
  const at = (first: number, last = first) => ({ hostPorts: { first, last } });
  for (const [text, expected] of [
    ['80', [one]],
    ['8080:80', [{ ...one, ...at(8080) }]],
    [':80', [one]],
    ['0:80', [one]],
    ['8080:80/udp', [{ ...one, ...at(8080), protocol: 'udp' }]],
    ['127.0.0.1:8080:80', [{ ...one, ...at(8080), hostAddress: '127.0.0.1' }]],
    ['127.0.0.1::80/udp', [{ ...one, hostAddress: '127.0.0.1', protocol: 'udp' }]],
    ['[::1]:8080:80', [{ ...one, ...at(8080), hostAddress: '::1' }]],
    ['[::]::80', [{ ...one, hostAddress: '::' }]],
    ['8000-8010:80', [{ ...one, ...at(8000, 8010) }]],
    [
      '8080-8081:80-81',
      [
        { ...one, ...at(8080) },
        { ...one, ...at(8081), containerPort: 81 },
      ],
    ],
    ['80-81', [one, { ...one, containerPort: 81 }]],
  ] as const) {
    assert.deepEqual(parsePortSpec(text), expected, text);
  }
  for (const text of [
    '',
    'x',
    '80:',
    '0',
    '65536',
    '8080:65536',
    '80/sctp',
    '90-80',
    '8000-8001:80-82',
    '127.0.0.1:80',
    '::1:8080:80',
    'localhost:8080:80',
    '1:2:3:4',
    '1-9999:1-9999',
    '8080:80 ',
  ]) {
    assert.throws(() => parsePortSpec(text), code('ERR_ARCBOX_NET_PORT_SPEC'), text);
  }
});
