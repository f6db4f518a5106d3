/** `arcbox network`: container networks, as docker's users know them. */
import type { NetworkJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { eachNamed } from '../each-named.ts';
import { CliError } from '../errors.ts';
import { printInspected } from '../inspected.ts';
import { printList } from '../listing.ts';
import { print } from '../output.ts';
import { type ListingOptions, shortId } from '../table.ts';
import { goMap } from '../template/evaluate.ts';

export interface NetworkCreateOptions {
  readonly subnet?: string;
  readonly gateway?: string;
  readonly ipRange?: string;
  readonly internal?: boolean;
  readonly label?: readonly string[];
  readonly driver?: string;
}

export async function networkList(
  context: Context,
  options: ListingOptions & { readonly trunc?: boolean },
): Promise<number> {
  const { networks = [] } = await context.daemon.call('NetworkService/List', {});
  const id = (network: NetworkJson): string =>
    options.trunc === false ? (network.id ?? '') : shortId(network.id ?? '');
  printList(options, {
    rows: networks.toSorted((a, b) => (a.name ?? '').localeCompare(b.name ?? '')),
    columns: ['ID', 'Name', 'Driver', 'Subnet', 'Containers'],
    headings: { ID: 'NETWORK ID' },
    id: (network) => id(network) || (network.name ?? ''),
    fields: {
      ID: id,
      Name: (network) => network.name ?? '',
      Driver: (network) => network.driver ?? '',
      Scope: () => 'local',
      Subnet: (network) => network.subnet ?? '',
      Gateway: (network) => network.gateway ?? '',
      Containers: (network) => String(network.endpoints?.length ?? 0),
      Internal: (network) => String(network.internal === true),
      IPv6: () => 'false',
      CreatedAt: (network) => new Date(Number(network.createdMs ?? 0)).toISOString(),
      Labels: (network) =>
        Object.entries(network.labels ?? {})
          .map(([key, value]) => `${key}=${value}`)
          .join(','),
    },
  });
  return 0;
}

export async function networkCreate(
  context: Context,
  name: string,
  options: NetworkCreateOptions,
): Promise<number> {
  if (options.driver !== undefined && options.driver !== 'bridge')
    throw new CliError(`the driver ${options.driver} is not supported; networks are of the kind bridge`, 1);
  const labels = Object.fromEntries(
    (options.label ?? []).map((label) => {
      const equals = label.indexOf('=');
      return equals < 0 ? [label, ''] : [label.slice(0, equals), label.slice(equals + 1)];
    }),
  );
  const { network } = await context.daemon.call('NetworkService/Create', {
    name,
    subnet: options.subnet ?? '',
    gateway: options.gateway ?? '',
    range: options.ipRange ?? '',
    internal: options.internal === true,
    labels,
  });
  print(network?.id ?? '');
  return 0;
}

export function networkRemove(context: Context, names: readonly string[]): Promise<number> {
  return eachNamed(names, (network) => context.daemon.call('NetworkService/Remove', { network }));
}

export function networkInspect(
  context: Context,
  names: readonly string[],
  options: { format?: string },
): Promise<number> {
  return printInspected(names, options, async (name) => {
    const { network } = await context.daemon.call('NetworkService/Inspect', { network: name });
    if (network === undefined) throw new CliError(`no such network: ${name}`, 1);
    return dockerNetwork(network);
  });
}

export async function networkConnect(
  context: Context,
  network: string,
  container: string,
  options: { ip?: string; alias?: readonly string[]; macAddress?: string },
): Promise<number> {
  await context.daemon.call('NetworkService/Connect', {
    network,
    container,
    address: options.ip ?? '',
    mac: options.macAddress ?? '',
    aliases: [...(options.alias ?? [])],
  });
  return 0;
}

export async function networkDisconnect(
  context: Context,
  network: string,
  container: string,
): Promise<number> {
  await context.daemon.call('NetworkService/Disconnect', { network, container });
  return 0;
}

export async function networkPrune(context: Context): Promise<number> {
  const { names = [] } = await context.daemon.call('NetworkService/Prune', {});
  for (const name of names) print(name);
  return 0;
}

/** As `docker network inspect` shows it. */
function dockerNetwork(network: NetworkJson): Record<string, unknown> {
  const prefix = (network.subnet ?? '').split('/')[1] ?? '';
  return {
    Name: network.name ?? '',
    Id: network.id ?? '',
    Created: new Date(Number(network.createdMs ?? 0)).toISOString(),
    Scope: 'local',
    Driver: network.driver ?? '',
    EnableIPv6: false,
    IPAM: {
      Driver: 'default',
      Config:
        network.subnet === undefined
          ? []
          : [
              {
                Subnet: network.subnet,
                Gateway: network.gateway ?? '',
                ...((network.range ?? '') === '' ? {} : { IPRange: network.range }),
              },
            ],
    },
    Internal: network.internal === true,
    Vlan: network.vlan ?? 0,
    Containers: goMap(
      Object.fromEntries(
        (network.endpoints ?? []).map((endpoint) => [
          endpoint.containerId ?? '',
          {
            Name: endpoint.containerName ?? '',
            MacAddress: endpoint.mac ?? '',
            IPv4Address: `${endpoint.address}/${prefix}`,
            Aliases: endpoint.aliases ?? [],
          },
        ]),
      ),
    ),
    Labels: goMap(network.labels ?? {}),
  };
}
