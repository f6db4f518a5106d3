import assert from 'node:assert/strict';
import { it } from 'node:test';
import { parseConnections } from '../src/network/old-connections.ts';

const HEAD =
  '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n';

it('the kernel’s list of connections: those that may wait, with their ends, both families and mapped ones', () => {
  const four = `${HEAD}   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 020014AC:9C40 010014AC:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 020014AC:9C41 010014AC:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 1
   3: 020014AC:9C42 08080808:01BB 05 00000000:00000000 00:00000000 00000000     0        0 3 1
`;
  assert.deepEqual(parseConnections(four), [
    { address: '172.20.0.2', port: 40_000, peer: '172.20.0.1', peerPort: 8080 },
    { address: '172.20.0.2', port: 40_002, peer: '8.8.8.8', peerPort: 443 },
  ]);
  const six = `${HEAD}   0: 000000FD000000000000000002000000:0050 000000FD000000000000000001000000:9C40 08 0
   1: 0000000000000000FFFF0000020014AC:0050 0000000000000000FFFF0000010014AC:9C40 01 0
`;
  assert.deepEqual(parseConnections(six), [
    { address: 'fd00::2', port: 80, peer: 'fd00::1', peerPort: 40_000 },
    { address: '172.20.0.2', port: 80, peer: '172.20.0.1', peerPort: 40_000 },
  ]);
  assert.deepEqual(parseConnections(''), []);
  assert.deepEqual(parseConnections('nonsense\n  0: zz\n'), []);
});
