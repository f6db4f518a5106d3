import {
  connectContainer,
  disconnectContainer,
  type EndpointRecord,
  type NetworkRecord,
  type Runtime,
} from '@arcbox/engine';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import type { NetworkEndpointSchema, NetworkSchema, NetworkService } from '../gen/arcbox/v1/network_pb.ts';
import { networkInsight } from './network-insight.ts';

type NetworkInit = MessageInitShape<typeof NetworkSchema>;

/** Names that stand for no network of ours, as docker lists them. */
const PSEUDO: readonly NetworkInit[] = [
  { name: 'host', driver: 'host' },
  { name: 'none', driver: 'null' },
];

export function networkService(runtime: Runtime): ServiceImpl<typeof NetworkService> {
  const { networks, events } = runtime;
  const environment = {
    networks,
    events,
    plane: runtime.plane,
    machine: (name: string) => runtime.machine(name),
  };
  const describe = async (record: NetworkRecord): Promise<NetworkInit> => {
    const containers = await runtime.containers();
    const nameOf = (id: string): string =>
      containers.all().find(({ record: { id: own } }) => own === id)?.record.name ?? '';
    return toMessage(record, networks.endpointsIn(record.id), nameOf);
  };
  return {
    ...networkInsight(runtime),
    async list() {
      return { networks: [...(await Promise.all(networks.list().map(describe))), ...PSEUDO] };
    },
    async inspect({ network }) {
      const pseudo = PSEUDO.find(({ name }) => name === network);
      return { network: pseudo ?? (await describe(networks.find(network))) };
    },
    async create({ name, internal, labels, ipv6, ...blocks }) {
      const record = networks.create({
        name,
        internal,
        labels,
        ipv6,
        ...given(blocks, ['subnet', 'gateway', 'range', 'subnet6', 'gateway6', 'range6']),
      });
      events.emit('network', 'create', record.id, { name, type: 'bridge' });
      return { network: await describe(record) };
    },
    async remove({ network }) {
      await runtime.removeNetwork(network);
      return {};
    },
    async connect({ network, container, aliases, ...places }) {
      const target = (await runtime.containers()).find(container);
      await connectContainer(environment, target, network, {
        aliases,
        ...given(places, ['address', 'address6', 'mac']),
      });
      return {};
    },
    async disconnect({ network, container }) {
      const target = (await runtime.containers()).find(container);
      await disconnectContainer(environment, target, network);
      return {};
    },
    async prune() {
      const names: string[] = [];
      for (const { id, name } of networks.unused()) {
        await runtime.removeNetwork(id);
        names.push(name);
      }
      return { names };
    },
  };
}

function toMessage(
  record: NetworkRecord,
  endpoints: readonly EndpointRecord[],
  nameOf: (containerId: string) => string,
): NetworkInit {
  return {
    id: record.id,
    name: record.name,
    driver: 'bridge',
    subnet: record.subnet,
    gateway: record.gateway,
    range: record.range ?? '',
    subnet6: record.subnet6 ?? '',
    gateway6: record.gateway6 ?? '',
    range6: record.range6 ?? '',
    internal: record.internal,
    labels: { ...record.labels },
    createdMs: BigInt(record.createdMs),
    vlan: record.vlan,
    endpoints: endpoints.map(
      (endpoint): MessageInitShape<typeof NetworkEndpointSchema> => ({
        containerId: endpoint.containerId,
        containerName: nameOf(endpoint.containerId),
        interface: `eth${endpoint.position}`,
        address: endpoint.address,
        address6: endpoint.address6 ?? '',
        mac: endpoint.mac,
        aliases: [...endpoint.aliases],
      }),
    ),
  };
}

/** Those of a message's texts that are not empty. */
function given<K extends string>(
  message: Readonly<Record<K, string>>,
  keys: readonly K[],
): { [P in K]?: string } {
  const texts: { [P in K]?: string } = {};
  for (const key of keys) if (message[key] !== '') texts[key] = message[key];
  return texts;
}
