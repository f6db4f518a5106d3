/** What containers and machines may reach: stored, checked, and told to the network's thread while they run. */
import { compilePolicy, type RulePolicy } from '@arcbox/net/policy';
import type { DeniedFlow } from '@arcbox/net/worker';
import { EngineError, messageOf } from '../errors.ts';
import type { EventLog } from '../events/event-log.ts';
import type { PolicySubject, PolicyTable } from './policy-table.ts';

/** Where policies count. */
export interface PolicyPlace {
  applyPolicy(subject: PolicySubject): Promise<void>;
}

export class NetworkPolicies {
  readonly #table: PolicyTable;
  readonly #events: EventLog;

  constructor(table: PolicyTable, events: EventLog) {
    this.#table = table;
    this.#events = events;
  }

  /** Whoever has one of his own. */
  subjects(): PolicySubject[] {
    return this.#table.subjects();
  }

  /** Undefined: it has none of its own. */
  get(subject: PolicySubject): RulePolicy | undefined {
    return this.#table.get(subject);
  }

  /**
   * Stores a policy, or takes it away. It counts for every flow that begins after this has resolved. Throws
   * `ERR_ARCBOX_INVALID_ARGUMENT`; then the one of before goes on.
   */
  async set(place: PolicyPlace, subject: PolicySubject, policy: RulePolicy | undefined): Promise<void> {
    try {
      if (policy !== undefined) compilePolicy(policy);
    } catch (error) {
      throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', messageOf(error), { cause: error });
    }
    this.#table.set(subject, policy);
    await place.applyPolicy(subject);
    this.#events.emit(subject.kind, 'network_policy', subject.id, {
      default: policy?.default ?? 'none',
      rules: String(policy?.rules?.length ?? 0),
    });
  }

  /** A flow was denied: an event of who began it. The network's thread tells no more than a few in a second. */
  denied(flow: DeniedFlow): void {
    this.#events.emit(flow.kind === 'owner' ? 'container' : 'machine', 'network_deny', flow.name, {
      protocol: flow.protocol,
      destination: flow.destination,
      port: String(flow.destinationPort),
      names: flow.names.join(','),
      reason: flow.reason,
    });
  }
}
