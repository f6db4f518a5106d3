/** `arcbox network`: container networks, as docker's users know them. */
import type { NetworkJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { eachNamed } from '../each-named.ts';
import { CliError } from '../errors.ts';
import { printList } from '../listing.ts';
import { print } from '../output.ts';
import { filterRows, hasLabel, parseFilters, type RowFilters, truth } from '../row-filters.ts';
import { type ListingOptions, labelText, shortId } from '../table.ts';
import { goMap } from '../template/evaluate.ts';

export interface NetworkCreateOptions {
  /** One of each for each family. */
  readonly subnet?: readonly string[];
  readonly gateway?: readonly string[];
  readonly ipRange?: readonly string[];
  readonly ipv6?: boolean;
  readonly internal?: boolean;
  readonly label?: readonly string[];
  readonly driver?: string;
}

/** Networks that are always there. */
const BUILT_IN = new Set(['bridge', 'host', 'none']);
const FILTERS: RowFilters<NetworkJson> = {
  id: ({ id = '' }, value) => id.startsWith(value),
  name: ({ name = '' }, value) => name.includes(value),
  label: ({ labels }, value) => hasLabel(labels, value),
  driver: ({ driver }, value) => driver === value,
  type: ({ name = '' }, value) => BUILT_IN.has(name) === (value === 'builtin'),
  dangling: ({ name = '', endpoints = [] }, value) =>
    (endpoints.length === 0 && !BUILT_IN.has(name)) === truth('dangling', value),
};

export async function networkList(
  context: Context,
  options: ListingOptions & { readonly trunc?: boolean; readonly filter?: readonly string[] },
): Promise<number> {
  const { networks = [] } = await context.daemon.call('NetworkService/List', {});
  const id = (network: NetworkJson): string =>
    options.trunc === false ? (network.id ?? '') : shortId(network.id ?? '');
  printList(options, {
    rows: filterRows(networks, parseFilters(options.filter ?? [], FILTERS), FILTERS).toSorted((a, b) =>
      (a.name ?? '').localeCompare(b.name ?? ''),
    ),
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
      IPv6: (network) => String((network.subnet6 ?? '') !== ''),
      CreatedAt: (network) => new Date(Number(network.createdMs ?? 0)).toISOString(),
      Labels: ({ labels = {} }) => labelText(labels),
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
  const subnet = byFamily('--subnet', options.subnet);
  const gateway = byFamily('--gateway', options.gateway);
  const range = byFamily('--ip-range', options.ipRange);
  const { network } = await context.daemon.call('NetworkService/Create', {
    name,
    subnet: subnet.four,
    gateway: gateway.four,
    range: range.four,
    ipv6: options.ipv6 === true,
    subnet6: subnet.six,
    gateway6: gateway.six,
    range6: range.six,
    internal: options.internal === true,
    labels,
  });
  print(network?.id ?? '');
  return 0;
}

/** At most one of each family; the other one is empty. */
function byFamily(flag: string, given: readonly string[] = []): { four: string; six: string } {
  const six = given.filter((text) => text.includes(':'));
  const four = given.filter((text) => !text.includes(':'));
  if (four.length > 1 || six.length > 1)
    throw new CliError(
      `${flag}: a network has one for IPv4 and one for IPv6; ${given.join(', ')} are more`,
      1,
    );
  return { four: four[0] ?? '', six: six[0] ?? '' };
}

export function networkRemove(
  context: Context,
  names: readonly string[],
  options: { force?: boolean },
): Promise<number> {
  return eachNamed(names, async (network) => {
    try {
      return await context.daemon.call('NetworkService/Remove', { network });
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : '';
      // As docker: with -f one that is not there is as good as removed.
      if (options.force !== true || code !== 'ERR_ARCBOX_NETWORK_NOT_FOUND') throw error;
      return false;
    }
  });
}

export async function describeNetwork(context: Context, name: string): Promise<Record<string, unknown>> {
  const { network } = await context.daemon.call('NetworkService/Inspect', { network: name });
  if (network === undefined) throw new CliError(`no such network: ${name}`, 1);
  return dockerNetwork(network);
}

export async function networkConnect(
  context: Context,
  network: string,
  container: string,
  options: { ip?: string; ip6?: string; alias?: readonly string[]; macAddress?: string },
): Promise<number> {
  await context.daemon.call('NetworkService/Connect', {
    network,
    container,
    address: options.ip ?? '',
    address6: options.ip6 ?? '',
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

/** One family's addresses, where the network has it. */
function blockOf(subnet = '', gateway = '', range = ''): Record<string, string>[] {
  if (subnet === '') return [];
  return [{ Subnet: subnet, Gateway: gateway, ...(range === '' ? {} : { IPRange: range }) }];
}

/** As `docker network inspect` shows it. */
function dockerNetwork(network: NetworkJson): Record<string, unknown> {
  const prefix = (network.subnet ?? '').split('/')[1] ?? '';
  const prefix6 = (network.subnet6 ?? '').split('/')[1] ?? '';
  return {
    Name: network.name ?? '',
    Id: network.id ?? '',
    Created: new Date(Number(network.createdMs ?? 0)).toISOString(),
    Scope: 'local',
    Driver: network.driver ?? '',
    EnableIPv6: prefix6 !== '',
    IPAM: {
      Driver: 'default',
      Config: [
        ...blockOf(network.subnet, network.gateway, network.range),
        ...blockOf(network.subnet6, network.gateway6, network.range6),
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
            IPv6Address: (endpoint.address6 ?? '') === '' ? '' : `${endpoint.address6}/${prefix6}`,
            Aliases: endpoint.aliases ?? [],
          },
        ]),
      ),
    ),
    Labels: goMap(network.labels ?? {}),
  };
}
