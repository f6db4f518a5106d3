/** Looking into containers: their processes, what they use. Nothing here changes a container's state. */
import { EngineError } from '../errors.ts';
import type { Machine, UpMachine } from '../machine/machine.ts';
import type { Container } from './container.ts';
import type { ContainerManager } from './container-manager.ts';
import { readAccounts } from './launch.ts';
import { type ContainerUsage, containerUsage } from './stats.ts';
import { containerProcesses, type ProcessInfo } from './top.ts';

export interface ToolsEnvironment {
  containers(): ContainerManager;
  machine(name: string): Machine;
}

export interface NamedProcess extends ProcessInfo {
  /** Its user's name in the container, or the number. */
  readonly user: string;
}

export interface NamedUsage {
  readonly id: string;
  readonly name: string;
  /** Absent: it does not run. */
  readonly usage: ContainerUsage | undefined;
}

export class ContainerTools {
  readonly #environment: ToolsEnvironment;

  constructor(environment: ToolsEnvironment) {
    this.#environment = environment;
  }

  /** Throws `ERR_ARCBOX_CONTAINER_STATE` unless it runs. */
  async top(reference: string): Promise<NamedProcess[]> {
    const container = this.#environment.containers().find(reference);
    const up = await this.#running(container);
    const [processes, { passwd }] = await Promise.all([
      containerProcesses(up.agent, container.record.id),
      readAccounts(up.agent, container.record),
    ]);
    const names = new Map<string, string>();
    for (const line of passwd.split('\n').toReversed()) {
      const [name = '', , uid = ''] = line.split(':');
      if (name !== '') names.set(uid, name);
    }
    return processes.map((info) => ({ ...info, user: names.get(String(info.uid)) ?? String(info.uid) }));
  }

  /** Of these, or of all that run. */
  async stats(references: readonly string[]): Promise<NamedUsage[]> {
    const manager = this.#environment.containers();
    const wanted =
      references.length === 0
        ? manager.all().filter(({ process }) => process !== undefined)
        : references.map((reference) => manager.find(reference));
    return Promise.all(
      wanted.map(async ({ record, process }) => {
        const { id, name } = record;
        if (process === undefined) return { id, name, usage: undefined };
        const up = await this.#environment.machine(record.machine).current();
        const usage = up === undefined ? undefined : await containerUsage(up.agent, record, process.pid);
        return { id, name, usage };
      }),
    );
  }

  async #running({ record, process }: Container): Promise<UpMachine> {
    const up = process === undefined ? undefined : await this.#environment.machine(record.machine).current();
    if (up !== undefined) return up;
    throw new EngineError(
      'ERR_ARCBOX_CONTAINER_STATE',
      `the container ${record.name} is ${record.state}; only a running one has processes`,
    );
  }
}
