import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  AddressPool,
  AddressPool6,
  type AddressPoolState,
  cidrContains,
  formatIp,
  NetError,
  parseCidr,
  parseIp,
  pickSubnet,
  requireCidr,
  requireIp,
  unmapped,
} from '../src/index.ts';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

const code = (expected: string) => (error: unknown) => error instanceof NetError && error.code === expected;

test('addresses: text and value are the same thing', () => {
  for (const [text, canonical] of [
    ['0.0.0.0', '0.0.0.0'],
    ['255.255.255.255', '255.255.255.255'],
    ['::', '::'],
    ['::1', '::1'],
    ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['fe80::', 'fe80::'],
    ['::ffff:10.0.0.1', '::ffff:10.0.0.1'],
  ] as const) {
    assert.equal(formatIp(requireIp(text)), canonical);
  }
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.4.5',
    '01.2.3.4',
    '1.2.3.256',
    ':::',
    '1::2::3',
    'fe80::1%eth0',
    'x',
  ]) {
    assert.equal(parseIp(text), undefined, text);
  }
  assert.deepEqual(unmapped(requireIp('::ffff:10.0.0.1')), requireIp('10.0.0.1'));
  assert.deepEqual(unmapped(requireIp('::fffe:10.0.0.1')), requireIp('::fffe:10.0.0.1'));
  fc.assert(
    fc.property(fc.ipV6(), (text) => {
      const ip = requireIp(text);
      assert.deepEqual(requireIp(formatIp(ip)), ip);
    }),
    { seed: SEED },
  );
});

test('subnets: strict text', () => {
  for (const text of [
    '10.0.0.0/33',
    '10.0.0.1/24',
    '10.0.0.0/',
    '10.0.0.0/08',
    '10.0.0.0/8/8',
    '::/129',
    'a/8',
  ]) {
    assert.equal(parseCidr(text), undefined, text);
  }
  assert.ok(cidrContains(requireCidr('0.0.0.0/0'), requireIp('255.1.2.3')));
  assert.ok(cidrContains(requireCidr('fc00::/7'), requireIp('fdff::1')));
  assert.ok(!cidrContains(requireCidr('fc00::/7'), requireIp('fe00::')));
  assert.ok(!cidrContains(requireCidr('::/0'), requireIp('1.2.3.4')));
});

test('a pool leases every address but its own, then says that it is exhausted', () => {
  const pool = new AddressPool({ subnet: '10.1.0.0/24', reserved: ['10.1.0.7'] });
  const seen = new Set<string>();
  assert.equal(pool.gateway, '10.1.0.1');
  assert.equal(pool.broadcast, '10.1.0.255');
  assert.equal(pool.lease('c0'), '10.1.0.2');
  assert.equal(pool.lease('c0'), '10.1.0.2');
  for (let i = 0; i < 252; i++) seen.add(pool.lease(`c${i}`));
  assert.equal(seen.size, 252);
  for (const own of ['10.1.0.0', '10.1.0.1', '10.1.0.7', '10.1.0.255']) assert.ok(!seen.has(own));
  assert.throws(() => pool.lease('one more'), code('ERR_ARCBOX_NET_EXHAUSTED'));
  assert.ok(pool.release('c5'));
  assert.ok(!pool.release('c5'));
  assert.equal(pool.lease('one more'), '10.1.0.8');
});

test('an address that was given back is used again last', () => {
  const pool = new AddressPool({ subnet: '10.1.0.0/28' });
  const first = pool.lease('a');
  pool.release('a');
  const others = Array.from({ length: 12 }, (_, i) => pool.lease(`b${i}`));
  assert.ok(!others.includes(first));
  assert.equal(pool.lease('c'), first);
});

test('an address by value, a range, and what is refused', () => {
  const pool = new AddressPool({ subnet: '10.1.0.0/16', range: '10.1.4.0/30', gateway: '10.1.255.254' });
  assert.equal(pool.free, 4);
  assert.equal(pool.lease('a', '10.1.200.9'), '10.1.200.9');
  assert.equal(pool.free, 4);
  assert.equal(pool.lease('b', '10.1.4.1'), '10.1.4.1');
  assert.deepEqual(
    ['c', 'd', 'e'].map((owner) => pool.lease(owner)),
    ['10.1.4.0', '10.1.4.2', '10.1.4.3'],
  );
  assert.equal(pool.ownerOf('10.1.4.0'), 'c');
  assert.throws(() => pool.lease('f'), code('ERR_ARCBOX_NET_EXHAUSTED'));
  assert.throws(() => pool.lease('f', '10.1.4.1'), code('ERR_ARCBOX_NET_ADDRESS_TAKEN'));
  assert.throws(() => pool.lease('f', '10.1.255.254'), code('ERR_ARCBOX_NET_ADDRESS_TAKEN'));
  assert.throws(() => pool.lease('f', '10.2.0.1'), code('ERR_ARCBOX_NET_ADDRESS'));
  assert.throws(() => pool.lease('a', '10.1.9.9'), code('ERR_ARCBOX_NET_ADDRESS'));
  for (const options of [
    { subnet: '10.0.0.0/31' },
    { subnet: '10.0.0.0/7' },
    { subnet: 'fd00::/64' },
    { subnet: '10.0.0.0/24', gateway: '10.0.1.1' },
    { subnet: '10.0.0.0/24', range: '10.0.0.0/16' },
    { subnet: '10.0.0.0/24', reserved: ['x'] },
  ]) {
    assert.throws(() => new AddressPool(options), code('ERR_ARCBOX_NET_ADDRESS'), JSON.stringify(options));
  }
});

test('whatever happens, the pool agrees with a simple model and survives JSON', () => {
  const owner = fc.integer({ min: 0, max: 40 }).map((n) => `o${n}`);
  const step = fc.oneof(
    fc.record({ do: fc.constant('lease' as const), owner }),
    fc.record({ do: fc.constant('release' as const), owner }),
    fc.record({ do: fc.constant('want' as const), owner, host: fc.integer({ min: 0, max: 31 }) }),
    fc.record({ do: fc.constant('restart' as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      let pool = new AddressPool({ subnet: '192.168.3.32/27' });
      const model = new Map<string, string>();
      for (const each of steps) {
        if (each.do === 'restart') {
          pool = AddressPool.restore(JSON.parse(JSON.stringify(pool.toState())) as AddressPoolState);
        } else if (each.do === 'release') {
          assert.equal(pool.release(each.owner), model.delete(each.owner));
        } else {
          const wanted = each.do === 'want' ? `192.168.3.${32 + each.host}` : undefined;
          let address: string | undefined;
          try {
            address = pool.lease(each.owner, wanted);
          } catch (error) {
            assert.ok(error instanceof NetError);
            const held = model.get(each.owner);
            const taken = [...model.values(), '192.168.3.32', '192.168.3.33', '192.168.3.63'];
            if (wanted === undefined) assert.ok(held === undefined && model.size === 29);
            else assert.ok((held !== undefined && held !== wanted) || taken.includes(wanted));
            continue;
          }
          const held = model.get(each.owner);
          if (held === undefined) assert.ok(![...model.values()].includes(address));
          else assert.equal(address, held);
          model.set(each.owner, address);
        }
        assert.deepEqual(new Map(pool.leases()), model);
        assert.equal(pool.free, 29 - model.size);
      }
    }),
    { seed: SEED },
  );
});

test('state that contradicts itself is refused', () => {
  const state = new AddressPool({ subnet: '10.1.0.0/24' }).toState();
  for (const leases of [
    [
      ['a', '10.1.0.2'],
      ['b', '10.1.0.2'],
    ],
    [
      ['a', '10.1.0.2'],
      ['a', '10.1.0.3'],
    ],
    [['a', '10.2.0.2']],
    [['a', '10.1.0.1']],
  ] as const) {
    assert.throws(() => AddressPool.restore({ ...state, leases }), code('ERR_ARCBOX_NET_STATE'));
  }
  assert.throws(() => AddressPool.restore({ ...state, version: 2 as 1 }), code('ERR_ARCBOX_NET_STATE'));
});

test('an IPv6 pool: addresses one after the other, by value, from a range, until a small one is exhausted', () => {
  const pool = new AddressPool6({ subnet: 'fd00:1::/64' });
  assert.equal(pool.gateway, 'fd00:1::1');
  assert.equal(pool.lease('a'), 'fd00:1::2');
  assert.equal(pool.lease('a'), 'fd00:1::2');
  assert.equal(pool.lease('b', 'FD00:1:0::3'), 'fd00:1::3');
  assert.equal(pool.lease('c'), 'fd00:1::4', 'passes what is taken');
  assert.throws(() => pool.lease('d', 'fd00:1::3'), code('ERR_ARCBOX_NET_ADDRESS_TAKEN'));
  assert.throws(() => pool.lease('d', 'fd00:1::1'), code('ERR_ARCBOX_NET_ADDRESS_TAKEN'));
  assert.throws(() => pool.lease('d', 'fd00:2::3'), code('ERR_ARCBOX_NET_ADDRESS'));
  assert.throws(() => pool.lease('d', '10.0.0.3'), code('ERR_ARCBOX_NET_ADDRESS'));
  assert.throws(() => pool.lease('a', 'fd00:1::9'), code('ERR_ARCBOX_NET_ADDRESS'));
  assert.equal(pool.release('b'), true);
  assert.equal(pool.release('b'), false);
  assert.equal(pool.lease('d'), 'fd00:1::5', 'what was just given back comes last');
  assert.equal(pool.lease('e', 'fd00:1::3'), 'fd00:1::3');

  const small = new AddressPool6({ subnet: 'fd00:2::/126', gateway: 'fd00:2::3' });
  assert.deepEqual([small.lease('a'), small.lease('b')], ['fd00:2::1', 'fd00:2::2']);
  assert.throws(() => small.lease('c'), code('ERR_ARCBOX_NET_EXHAUSTED'));
  small.release('a');
  assert.equal(small.lease('c'), 'fd00:2::1');

  const ranged = new AddressPool6({ subnet: 'fd00:3::/64', range: 'fd00:3::ff00/127' });
  assert.deepEqual([ranged.lease('a'), ranged.lease('b')], ['fd00:3::ff00', 'fd00:3::ff01']);
  assert.throws(() => ranged.lease('c'), code('ERR_ARCBOX_NET_EXHAUSTED'));
  assert.equal(ranged.lease('c', 'fd00:3::7'), 'fd00:3::7');

  for (const options of [
    { subnet: '10.0.0.0/24' },
    { subnet: 'fd00::/127' },
    { subnet: 'fd00::/7' },
    { subnet: 'fd00:3::/64', gateway: 'fd00:4::1' },
    { subnet: 'fd00:3::/64', range: 'fd00:4::/80' },
    { subnet: 'fd00:3::/64', range: '10.0.0.0/24' },
  ])
    assert.throws(() => new AddressPool6(options), code('ERR_ARCBOX_NET_ADDRESS'));
});

test('subnets for new networks overlap nothing', () => {
  assert.equal(pickSubnet([]), '172.17.0.0/16');
  assert.equal(pickSubnet(['172.17.5.0/24', '172.19.0.0/16']), '172.18.0.0/16');
  assert.equal(pickSubnet(['172.16.0.0/12']), '192.168.0.0/20');
  const taken: string[] = [];
  for (let i = 0; i < 31; i++) taken.push(pickSubnet(taken));
  assert.equal(new Set(taken).size, 31);
  assert.throws(() => pickSubnet(taken), code('ERR_ARCBOX_NET_EXHAUSTED'));
  assert.throws(() => pickSubnet(['0.0.0.0/0']), code('ERR_ARCBOX_NET_EXHAUSTED'));
});
