import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { ContainerRecord } from '../src/container/container-record.ts';
import { NetworkManager } from '../src/network/network-manager.ts';
import { Store } from '../src/state/store.ts';

const SUBNET = '10.88.0.0/16';

function container(id: string): ContainerRecord {
  const config = {} as ContainerRecord['config'];
  return {
    ...({} as ContainerRecord),
    id,
    name: id,
    state: 'created',
    run: 0,
    machine: 'default',
    imageId: 'sha256:0',
    config,
    createdMs: 1,
    startedMs: undefined,
    finishedMs: undefined,
    exitCode: undefined,
    restarts: 0,
    stoppedByUser: false,
    error: '',
  };
}

function storeWith(...ids: string[]): Store {
  const store = new Store(':memory:');
  for (const id of ids) store.insertContainer(container(id), undefined);
  return store;
}

it('the network bridge is there, and its addresses are given out and taken back', () => {
  using store = storeWith('a', 'b');
  const manager = new NetworkManager(store.networks, SUBNET);
  assert.deepEqual(
    manager.list().map(({ name, vlan, subnet, gateway }) => ({ name, vlan, subnet, gateway })),
    [{ name: 'bridge', vlan: 1, subnet: SUBNET, gateway: '10.88.0.1' }],
  );
  const one = manager.connect('a', 'bridge', { aliases: ['web', 'web'] });
  assert.deepEqual(
    { address: one.address, mac: one.mac, position: one.position, aliases: one.aliases },
    { address: '10.88.0.2', mac: '02:42:0a:58:00:02', position: 0, aliases: ['web'] },
  );
  assert.throws(() => manager.connect('b', 'bridge', { address: '10.88.0.2' }), {
    code: 'ERR_ARCBOX_NETWORK',
  });
  assert.throws(() => manager.connect('b', 'bridge', { address: '10.89.0.2' }), {
    code: 'ERR_ARCBOX_INVALID_ARGUMENT',
  });
  assert.throws(() => manager.connect('b', 'bridge', { mac: '01:00:00:00:00:01' }), {
    code: 'ERR_ARCBOX_INVALID_ARGUMENT',
  });
  manager.release('a');
  assert.equal(manager.connect('b', 'bridge', { address: '10.88.0.2' }).address, '10.88.0.2');
});

it('interfaces are numbered from eth0, and a gap is filled', () => {
  using store = storeWith('a');
  const manager = new NetworkManager(store.networks, SUBNET);
  for (const name of ['one', 'two', 'three']) manager.create({ name });
  assert.deepEqual(
    ['one', 'two', 'three'].map((name) => manager.connect('a', name).position),
    [0, 1, 2],
  );
  manager.disconnect('a', 'two');
  assert.equal(manager.connect('a', 'bridge').position, 1);
  assert.deepEqual(
    manager.endpointsOf('a').map(({ position }) => position),
    [0, 1, 2],
  );
  assert.throws(() => manager.connect('a', 'one'), { code: 'ERR_ARCBOX_NETWORK_IN_USE' });
  assert.throws(() => manager.disconnect('a', 'two'), { code: 'ERR_ARCBOX_NETWORK_NOT_FOUND' });
});

it('networks overlap nobody, and go only when they are empty', () => {
  using store = storeWith('a');
  const manager = new NetworkManager(store.networks, '172.17.0.0/16');
  const own = manager.create({ name: 'own' });
  assert.equal(own.subnet, '172.18.0.0/16');
  assert.equal(own.vlan, 2);
  for (const subnet of ['172.17.4.0/24', '172.16.0.0/12']) {
    assert.throws(() => manager.create({ name: 'other', subnet }), { code: 'ERR_ARCBOX_NETWORK' });
  }
  for (const subnet of ['10.0.0.0/33', 'nonsense', '10.0.0.0/31']) {
    assert.throws(() => manager.create({ name: 'other', subnet }), { code: 'ERR_ARCBOX_INVALID_ARGUMENT' });
  }
  for (const name of ['own', 'bridge', 'host', 'none', 'default']) {
    assert.throws(() => manager.create({ name }), { code: 'ERR_ARCBOX_NETWORK_NAME_IN_USE' });
  }
  for (const name of ['', '-a', 'a/b', 'a'.repeat(129)]) {
    assert.throws(() => manager.create({ name }), { code: 'ERR_ARCBOX_INVALID_ARGUMENT' });
  }
  manager.connect('a', own.id.slice(0, 8));
  assert.throws(() => manager.remove('own'), { code: 'ERR_ARCBOX_NETWORK_IN_USE' });
  manager.release('a');
  assert.equal(manager.remove('own').id, own.id);
  assert.throws(() => manager.find('own'), { code: 'ERR_ARCBOX_NETWORK_NOT_FOUND' });
  assert.throws(() => manager.remove('bridge'), { code: 'ERR_ARCBOX_NETWORK_IN_USE' });
  assert.equal(manager.create({ name: 'next' }).vlan, 2);
});

it('IPv6 beside IPv4: given out, given back when the rest fails, and known after a restart', () => {
  using store = storeWith('a', 'b', 'c');
  const before = new NetworkManager(store.networks, SUBNET);
  const six = { ipv6: true, subnet6: 'fd00:5::/64' };
  before.create({ name: 'own', subnet: '10.5.0.0/24', ...six });
  assert.equal(before.find('own').gateway6, 'fd00:5::1');
  const own = before.connect('a', 'own');
  assert.deepEqual([own.address, own.address6], ['10.5.0.2', 'fd00:5::2']);
  assert.throws(() => before.connect('b', 'own', { address: '10.5.0.9', address6: own.address6 ?? '' }), {
    code: 'ERR_ARCBOX_NETWORK',
  });
  assert.equal(before.connect('b', 'own', { address: '10.5.0.9' }).address6, 'fd00:5::3');
  assert.equal(before.connect('a', 'bridge').address6, undefined);
  assert.throws(() => before.connect('c', 'bridge', { address6: 'fd00:5::7' }), {
    code: 'ERR_ARCBOX_INVALID_ARGUMENT',
    message: /has no IPv6/,
  });
  assert.throws(() => before.create({ name: 'other', ...six }), { code: 'ERR_ARCBOX_NETWORK' });
  assert.throws(() => before.create({ name: 'other', subnet6: 'fd00:6::/64' }), {
    code: 'ERR_ARCBOX_INVALID_ARGUMENT',
  });
  for (const name of ['one', 'two'])
    assert.match(before.create({ name, ipv6: true }).subnet6 ?? '', /^fd[0-9a-f]{2}:[0-9a-f:]+::\/64$/);
  const after = new NetworkManager(store.networks, SUBNET);
  assert.deepEqual(after.list(), before.list());
  assert.deepEqual(after.endpointsOf('a'), before.endpointsOf('a'));
  assert.throws(() => after.connect('c', 'own', { address6: 'fd00:5::2' }), { code: 'ERR_ARCBOX_NETWORK' });
  after.release('a');
  assert.equal(after.connect('c', 'own', { address6: 'fd00:5::2' }).address6, 'fd00:5::2');
});

it('what was given out is known after a restart, and a removed container has left its networks', () => {
  using store = storeWith('a', 'b');
  const before = new NetworkManager(store.networks, SUBNET);
  before.create({ name: 'own', subnet: '10.5.0.0/24', gateway: '10.5.0.254', range: '10.5.0.128/25' });
  const own = before.connect('a', 'own');
  assert.equal(own.address, '10.5.0.128');
  before.connect('b', 'own');
  store.deleteContainer('b');
  const after = new NetworkManager(store.networks, '10.99.0.0/16');
  assert.deepEqual(after.list(), before.list());
  assert.deepEqual(after.endpointsOf('a'), [own]);
  assert.deepEqual(after.endpointsOf('b'), []);
  assert.throws(() => after.connect('c', 'own', { address: own.address }), { code: 'ERR_ARCBOX_NETWORK' });
});
