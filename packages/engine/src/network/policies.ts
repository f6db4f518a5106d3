/**
 * What containers and machines may reach: checked, and told to the network's thread while they run. Rules are stored; a
 * function lives as long as this process, and the rules that were stored before it count again after that.
 */
import { compilePolicy, type RulePolicy } from '@arcbox/net/policy';
import type { DeniedFlow, FlowFunction } from '@arcbox/net/worker';
import { EngineError, messageOf } from '../errors.ts';
import type { EventLog } from '../events/event-log.ts';
import type { PolicySubject, PolicyTable } from './policy-table.ts';

/** What decides: rules, or a function that is asked for every flow. */
export type NetworkPolicy = RulePolicy | FlowFunction;

/** Where policies count. */
export interface PolicyPlace {
  applyPolicy(subject: PolicySubject): Promise<void>;
  /** Throws when functions cannot be asked. */
  checkFunctions(): void;
}

export class NetworkPolicies {
  readonly #table: PolicyTable;
  readonly #events: EventLog;
  readonly #functions = new Map<string, { readonly subject: PolicySubject; readonly policy: FlowFunction }>();

  constructor(table: PolicyTable, events: EventLog) {
    this.#table = table;
    this.#events = events;
  }

  /** Whoever has one of his own. */
  subjects(): PolicySubject[] {
    const stored = this.#table.subjects();
    const known = new Set(stored.map(keyOf));
    const others = [...this.#functions].filter(([key]) => !known.has(key));
    return [...stored, ...others.map(([, { subject }]) => subject)];
  }

  /** The rules that are stored. Undefined: it has none of its own. */
  get(subject: PolicySubject): RulePolicy | undefined {
    return this.#table.get(subject);
  }

  /** What decides now. Undefined: it has none of its own. */
  effective(subject: PolicySubject): NetworkPolicy | undefined {
    return this.#functions.get(keyOf(subject))?.policy ?? this.#table.get(subject);
  }

  hasFunction(subject: PolicySubject): boolean {
    return this.#functions.has(keyOf(subject));
  }

  /**
   * Gives somebody a policy, or takes it away. It counts for every flow that begins after this has resolved.
   *
   * Rules are stored, and end a function. A function is not stored: it decides until it is replaced or this process ends,
   * and the rules of before stay stored for what comes then. It is called with each flow and what names its destination
   * was resolved from, one call after the other may be open (256 of one subject); what it throws denies the flow, and so
   * does an answer that means nothing or takes more than 5 s.
   *
   * Throws `ERR_ARCBOX_INVALID_ARGUMENT`; then the one of before goes on.
   */
  async set(place: PolicyPlace, subject: PolicySubject, policy: NetworkPolicy | undefined): Promise<void> {
    const key = keyOf(subject);
    if (typeof policy === 'function') {
      place.checkFunctions();
      this.#functions.set(key, { subject, policy });
      await place.applyPolicy(subject);
      this.#events.emit(subject.kind, 'network_policy', subject.id, { default: 'function', rules: '0' });
      return;
    }
    try {
      if (policy !== undefined) compilePolicy(policy);
    } catch (error) {
      throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', messageOf(error), { cause: error });
    }
    this.#table.set(subject, policy);
    this.#functions.delete(key);
    await place.applyPolicy(subject);
    this.#events.emit(subject.kind, 'network_policy', subject.id, {
      default: policy?.default ?? 'none',
      rules: String(policy?.rules?.length ?? 0),
    });
  }

  /** It is removed, and its stored rules are gone with it. */
  forget(subject: PolicySubject): void {
    this.#functions.delete(keyOf(subject));
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

function keyOf({ kind, id }: PolicySubject): string {
  return `${kind} ${id}`;
}
