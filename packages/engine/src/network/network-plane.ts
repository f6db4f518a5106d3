/**
 * Joins machines' cards with our network stack, which runs in a thread of its own: every network that a container of a
 * machine is in is a VLAN on that machine's card, and has a gateway and a name server there.
 *
 * The thread knows nothing that is not here. When it dies, which is a bug, it is started again and told everything.
 */
import { cidrContains, formatIp, requireCidr, requireIp } from '@arcbox/net/ipam';
import type { UplinkOptions } from '@arcbox/net/nat';
import { NetworkWorker, type WorkerFlows, type WorkerStats } from '@arcbox/net/worker';
import { faultPoint } from '@arcbox/sys';
import type { RunningVm } from '@arcbox/vm';
import type { Config } from '../config.ts';
import type { ContainerRecord } from '../container/container-record.ts';
import { EngineError, messageOf } from '../errors.ts';
import { CARD_MTU } from '../limits.ts';
import type { Logger } from '../logger.ts';
import { Captures, type FrameTaker } from './captures.ts';
import type { NetworkManager } from './network-manager.ts';
import type { EndpointRecord, NetworkRecord } from './network-record.ts';
import type { OldConnection } from './old-connections.ts';
import type { NetworkPolicies } from './policies.ts';
import type { PolicySubject } from './policy-table.ts';
import { type BoundPort, PortBindings } from './port-bindings.ts';

const CARD = 0;
const UNTAGGED = 0;

/**
 * What a machine has on its card itself, without a VLAN: a network of two, of link-local addresses, so that it is in
 * nobody's way. It is the same in every machine.
 */
export const MACHINE_NETWORK = {
  subnet: '169.254.100.0/30',
  gateway: '169.254.100.1',
  address: '169.254.100.2',
  prefix: 30,
} as const;

/** A container as the name server knows it. */
export interface NamedContainer {
  readonly id: string;
  readonly names: readonly string[];
  /** Ports of the host that lead to it, as `-p` has them. */
  readonly publish: readonly string[];
}

/** Of the ID's digits, as docker shows it: a container's name when it has no other. */
const SHORT_ID_LENGTH = 12;

export function namedContainer({ id, name, config }: ContainerRecord): NamedContainer {
  return { id, names: [name, id.slice(0, SHORT_ID_LENGTH)], publish: config.host.publish };
}

interface Cable {
  readonly vm: RunningVm;
  /** By network ID. */
  readonly attached: Map<string, Promise<void>>;
}

export class NetworkPlane implements AsyncDisposable {
  readonly #networks: NetworkManager;
  readonly #policies: NetworkPolicies;
  readonly #uplink: UplinkOptions | undefined;
  readonly #logger: Logger;
  readonly #captures = new Captures((machine, take) => this.#tap(machine, take));
  #worker: Promise<NetworkWorker> | undefined;
  /** Networks that the worker has been told of, by ID. */
  readonly #known = new Map<string, Promise<void>>();
  /** By machine. */
  readonly #cables = new Map<string, Cable>();
  readonly #joined = new Map<string, { readonly machine: string; readonly container: NamedContainer }>();
  readonly #ports = new PortBindings();
  #closed = false;

  constructor(
    networks: NetworkManager,
    policies: NetworkPolicies,
    uplink: UplinkOptions | undefined,
    logger: Logger,
  ) {
    this.#uplink = uplink;
    this.#networks = networks;
    this.#policies = policies;
    this.#logger = logger;
  }

  /** Starts the thread beside whatever else takes time. */
  warmUp(): void {
    void this.#start().catch(() => {});
  }

  /** Plugs in the card of a machine that is up; again when it came up again. A driver without sockets has no network. */
  async plug(machine: string, vm: RunningVm): Promise<void> {
    const path = vm.nicPath(CARD);
    if (path === undefined) return;
    const worker = await this.#start();
    if (this.#cables.has(machine)) await this.unplug(machine);
    this.#cables.set(machine, { vm, attached: new Map() });
    await this.#tellPolicy(worker, { kind: 'machine', id: machine });
    await worker.plug(machine, path);
    await worker.attach(machine, UNTAGGED, await this.#machineNetwork(worker, machine));
  }

  async unplug(machine: string): Promise<void> {
    this.#captures.forget(machine);
    if (!this.#cables.delete(machine) || this.#worker === undefined) return;
    const worker = await this.#worker;
    // It is gone by itself when the machine has ended.
    await worker.unplug(machine).catch(() => {});
    await worker.setPolicy({ kind: 'link', name: machine }, undefined);
  }

  /** A machine is removed, and with its cable the network that it had to itself. */
  async forgetMachine(machine: string): Promise<void> {
    await this.unplug(machine);
    const network = machineNetworkName(machine);
    if (!this.#known.delete(network) || this.#worker === undefined) return;
    await (await this.#worker).removeNetwork(network);
  }

  /** A container is about to run: its networks are there when this settles. Throws `ERR_ARCBOX_NETWORK` when a port is taken. */
  async join(machine: string, container: NamedContainer): Promise<void> {
    const cable = this.#cables.get(machine);
    if (cable === undefined) return;
    const worker = await this.#start();
    this.#joined.set(container.id, { machine, container });
    // Before anybody is at its addresses.
    await this.#tellPolicy(worker, { kind: 'container', id: container.id });
    await Promise.all(
      this.#networks.endpointsOf(container.id).map(async (endpoint) => {
        const network = this.#networks.find(endpoint.networkId);
        await this.#attach(worker, machine, cable, network);
        faultPoint('network.join');
        await worker.addEndpoint({
          owner: container.id,
          network: network.name,
          addresses: addressesOf(endpoint),
          mac: endpoint.mac.toLowerCase(),
          names: namesOf(container, endpoint),
        });
      }),
    );
    const [first] = this.#networks.endpointsOf(container.id);
    if (first === undefined || container.publish.length === 0 || this.#ports.has(container.id)) return;
    const network = this.#networks.find(first.networkId).name;
    await this.#ports.open(worker, container.id, container.publish, { network, address: first.address });
  }

  /** Connections of a container from before us, with whom only we can have been the other end: they are reset. */
  async resetConnections(
    machine: string,
    containerId: string,
    connections: readonly OldConnection[],
  ): Promise<void> {
    const worker = await this.#start();
    for (const endpoint of this.#networks.endpointsOf(containerId)) {
      const network = this.#networks.find(endpoint.networkId);
      const own = addressesOf(endpoint);
      const ours = connections.filter(
        ({ address, peer }) => own.includes(address) && isBehindUs(peer, network),
      );
      if (ours.length > 0) await worker.resetConnections(network.name, ours);
    }
    const own = connections.filter(({ address }) => address === MACHINE_NETWORK.address);
    if (own.length > 0) await worker.resetConnections(machineNetworkName(machine), own);
  }

  /** Ports of the host that lead to a container now. */
  portsOf(containerId: string): readonly BoundPort[] {
    return this.#ports.of(containerId);
  }

  /** A container does not run any more: nobody finds it by name, and its ports are free. */
  async leave(containerId: string): Promise<void> {
    if (!this.#joined.delete(containerId) || this.#worker === undefined) return;
    // Who is being removed has no endpoints a moment later.
    const networks = this.#networks
      .endpointsOf(containerId)
      .map(({ networkId }) => this.#networks.find(networkId).name);
    const worker = await this.#worker;
    faultPoint('network.leave');
    await this.#ports.close(worker, containerId);
    for (const network of networks) await worker.removeEndpoint(containerId, network);
    await worker.setPolicy({ kind: 'owner', name: containerId }, undefined);
  }

  /** A container that runs has left one network. */
  async part(containerId: string, network: NetworkRecord): Promise<void> {
    if (!this.#joined.has(containerId) || this.#worker === undefined) return;
    faultPoint('network.part');
    await (await this.#worker).removeEndpoint(containerId, network.name);
  }

  /** A packet that is routed cannot wait for an answer. Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
  checkFunctions(): void {
    if (this.#uplink === undefined) return;
    throw new EngineError(
      'ERR_ARCBOX_INVALID_ARGUMENT',
      'with network.mode = "tap" a policy cannot be a function, for a routed packet does not wait; give rules instead',
    );
  }

  /** The policy of a machine or container is another one now; flows that begin after this are judged by it. */
  async applyPolicy(subject: PolicySubject): Promise<void> {
    const { kind, id } = subject;
    const runs = kind === 'machine' ? this.#cables.has(id) : this.#joined.has(id);
    if (runs && this.#worker !== undefined) await this.#tellPolicy(await this.#worker, subject, true);
  }

  /** Throws `ERR_ARCBOX_MACHINE_STATE` when the machine is not up. Frames are good for the call only. */
  async capture(machine: string, take: FrameTaker): Promise<AsyncDisposable> {
    if (!this.#cables.has(machine)) {
      throw new EngineError(
        'ERR_ARCBOX_MACHINE_STATE',
        `the machine ${machine} is not running; start a container in it, then capture`,
      );
    }
    return this.#captures.start(machine, take);
  }

  /** Undefined while nothing has used the network yet. */
  async stats(): Promise<WorkerStats | undefined> {
    return (await this.#worker)?.stats();
  }

  /** What passes now: the busiest, up to `FLOWS_LISTED_MAX`. Undefined while nothing has used the network yet. */
  async flows(): Promise<WorkerFlows | undefined> {
    return (await this.#worker)?.flows();
  }

  /** A network has been removed. */
  async forget({ id, name }: NetworkRecord): Promise<void> {
    if (!this.#known.delete(id) || this.#worker === undefined) return;
    for (const cable of this.#cables.values()) cable.attached.delete(id);
    await (await this.#worker).removeNetwork(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    const worker = await this.#worker?.catch(() => undefined);
    await worker?.[Symbol.asyncDispose]();
  }

  async #tap(machine: string, take: FrameTaker): Promise<AsyncDisposable> {
    return (await this.#start()).capture(machine, take);
  }

  /** Nothing has to be said of who has no policy, unless it had one. */
  async #tellPolicy(worker: NetworkWorker, subject: PolicySubject, changed = false): Promise<void> {
    const policy = this.#policies.effective(subject);
    const kind = subject.kind === 'container' ? 'owner' : 'link';
    if (policy !== undefined || changed) await worker.setPolicy({ kind, name: subject.id }, policy);
  }

  async #machineNetwork(worker: NetworkWorker, machine: string): Promise<string> {
    const { subnet, gateway } = MACHINE_NETWORK;
    const name = machineNetworkName(machine);
    const told =
      this.#known.get(name) ??
      worker.addNetwork({
        name,
        mtu: CARD_MTU,
        subnet,
        gateway,
        advertises: false,
        leases: 'anybody',
        internal: false,
        asks: false,
      });
    this.#known.set(name, told);
    told.catch(() => this.#known.delete(name));
    await told;
    return name;
  }

  #attach(worker: NetworkWorker, machine: string, cable: Cable, network: NetworkRecord): Promise<void> {
    const attached =
      cable.attached.get(network.id) ??
      this.#tell(worker, network).then(() => worker.attach(machine, network.vlan, network.name));
    cable.attached.set(network.id, attached);
    attached.catch(() => cable.attached.delete(network.id));
    return attached;
  }

  #tell(worker: NetworkWorker, network: NetworkRecord): Promise<void> {
    const told =
      this.#known.get(network.id) ??
      worker.addNetwork({
        name: network.name,
        mtu: CARD_MTU,
        subnet: network.subnet,
        gateway: network.gateway,
        ...(network.subnet6 === undefined ? {} : { subnet6: network.subnet6 }),
        ...(network.gateway6 === undefined ? {} : { gateway6: network.gateway6 }),
        advertises: false,
        internal: network.internal,
        asks: false,
      });
    this.#known.set(network.id, told);
    told.catch(() => this.#known.delete(network.id));
    return told;
  }

  #start(): Promise<NetworkWorker> {
    if (this.#closed) {
      return Promise.reject(new EngineError('ERR_ARCBOX_SHUTTING_DOWN', 'the daemon is shutting down'));
    }
    if (this.#worker !== undefined) return this.#worker;
    const starting = this.#startWorker();
    this.#worker = starting;
    starting.catch((error: unknown) => {
      if (this.#worker === starting) this.#worker = undefined;
      this.#logger.error('network.start_failed', { reason: messageOf(error) });
    });
    return starting;
  }

  async #startWorker(): Promise<NetworkWorker> {
    const worker = await NetworkWorker.start({
      unplugged: (link, reason) => this.#logger.info('network.unplugged', { machine: link, reason }),
      denied: (flow) => this.#policies.denied(flow),
      warn: (what, detail) => this.#logger.warn('network.warning', { what, detail }),
      died: (error) => this.#died(error),
    });
    try {
      if (this.#uplink !== undefined) await worker.setUplink(this.#uplink);
      // Before any frame: whoever runs already must not be without his policy while others are being joined.
      for (const subject of this.#policies.subjects()) await this.#tellPolicy(worker, subject);
      return worker;
    } catch (error) {
      await worker[Symbol.asyncDispose]();
      throw new EngineError('ERR_ARCBOX_CONFIG', `network.mode is "tap", but ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  #died(error: Error): void {
    this.#logger.error('network.died', { reason: messageOf(error) });
    this.#worker = undefined;
    this.#known.clear();
    this.#ports.forgetAll();
    const cables = [...this.#cables];
    const joined = [...this.#joined.values()];
    for (const [machine] of cables) this.#captures.forget(machine);
    this.#cables.clear();
    if (this.#closed) return;
    // One machine that has gone meanwhile must not keep the others unplugged.
    for (const [machine, { vm }] of cables) {
      const again = async (): Promise<void> => {
        await this.plug(machine, vm);
        for (const one of joined.filter((each) => each.machine === machine)) {
          // One port that is taken now is not the end of everybody's network.
          await this.join(machine, one.container).catch((failure: unknown) =>
            this.#logger.error('network.join_failed', {
              container: one.container.id,
              reason: messageOf(failure),
            }),
          );
        }
      };
      void again().catch((failure: unknown) => {
        this.#logger.error('network.restart_failed', { machine, reason: messageOf(failure) });
      });
    }
  }
}

/** No network that somebody makes has such a name. */
function machineNetworkName(machine: string): string {
  return `machine/${machine}`;
}

function addressesOf({ address, address6 }: EndpointRecord): string[] {
  return address6 === undefined ? [address] : [address, address6];
}

/** The gateway, or somebody who is reached through it; not a neighbour. */
function isBehindUs(peer: string, { subnet, gateway, subnet6, gateway6 }: NetworkRecord): boolean {
  if (peer === gateway || peer === gateway6) return true;
  const ip = requireIp(peer);
  return ![subnet, subnet6].some((block) => block !== undefined && cidrContains(requireCidr(block), ip));
}

/** The device of routed mode: the host has the first address of the block, we have the second. */
export function uplinkOf(config: Pick<Config, 'networkMode' | 'networkUplink'>): UplinkOptions | undefined {
  if (config.networkMode !== 'tap') return undefined;
  const { base } = requireCidr(config.networkUplink);
  return {
    name: 'arcbox%d',
    hostAddress: formatIp({ family: 4, value: base + 1n }),
    outsideAddress: formatIp({ family: 4, value: base + 2n }),
    mtu: CARD_MTU,
  };
}

const HOST_NAME =
  /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/;

/** What a container is called in a network, its own name first. Not every container's name can be asked for. */
function namesOf(container: NamedContainer, endpoint: EndpointRecord): string[] {
  const names = [...container.names, ...endpoint.aliases].map((name) => name.toLowerCase());
  return [...new Set(names)].filter((name) => HOST_NAME.test(name));
}
