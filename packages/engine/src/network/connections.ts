/** Containers that join and leave networks while they exist, whether they run or not. */
import type { Container } from '../container/container.ts';
import { EngineError } from '../errors.ts';
import type { EventLog } from '../events/event-log.ts';
import type { Machine } from '../machine/machine.ts';
import { guestInterface, networkMode } from './container-network.ts';
import type { ConnectOptions, NetworkManager } from './network-manager.ts';
import { type NetworkPlane, namedContainer } from './network-plane.ts';

export interface ConnectionEnvironment {
  readonly networks: NetworkManager;
  readonly events: EventLog;
  readonly plane: NetworkPlane;
  machine(name: string): Machine;
}

/** Throws `ERR_ARCBOX_NETWORK…`; then it is as it was. */
export async function connectContainer(
  environment: ConnectionEnvironment,
  container: Container,
  reference: string,
  options: ConnectOptions,
): Promise<void> {
  const { networks } = environment;
  await container.transitions.run(async () => {
    const { record } = container;
    if (networkMode(record).kind !== 'network') {
      throw new EngineError(
        'ERR_ARCBOX_NETWORK',
        `the container ${record.name} was created with the network ${record.config.host.networkMode} and can join no other`,
      );
    }
    const endpoint = networks.connect(record.id, reference, options);
    try {
      if (container.process !== undefined) {
        const { network: guest } = await environment.machine(record.machine).ensure();
        const isFirst = networks.endpointsOf(record.id).length === 1;
        await guest.connect(record.id, guestInterface(networks, endpoint, isFirst));
        await environment.plane.join(record.machine, namedContainer(record));
      }
    } catch (error) {
      networks.disconnect(record.id, endpoint.networkId);
      throw error;
    }
    emit(environment, 'connect', endpoint.networkId, record.id);
  });
}

/** Throws `ERR_ARCBOX_NETWORK_NOT_FOUND` when it is not in it. */
export async function disconnectContainer(
  environment: ConnectionEnvironment,
  container: Container,
  reference: string,
): Promise<void> {
  const { networks } = environment;
  await container.transitions.run(async () => {
    const { record } = container;
    const endpoint = networks.endpointIn(record.id, reference);
    // The cable first: an address is given to nobody else while it still answers.
    if (container.process !== undefined) {
      const { network: guest } = await environment.machine(record.machine).ensure();
      await guest.disconnect(endpoint.number);
      await environment.plane.part(record.id, networks.find(endpoint.networkId));
    }
    networks.disconnect(record.id, endpoint.networkId);
    emit(environment, 'disconnect', endpoint.networkId, record.id);
  });
}

function emit(
  { events, networks }: ConnectionEnvironment,
  action: string,
  networkId: string,
  containerId: string,
): void {
  const { name } = networks.find(networkId);
  events.emit('network', action, networkId, { name, type: 'bridge', container: containerId });
}
