/**
 * Policies in the network's thread: rules are judged where the packets are, without asking the daemon. A flow is its
 * container's when that has a policy, else its machine's; who is at an address is what the name server knows, too.
 */
import type { DnsSource, NameTable, ResolvedName } from '../dns/index.ts';
import {
  ALLOW_ALL,
  type FlowAnswer,
  PolicyEngine,
  type PolicyFunction,
  type RulePolicy,
} from '../policy/index.ts';
import type { Flow, Verdict } from '../stack/policy.ts';
import {
  ASKED,
  type AskedFlow,
  type DeniedFlow,
  type FunctionAnswer,
  keyOf,
  type PolicyStats,
  type PolicySubject,
} from './protocol.ts';

/** Asks the daemon, who has the function. */
export type AskFunction = (subject: PolicySubject, flow: AskedFlow) => Promise<FunctionAnswer>;

export class WorkerPolicies {
  readonly #names: NameTable;
  readonly #engine: PolicyEngine;
  readonly #ask: AskFunction;
  /** Those that have a policy, by key. */
  readonly #subjects = new Map<string, PolicySubject>();
  /** Of them, owners of endpoints. */
  #owners = 0;

  constructor(names: NameTable, denied: (flow: DeniedFlow) => void, ask: AskFunction) {
    this.#names = names;
    this.#ask = ask;
    this.#engine = new PolicyEngine({
      fallback: ALLOW_ALL,
      onDenied: ({ subject: key, ...flow }) => {
        const subject = this.#subjects.get(key);
        if (subject !== undefined) denied({ ...flow, ...subject });
      },
    });
  }

  /** Counts from the next flow on. `undefined` takes it away. @throws {NetError} ERR_ARCBOX_NET_POLICY */
  set(subject: PolicySubject, policy: RulePolicy | typeof ASKED | undefined): void {
    const key = keyOf(subject);
    const one = subject.kind === 'owner' ? 1 : 0;
    if (policy === undefined) {
      this.#engine.remove(key);
      if (this.#subjects.delete(key)) this.#owners -= one;
      return;
    }
    this.#engine.set(key, policy === ASKED ? this.#asking(subject) : policy);
    if (!this.#subjects.has(key)) this.#owners += one;
    this.#subjects.set(key, subject);
  }

  judge(flow: Flow): Verdict | Promise<Verdict> {
    if (this.#isNobody(flow.link, flow.network, flow.source, flow.sourceMac)) {
      return { action: 'deny', reason: 'its address is nobody’s, or another’s' };
    }
    const key = this.#keyFor(flow.link, flow.network, flow.source);
    return key === undefined ? { action: 'allow' } : this.#engine.judge({ ...flow, link: key });
  }

  mayAsk(source: DnsSource, name: string): boolean {
    if (this.#isNobody(source.vm, source.network, source.address, source.mac)) return false;
    const key = this.#keyFor(source.vm, source.network, source.address);
    return key === undefined || this.#engine.mayAsk({ vm: key }, name);
  }

  /** What somebody without a policy resolves is not kept: one that is set later knows only what is asked after it. */
  resolved(answer: ResolvedName): void {
    const { vm, network, address } = answer.source;
    const key = this.#keyFor(vm, network, address);
    if (key !== undefined) this.#engine.resolved({ ...answer, source: { vm: key } });
  }

  stats(): PolicyStats[] {
    return [...this.#subjects].map(([key, subject]) => ({
      ...subject,
      counters: { ...this.#engine.counters(key) },
    }));
  }

  /** A function as the engine has it, which keeps its time and judges what it says. */
  #asking(subject: PolicySubject): PolicyFunction {
    return async (question) => {
      const { protocol, network, source, sourcePort, destination, destinationPort, names } = question;
      const ends = { source, sourcePort, destination, destinationPort };
      const flow = { protocol, network, ...ends, names, public: question.public };
      const { answer, failure } = await this.#ask(subject, flow);
      if (failure !== undefined) throw new Error(failure);
      return answer as FlowAnswer;
    };
  }

  /**
   * Whether the sender is not who he says. Where containers have policies of their own, who sends from an address that is nobody's could be one of them that
   * wants to be judged as somebody else; and where machines have some, a packet must be of one.
   */
  #isNobody(
    link: string,
    network: string | undefined,
    address: string | undefined,
    mac: string | undefined,
  ): boolean {
    if (network === undefined || address === undefined) return false;
    const endpoint = this.#names.endpointAt(network, address);
    // Even where all may do everything: the answers to somebody's questions must not go to his neighbour.
    if (endpoint?.mac !== undefined && mac !== undefined && mac !== endpoint.mac) return true;
    if (this.#subjects.size === 0) return false;
    return link === '' || (endpoint === undefined && this.#owners > 0);
  }

  #keyFor(link: string, network: string | undefined, address: string | undefined): string | undefined {
    if (this.#subjects.size === 0) return undefined;
    if (network !== undefined && address !== undefined) {
      const name = this.#names.endpointAt(network, address)?.owner;
      const own = name === undefined ? undefined : keyOf({ kind: 'owner', name });
      if (own !== undefined && this.#subjects.has(own)) return own;
    }
    const machine = keyOf({ kind: 'link', name: link });
    return this.#subjects.has(machine) ? machine : undefined;
  }
}
