import assert from 'node:assert/strict';
import { it } from 'node:test';
import { NetError, type NetErrorCode } from '@arcbox/net/errors';
import { PortBindings, type PortPublisher } from '../src/network/port-bindings.ts';

const TARGET = { network: 'bridge', address: '172.20.0.2' };

/** A host on which binding fails as `refuse` says. */
class Host implements PortPublisher {
  readonly bound = new Map<string, string>();
  readonly refuse: (address: string, port: number) => NetErrorCode | undefined;

  constructor(refuse: Host['refuse'] = () => undefined) {
    this.refuse = refuse;
  }

  async publish({ id, hostAddress, hostPort }: Parameters<PortPublisher['publish']>[0]): Promise<number> {
    assert.ok(!this.bound.has(id), 'an id names one port');
    const code = this.refuse(hostAddress, hostPort);
    if (code !== undefined) throw new NetError(code, `${hostAddress} ${hostPort} refused`);
    this.bound.set(id, `${hostAddress} ${hostPort}`);
    return hostPort;
  }

  async unpublish(id: string): Promise<void> {
    assert.ok(this.bound.delete(id), 'was bound');
  }

  get ends(): string[] {
    return [...this.bound.values()];
  }
}

it('a port without an address is bound in both families, also several of one container port', async () => {
  const host = new Host();
  const ports = new PortBindings();
  await ports.open(host, 'c', ['8080:80', '8081:80'], TARGET);
  assert.deepEqual(host.ends, ['0.0.0.0 8080', ':: 8080', '0.0.0.0 8081', ':: 8081']);
  assert.equal(ports.of('c').length, 4);
  await ports.close(host, 'c');
  assert.deepEqual(host.ends, []);
});

it('taken in one family: nothing of the container is bound', async () => {
  const host = new Host((address, port) =>
    address === '::' && port === 8081 ? 'ERR_ARCBOX_NET_PORT_TAKEN' : undefined,
  );
  const ports = new PortBindings();
  await assert.rejects(ports.open(host, 'c', ['8080:80', '8081:80'], TARGET), {
    code: 'ERR_ARCBOX_NETWORK',
    message: /:: 8081 refused/,
  });
  assert.deepEqual(host.ends, []);
  assert.equal(ports.has('c'), false);
});

it('of a range, or of any, the first port that is free in both families', async () => {
  const host = new Host((address, port) =>
    (address === '::' && port === 9000) || (address === '0.0.0.0' && port === 9001)
      ? 'ERR_ARCBOX_NET_PORT_TAKEN'
      : undefined,
  );
  const ports = new PortBindings();
  await ports.open(host, 'c', ['9000-9002:80'], TARGET);
  assert.deepEqual(host.ends, ['0.0.0.0 9002', ':: 9002']);
  await ports.open(host, 'd', ['80'], TARGET);
  const [four, six] = ports.of('d');
  assert.equal(four?.hostPort, six?.hostPort);
});

it('a host without IPv6 binds what it has; an address of it that was asked for is refused', async () => {
  const host = new Host((address) => (address.includes(':') ? 'ERR_ARCBOX_NET_NO_ADDRESS' : undefined));
  const ports = new PortBindings();
  await ports.open(host, 'c', ['8080:80'], TARGET);
  assert.deepEqual(host.ends, ['0.0.0.0 8080']);
  await assert.rejects(ports.open(host, 'd', ['[::]:8081:80'], TARGET), { code: 'ERR_ARCBOX_NETWORK' });
  await assert.rejects(ports.open(host, 'd', ['[::1]:8081:80'], TARGET), { code: 'ERR_ARCBOX_NETWORK' });
  assert.equal(ports.has('d'), false);
});
