/** What a network's gateway answers itself: questions for names (DNS) and for addresses (DHCP). */
import { duplexPair } from 'node:stream';
import { DHCP_SERVER_PORT, DhcpServer } from '../dhcp/index.ts';
import { type DnsServer, type NameTable, serveDnsStream } from '../dns/index.ts';
import { AddressPool } from '../ipam/index.ts';
import { DuplexStream } from '../relay/duplex-stream.ts';
import type { NetworkStack } from '../stack/network-stack.ts';
import { formatMac, ipBytes, ipText } from '../wire/address.ts';
import type { NetworkSetup } from './protocol.ts';

const DNS_PORT = 53;
const BROADCAST_MAC = new Uint8Array(6).fill(0xff);

export function serveNames(stack: NetworkStack, dns: DnsServer): void {
  stack.udp.bind(DNS_PORT, (datagram) => {
    const source = {
      vm: datagram.hop.port.link.name,
      network: stack.name,
      address: ipText(datagram.source),
      mac: formatMac(datagram.hop.mac),
    };
    // The datagram's bytes are good for this call only; the answer may take a while.
    void dns.handle(datagram.payload.slice(), source, 'udp').then((answer) => {
      if (answer === undefined || !datagram.hop.port.open) return;
      const pair = {
        version: datagram.version,
        source: datagram.destination,
        destination: datagram.source,
      };
      stack.udp.send(datagram.hop, pair, DNS_PORT, datagram.sourcePort, answer);
      datagram.hop.port.flush();
    });
  });
  stack.listen(DNS_PORT, (flow, events) => {
    const [ours, theirs] = duplexPair();
    const stream = new DuplexStream(ours, events);
    serveDnsStream(theirs, dns, {
      vm: flow.link,
      network: flow.network,
      address: flow.source,
      mac: flow.sourceMac,
    });
    queueMicrotask(() => {
      events.connected();
      stream.resume();
    });
    return stream;
  });
}

/**
 * Who is on the network gets the address that it has there already, by its hardware address: the daemon gives
 * addresses out, and this server says what they are to guests that ask in their own way. In a network of one machine,
 * which the daemon keeps no addresses of, whoever asks gets one.
 */
export function serveAddresses(stack: NetworkStack, setup: NetworkSetup, names: NameTable): void {
  const { subnet, gateway, mtu, internal, leases = 'endpoints' } = setup;
  const server = new DhcpServer({
    pool: new AddressPool({ subnet, gateway }),
    mtu,
    // The name server answers in an internal network, too; there is only no way out of it.
    ...(internal ? { routers: [] } : {}),
    reservedOnly: leases === 'endpoints',
    reservation: (mac) => {
      const endpoint = names.endpointOf(setup.name, mac);
      const address = endpoint?.addresses.find((each) => !each.includes(':'));
      const [hostName] = endpoint?.names ?? [];
      return address === undefined ? undefined : { address, ...(hostName === undefined ? {} : { hostName }) };
    },
  });
  const source = ipBytes(gateway);
  stack.udp.bind(DHCP_SERVER_PORT, ({ hop, version, payload }) => {
    if (version !== 4) return;
    const reply = server.handle(payload, Date.now());
    if (reply === undefined) return;
    const to = { ...hop, mac: reply.hardwareAddress ?? BROADCAST_MAC };
    const pair = { version, source, destination: ipBytes(reply.address) };
    stack.udp.send(to, pair, DHCP_SERVER_PORT, reply.port, reply.payload);
    hop.port.flush();
  });
}
