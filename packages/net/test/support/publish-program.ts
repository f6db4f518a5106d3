/** Publishes a port and says which, until it is killed. */
import { connect } from 'node:net';
import { PublishedPorts, parsePortSpec } from '../../src/ports/index.ts';

const published = await PublishedPorts.publish({
  mappings: parsePortSpec(`127.0.0.1::${process.argv[2]}`),
  address: '10.1.0.2',
  inside: {
    dial: async (target) => connect({ host: '127.0.0.1', port: target.port, allowHalfOpen: true }),
    datagrams: () => ({ send() {}, close() {} }),
  },
});
process.send?.(published.fixed());
