/** Bringing what is stored of containers together with what is true in the machine. */
import type { OpInput, OpResult } from '@arcbox/protocol';
import type { Background } from '../background.ts';
import { EngineError, messageOf } from '../errors.ts';
import { BUNDLES, processObjectId, UPPERS } from '../machine/guest-layout.ts';
import type { UpMachine } from '../machine/machine.ts';
import { guestInterface, networkMode } from '../network/container-network.ts';
import { GUEST_LINKS, type GuestCable } from '../network/guest-network.ts';
import { connectionsOf } from '../network/old-connections.ts';
import type { Container } from './container.ts';
import type { ContainerEnvironment } from './container-environment.ts';
import type { ContainerRemoval } from './container-removal.ts';
import type { ContainerRuns } from './container-runs.ts';
import type { ContainerTable } from './container-table.ts';
import { cleanUpOps, removeDiskOps, runTolerant } from './launch.ts';

export interface ReconcilerParts {
  readonly containers: ContainerTable;
  readonly background: Background;
  readonly runs: ContainerRuns;
  readonly removal: ContainerRemoval;
}

export class ContainerReconciler {
  readonly #environment: ContainerEnvironment;
  readonly #containers: ContainerTable;
  readonly #background: Background;
  readonly #runs: ContainerRuns;
  readonly #removal: ContainerRemoval;

  constructor(environment: ContainerEnvironment, parts: ReconcilerParts) {
    this.#environment = environment;
    this.#containers = parts.containers;
    this.#background = parts.background;
    this.#runs = parts.runs;
    this.#removal = parts.removal;
  }

  /** Brings the store and the machine together; called before a machine counts as running. */
  async reconcile(up: UpMachine): Promise<void> {
    const [answer, uppers, bundles, links] = await up.agent.batch([
      { case: 'listObjects', value: {} },
      { case: 'list', value: { path: UPPERS } },
      { case: 'list', value: { path: BUNDLES } },
      { case: 'list', value: { path: GUEST_LINKS } },
    ]);
    const objects = answer?.result.case === 'objects' ? answer.result.value.objects : [];

    const keep = new Set<string>();
    for (const container of this.#containers.all()) {
      const { record } = container;
      if (record.machine !== up.name || !container.live) continue;
      // A start of our own that is bringing this very machine up has nothing in it yet.
      if (container.transitions.busy) continue;
      const objectId = processObjectId(record.id, record.run);
      const object = objects.find(({ id }) => id === objectId);
      if (object !== undefined) {
        if (await this.#runs.resume(container, up, objectId, object.pid)) {
          keep.add(objectId);
          await this.#rejoin(container, up, object.pid);
        }
      } else {
        this.#runs.markLost(container, 'its process was gone when the daemon came back');
      }
    }
    const stale = objects.filter((object) => !keep.has(object.id));
    await runTolerant(
      up.agent,
      stale.map((object): OpInput => ({ case: 'release', value: { id: object.id, missingOk: true } })),
    );
    for (const name of namesIn(bundles)) {
      const container = this.#containers.get(name);
      if (container?.process === undefined)
        await runTolerant(up.agent, cleanUpOps(name, 0, container?.record.config.host));
    }
    await this.#mendLinks(up, namesIn(links));
    this.#removeForgotten(up, uppers);
    this.#removal.removeExited();
    this.#environment.logger.info('machine.reconciled', {
      machine: up.name,
      kept: keep.size,
      released: stale.length,
    });
  }

  /** Removes what containers wrote that were removed while the machine was not up; somebody may be using the rest. */
  async tidy(up: UpMachine): Promise<void> {
    const [uppers] = await up.agent.batch([{ case: 'list', value: { path: UPPERS } }]);
    this.#removeForgotten(up, uppers);
  }

  #removeForgotten(up: UpMachine, uppers: OpResult | undefined): void {
    for (const name of namesIn(uppers)) {
      if (!this.#containers.has(name))
        this.#background.run('remove_upper', runTolerant(up.agent, removeDiskOps(name)));
    }
  }

  /** A crash may have come between what is stored of networks and the machine's links. */
  async #mendLinks(up: UpMachine, links: readonly string[]): Promise<void> {
    const { networks, logger } = this.#environment;
    const cables = this.#containers.all().flatMap(({ record, process }): GuestCable[] => {
      if (record.machine !== up.name || process === undefined) return [];
      const endpoints = networks.endpointsOf(record.id);
      return endpoints.map((endpoint) => ({
        containerId: record.id,
        endpoint: guestInterface(networks, endpoint, endpoint === endpoints[0]),
      }));
    });
    const vlans = new Set(networks.list().map(({ vlan }) => vlan));
    await up.network.reconcile(links, vlans, cables, (what, error) =>
      logger.error('network.mend_failed', { machine: up.name, what, reason: messageOf(error) }),
    );
  }

  /** A container that ran on has its network again. It goes on without a port that somebody else has taken meanwhile. */
  async #rejoin(container: Container, up: UpMachine, pid: number): Promise<void> {
    const { record } = container;
    try {
      await this.#runs.joinPlane(record, up);
    } catch (error) {
      if (!(error instanceof EngineError) || error.code !== 'ERR_ARCBOX_NETWORK') throw error;
      const reason = `${error.message}; the container runs without its ports until it is restarted`;
      this.#environment.logger.error('container.ports_lost', { id: record.id, name: record.name, reason });
      container.emit('ports_lost', { reason });
    }
    const { plane, networks } = this.#environment;
    const { kind } = networkMode(record);
    // What is in another one's namespace is looked at with that one.
    if (kind !== 'host' && networks.endpointsOf(record.id).length === 0) return;
    const connections = await connectionsOf(up.agent, pid).catch((error: unknown) => {
      // It may have ended just now.
      this.#environment.logger.warn('container.connections_unknown', {
        id: record.id,
        reason: messageOf(error),
      });
      return [];
    });
    await plane.resetConnections(up.name, record.id, connections);
  }

  /** The machine is gone, and with it what ran there. Those that have a process learn it from their connection. */
  machineLost(machine: string, why: string): void {
    for (const container of this.#containers.all()) {
      const { record } = container;
      if (record.machine !== machine || container.process !== undefined || container.transitions.busy)
        continue;
      if (container.live) this.#runs.markLost(container, why);
    }
    this.#removal.removeExited();
  }
}

/** Of a listing; those that begin with a dot are not ours. */
function namesIn(listing: OpResult | undefined): string[] {
  return listing?.result.case === 'list'
    ? listing.result.value.entries.map((entry) => entry.name).filter((name) => !name.startsWith('.'))
    : [];
}
