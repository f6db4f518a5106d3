/** Bringing what is stored of containers together with what is true in the machine. */
import type { OpInput } from '@arcbox/protocol';
import type { Background } from '../background.ts';
import { BUNDLES, processObjectId, UPPERS } from '../machine/guest-layout.ts';
import type { UpMachine } from '../machine/machine.ts';
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
    const [answer, uppers, bundles] = await up.agent.batch([
      { case: 'listObjects', value: {} },
      { case: 'list', value: { path: UPPERS } },
      { case: 'list', value: { path: BUNDLES } },
    ]);
    const objects = answer?.result.case === 'objects' ? answer.result.value.objects : [];
    const names = (result: typeof uppers): string[] =>
      result?.result.case === 'list'
        ? result.result.value.entries.map((entry) => entry.name).filter((name) => !name.startsWith('.'))
        : [];

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
          await this.#runs.joinPlane(record, up);
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
    for (const name of names(bundles)) {
      const container = this.#containers.get(name);
      if (container?.process === undefined)
        await runTolerant(up.agent, cleanUpOps(name, 0, container?.record.config.host));
    }
    for (const name of names(uppers)) {
      if (!this.#containers.has(name))
        this.#background.run('remove_upper', runTolerant(up.agent, removeDiskOps(name)));
    }
    this.#removal.removeExited();
    this.#environment.logger.info('machine.reconciled', {
      machine: up.name,
      kept: keep.size,
      released: stale.length,
    });
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
