/** A container's side of networks: what its `--network` means, and its links while it runs. */
import { requireIp } from '@arcbox/net/ipam';
import type { ContainerRecord } from '../container/container-record.ts';
import { containerOfMode } from '../container/host-options.ts';
import { namespacePath } from '../machine/guest-layout.ts';
import type { GuestInterface, GuestNetwork } from './guest-network.ts';
import { DEFAULT_NETWORK, type NetworkManager } from './network-manager.ts';
import { MACHINE_NETWORK } from './network-plane.ts';
import type { EndpointRecord } from './network-record.ts';

export type NetworkMode =
  /** A namespace of its own, connected to this network. */
  | { readonly kind: 'network'; readonly name: string }
  /** A namespace of its own with nothing but a loopback interface. */
  | { readonly kind: 'none' }
  /** The machine's. */
  | { readonly kind: 'host' }
  /** Another container's. */
  | { readonly kind: 'container'; readonly reference: string };

export function networkMode({ config }: ContainerRecord): NetworkMode {
  const mode = config.host.networkMode;
  const reference = containerOfMode(mode);
  if (reference !== undefined) return { kind: 'container', reference };
  if (mode === 'none' || mode === 'host') return { kind: mode };
  return { kind: 'network', name: mode === '' || mode === 'default' ? DEFAULT_NETWORK : mode };
}

/** Where a container that is about to run finds its network. */
export interface NetworkPlace {
  /** Of the namespace; undefined: a new one with nothing in it. */
  readonly path: string | undefined;
  /** Its own address in the first network; empty when it has none. */
  readonly address: string;
  /** Likewise, where that network has IPv6. */
  readonly address6: string;
  /** Who answers its questions for names; empty when nobody does. */
  readonly nameServer: string;
}

/** The machine's own network, which has an address once the first container asks for it. */
export async function useMachineNetwork(guest: GuestNetwork): Promise<NetworkPlace> {
  const { address, prefix, gateway } = MACHINE_NETWORK;
  await guest.connectMachine(ipBytes(address), prefix, ipBytes(gateway));
  return { path: 'host', address, address6: '', nameServer: gateway };
}

export const NO_NETWORK: NetworkPlace = { path: undefined, address: '', address6: '', nameServer: '' };

/** Gives a new container its places in the networks that it asks for. Throws `ERR_ARCBOX_NETWORK…`. */
export function joinNetwork(networks: NetworkManager, record: ContainerRecord): void {
  const mode = networkMode(record);
  const { ipAddress, ip6Address, macAddress, networkAliases, networks: further } = record.config.host;
  if (mode.kind !== 'network') return;
  const first = {
    network: mode.name,
    address: ipAddress,
    address6: ip6Address,
    mac: macAddress,
    aliases: networkAliases,
  };
  for (const { network, address, address6, mac, aliases } of [first, ...further])
    networks.connect(record.id, network, {
      aliases,
      ...(address === '' ? {} : { address }),
      ...(address6 === '' ? {} : { address6 }),
      ...(mac === '' ? {} : { mac }),
    });
}

/** Makes the container's namespace and connects it to all its networks. Its bundle directory is there already. */
export async function plugIn(
  guest: GuestNetwork,
  networks: NetworkManager,
  record: ContainerRecord,
): Promise<NetworkPlace> {
  if (networkMode(record).kind !== 'network') return NO_NETWORK;
  const endpoints = networks.endpointsOf(record.id);
  await guest.plugIn(
    record.id,
    endpoints.map((endpoint) => guestInterface(networks, endpoint, endpoint === endpoints[0])),
  );
  const place = placeOf(networks, record);
  return { ...place, path: namespacePath(record.id) };
}

/** The addresses of a container, and who resolves names for it. */
export function placeOf(networks: NetworkManager, record: ContainerRecord): NetworkPlace {
  const [first] = networks.endpointsOf(record.id);
  if (first === undefined) return NO_NETWORK;
  return {
    path: undefined,
    address: first.address,
    address6: first.address6 ?? '',
    nameServer: networks.find(first.networkId).gateway,
  };
}

/** The default route goes through the first of a container's networks; that of IPv6 through the first that has it. */
export function guestInterface(
  networks: NetworkManager,
  endpoint: EndpointRecord,
  isFirst: boolean,
): GuestInterface {
  const network = networks.find(endpoint.networkId);
  const addresses = [{ address: ipBytes(endpoint.address), prefix: prefixOf(network.subnet) }];
  const gateways = isFirst && !network.internal ? [ipBytes(network.gateway)] : [];
  if (endpoint.address6 !== undefined && network.subnet6 !== undefined) {
    addresses.push({ address: ipBytes(endpoint.address6), prefix: prefixOf(network.subnet6) });
    // The one that was connected first: another that comes while the container runs finds a route there.
    const first = networks
      .endpointsOf(endpoint.containerId)
      .filter(({ address6, networkId }) => address6 !== undefined && !networks.find(networkId).internal)
      .reduce((least, { number }) => Math.min(least, number), Number.POSITIVE_INFINITY);
    if (first === endpoint.number && network.gateway6 !== undefined) gateways.push(ipBytes(network.gateway6));
  }
  const mac = Buffer.from(endpoint.mac.replaceAll(':', ''), 'hex');
  const { number, position } = endpoint;
  return { number, vlan: network.vlan, position, mac, addresses, gateways };
}

function prefixOf(subnet: string): number {
  return Number(subnet.slice(subnet.indexOf('/') + 1));
}

/** 4 or 16 bytes. */
function ipBytes(text: string): Buffer {
  const { family, value } = requireIp(text);
  const bytes = family === 4 ? 4 : 16;
  return Buffer.from(value.toString(16).padStart(2 * bytes, '0'), 'hex');
}
