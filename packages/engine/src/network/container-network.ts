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
  /** Who answers its questions for names; empty when nobody does. */
  readonly nameServer: string;
}

/** The machine's own network, which has an address once the first container asks for it. */
export async function useMachineNetwork(guest: GuestNetwork): Promise<NetworkPlace> {
  const { address, prefix, gateway } = MACHINE_NETWORK;
  await guest.connectMachine(ipv4Bytes(address), prefix, ipv4Bytes(gateway));
  return { path: 'host', address, nameServer: gateway };
}

export const NO_NETWORK: NetworkPlace = { path: undefined, address: '', nameServer: '' };

/** Gives a new container its place in the network that it asks for. Throws `ERR_ARCBOX_NETWORK…`. */
export function joinNetwork(networks: NetworkManager, record: ContainerRecord): void {
  const mode = networkMode(record);
  const { ipAddress, macAddress, networkAliases } = record.config.host;
  if (mode.kind !== 'network') return;
  networks.connect(record.id, mode.name, {
    aliases: networkAliases,
    ...(ipAddress === '' ? {} : { address: ipAddress }),
    ...(macAddress === '' ? {} : { mac: macAddress }),
  });
}

/** Makes the container's namespace and connects it to all its networks. Its bundle directory is there already. */
export async function plugIn(
  guest: GuestNetwork,
  networks: NetworkManager,
  record: ContainerRecord,
): Promise<NetworkPlace> {
  if (networkMode(record).kind !== 'network') return NO_NETWORK;
  await guest.createNamespace(record.id);
  const endpoints = networks.endpointsOf(record.id);
  for (const endpoint of endpoints) {
    await guest.connect(record.id, guestInterface(networks, endpoint, endpoint === endpoints[0]));
  }
  const place = placeOf(networks, record);
  return { ...place, path: namespacePath(record.id) };
}

/** The addresses of a container, and who resolves names for it. */
export function placeOf(networks: NetworkManager, record: ContainerRecord): NetworkPlace {
  const [first] = networks.endpointsOf(record.id);
  if (first === undefined) return NO_NETWORK;
  return { path: undefined, address: first.address, nameServer: networks.find(first.networkId).gateway };
}

/** The default route goes through the first of a container's networks. */
export function guestInterface(
  networks: NetworkManager,
  endpoint: EndpointRecord,
  isFirst: boolean,
): GuestInterface {
  const network = networks.find(endpoint.networkId);
  return {
    number: endpoint.number,
    vlan: network.vlan,
    position: endpoint.position,
    mac: Buffer.from(endpoint.mac.replaceAll(':', ''), 'hex'),
    addresses: [
      {
        address: ipv4Bytes(endpoint.address),
        prefix: Number(network.subnet.slice(network.subnet.indexOf('/') + 1)),
      },
    ],
    gateways: isFirst && !network.internal ? [ipv4Bytes(network.gateway)] : [],
  };
}

function ipv4Bytes(text: string): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(Number(requireIp(text).value));
  return bytes;
}
