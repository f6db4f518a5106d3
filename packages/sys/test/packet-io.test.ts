import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  closeFd,
  configureInterface,
  eventFd,
  PacketBuffers,
  Poller,
  SysError,
  TunDevice,
} from '../src/index.ts';

describe('packets and waiting for them', () => {
  it('reads what is there, says when nothing is, and waits for one of several descriptors', () => {
    const [first, second] = [eventFd(), eventFd()] as const;
    try {
      const poller = new Poller([first, second]);
      const buffers = new PacketBuffers(2, 64);
      assert.equal(poller.wait(0), false);
      assert.equal(buffers.read(second, 0), -1);
      // An event's counter goes in and out as eight bytes.
      buffers.bytes[64] = 7;
      assert.equal(buffers.write(second, 1, 8), true);
      assert.equal(poller.wait(-1), true);
      assert.deepEqual([poller.ready(0), poller.ready(1), poller.broken(1)], [false, true, false]);
      assert.equal(buffers.read(second, 0), 8);
      assert.equal(buffers.bytes[0], 7);
      assert.equal(buffers.read(second, 0), -1);
    } finally {
      closeFd(first);
      closeFd(second);
    }
  });

  it('tells a descriptor that is none', () => {
    const fd = eventFd();
    closeFd(fd);
    const buffers = new PacketBuffers(1, 64);
    assert.throws(
      () => buffers.read(fd, 0),
      (error) => error instanceof SysError && error.code === 'EBADF',
    );
    assert.throws(
      () => buffers.write(fd, 0, 8),
      (error) => error instanceof SysError && error.code === 'EBADF',
    );
  });

  it('refuses names that no interface can have', () => {
    assert.throws(() => TunDevice.open({ name: 'longer-than-15-bytes', kind: 'tun' }), RangeError);
    const options = { address: Uint8Array.of(10, 0, 0, 1), prefixLength: 24, mtu: 1500 };
    assert.throws(() => configureInterface('', options), RangeError);
    assert.throws(
      () => configureInterface('nosuch0', options),
      (error) => error instanceof SysError && error.code === 'ENODEV',
    );
  });
});
