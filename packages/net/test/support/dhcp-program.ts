/** A DHCP server on port 67 of the namespace it runs in. */
import { DhcpServer, serveDhcpUdp } from '../../src/dhcp/index.ts';
import { AddressPool } from '../../src/ipam/index.ts';

const server = new DhcpServer({
  pool: new AddressPool({ subnet: '10.77.0.0/24' }),
  leaseS: 3600,
  mtu: 1400,
  domainName: 'arcbox.local',
  domainSearch: ['arcbox.local', 'example.test'],
  routes: [
    { destination: '0.0.0.0/0', gateway: '10.77.0.1' },
    { destination: '10.96.0.0/12', gateway: '10.77.0.254' },
  ],
});
const { handle } = server;
server.handle = (packet, nowMs) => {
  const reply = handle.call(server, packet, nowMs);
  process.stdout.write(`acks ${server.counters.acks}\nreleases ${server.counters.releases}\n`);
  return reply;
};
const serving = await serveDhcpUdp({
  server,
  onError: (error) => {
    throw error;
  },
});
process.stdin.on('end', () => {
  process.stdout.write(`${JSON.stringify({ counters: server.counters, bindings: [...server.bindings] })}\n`);
  void serving[Symbol.asyncDispose]();
});
process.stdin.resume();
process.stdout.write('ready\n');
