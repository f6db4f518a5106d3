/**
 * What each machine may reach. A policy is a list of rules or a function; it is replaced while the machine runs, and
 * counts from the next flow on. Whatever goes wrong denies: an exception, a promise that takes too long, an address that
 * cannot be read.
 */
import { reasonOf } from '../errors.ts';
import { formatIp, type IpAddress, parseIp, unmapped } from '../ipam/index.ts';
import { isPublic } from './address-sets.ts';
import { DECISION_MS, DECISIONS_PENDING_MAX, DENIALS_PER_SECOND_MAX } from './limits.ts';
import { Pins } from './pins.ts';
import {
  type CompiledPolicy,
  compilePolicy,
  decide,
  nameAllowed,
  type Protocol,
  type RulePolicy,
} from './rules.ts';
import { seenName } from './server-name.ts';

/** A flow that is about to begin. */
export interface PolicyFlow {
  readonly protocol: Protocol;
  /** The machine's link: whose policy it is. */
  readonly link: string;
  readonly network: string;
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  /** 0 for ICMP. */
  readonly destinationPort: number;
}

/** Judges the first bytes that a machine sends; `more`: show them again when there are more. */
export type FirstBytes = (bytes: Uint8Array) => 'allow' | 'deny' | 'more';

export type PolicyVerdict =
  /** With `inspect` the connection is opened, and closed again when its first bytes say something else. */
  | { readonly action: 'allow'; readonly inspect?: FirstBytes }
  | { readonly action: 'deny'; readonly reason: string }
  | { readonly action: 'redirect'; readonly address: string; readonly port: number };

/** What a policy function is asked. */
export interface FlowQuestion extends PolicyFlow {
  /** The names that the machine resolved the destination from, as far as it asked us. */
  readonly names: readonly string[];
  /** The destination is neither private nor special in another way. */
  readonly public: boolean;
}

export type FlowAnswer =
  | 'allow'
  | 'deny'
  | { readonly action: 'allow' | 'deny' }
  | { readonly action: 'redirect'; readonly address: string; readonly port: number };

export type PolicyFunction = (flow: FlowQuestion) => FlowAnswer | Promise<FlowAnswer>;

export type Policy = RulePolicy | PolicyFunction;

/** The presets. */
export const PUBLIC_ONLY: RulePolicy = { default: 'public-only' };
export const ALLOW_ALL: RulePolicy = { default: 'allow' };
export const DENY_ALL: RulePolicy = { default: 'deny' };

export interface Denial {
  readonly subject: string;
  readonly protocol: Protocol;
  readonly destination: string;
  readonly destinationPort: number;
  readonly names: readonly string[];
  readonly reason: string;
}

export interface PolicyCounters {
  allowed: number;
  denied: number;
  redirected: number;
  /** Denied because the function threw, was late or answered nonsense. */
  failed: number;
  /** Denials that were counted and not told. */
  untold: number;
}

export interface PolicyEngineOptions {
  /** For machines that have none of their own. */
  readonly fallback: RulePolicy;
  readonly onDenied?: (denial: Denial) => void;
  readonly nowMs?: () => number;
  readonly decisionMs?: number;
}

interface Subject {
  policy: CompiledPolicy | PolicyFunction;
  readonly pins: Pins;
  readonly counters: PolicyCounters;
  pending: number;
  second: number;
  told: number;
}

export class PolicyEngine {
  readonly #options: PolicyEngineOptions;
  readonly #fallback: CompiledPolicy;
  readonly #subjects = new Map<string, Subject>();
  readonly #nowMs: () => number;

  /** @throws {NetError} `ERR_ARCBOX_NET_POLICY` */
  constructor(options: PolicyEngineOptions) {
    this.#options = options;
    this.#fallback = compilePolicy(options.fallback);
    this.#nowMs = options.nowMs ?? (() => performance.now());
  }

  /**
   * Gives a machine a policy, or another one. What it resolved before stays known.
   *
   * @throws {NetError} `ERR_ARCBOX_NET_POLICY`; the policy of before goes on then.
   */
  set(subject: string, policy: Policy): void {
    const compiled = typeof policy === 'function' ? policy : compilePolicy(policy);
    this.#subject(subject).policy = compiled;
  }

  /** Forgets a machine. */
  remove(subject: string): void {
    this.#subjects.delete(subject);
  }

  counters(subject: string): Readonly<PolicyCounters> {
    return this.#subject(subject).counters;
  }

  /** What a DNS server tells: a machine was given these addresses for a name. */
  resolved(answer: {
    readonly source: { readonly vm: string };
    readonly name: string;
    readonly addresses: readonly string[];
    readonly ttlS: number;
    readonly local: boolean;
  }): void {
    const { pins } = this.#subject(answer.source.vm);
    for (const text of answer.addresses) {
      const ip = parseIp(text);
      if (ip === undefined) continue;
      // A name of the world that leads to a private address is an attack on what is there, or a mistake.
      if (!answer.local && !isPublic(ip)) continue;
      pins.add(formatIp(unmapped(ip)), answer.name, answer.ttlS, this.#nowMs());
    }
  }

  /** Whether a machine may ask for a name. A function is asked about flows, not names. */
  mayAsk(source: { readonly vm: string }, name: string): boolean {
    const { policy } = this.#subject(source.vm);
    return typeof policy === 'function' || nameAllowed(policy, name);
  }

  /** Judges a flow; at once unless the policy is an asynchronous function. Never throws. */
  judge(flow: PolicyFlow): PolicyVerdict | Promise<PolicyVerdict> {
    const subject = this.#subject(flow.link);
    const parsed = parseIp(flow.destination);
    if (parsed === undefined) return this.#denied(subject, flow, [], 'its destination is no address');
    const address = unmapped(parsed);
    const names = subject.pins.namesOf(formatIp(address), this.#nowMs());
    if (typeof subject.policy === 'function') return this.#ask(subject, subject.policy, flow, address, names);
    return this.#byRules(subject, subject.policy, flow, address, names);
  }

  #byRules(
    subject: Subject,
    policy: CompiledPolicy,
    flow: PolicyFlow,
    address: IpAddress,
    names: readonly string[],
  ): PolicyVerdict {
    const asked = { protocol: flow.protocol, address, port: flow.destinationPort, names };
    const { denied } = decide(policy, asked);
    if (denied !== undefined) return this.#denied(subject, flow, names, denied);
    subject.counters.allowed++;
    if (!policy.byDomain || flow.protocol !== 'tcp') return { action: 'allow' };
    // One address serves many names: the name that the connection itself says, where it can be seen, counts as well.
    const inspect: FirstBytes = (bytes) => {
      const seen = seenName(bytes);
      if (seen.kind === 'more') return 'more';
      if (seen.kind === 'ambiguous') {
        subject.counters.allowed--;
        this.#denied(subject, flow, names, 'which name it asks for cannot be told');
        return 'deny';
      }
      if (seen.kind !== 'name') return 'allow';
      const reason = decide(policy, { ...asked, names: [seen.name] }).denied;
      if (reason === undefined) return 'allow';
      subject.counters.allowed--;
      this.#denied(subject, flow, [seen.name], `it asks for ${seen.name}: ${reason}`);
      return 'deny';
    };
    return { action: 'allow', inspect };
  }

  #ask(
    subject: Subject,
    policy: PolicyFunction,
    flow: PolicyFlow,
    address: IpAddress,
    names: readonly string[],
  ): PolicyVerdict | Promise<PolicyVerdict> {
    const failed = (reason: string): PolicyVerdict => {
      subject.counters.failed++;
      return this.#denied(subject, flow, names, reason);
    };
    if (subject.pending >= DECISIONS_PENDING_MAX)
      return failed('too many flows wait for the policy function');
    let answer: FlowAnswer | Promise<FlowAnswer>;
    try {
      answer = policy({ ...flow, names, public: isPublic(address) });
    } catch (error) {
      return failed(`the policy function failed: ${reasonOf(error)}`);
    }
    if (!(answer instanceof Promise)) return this.#told(subject, flow, names, answer) ?? failed(NONSENSE);
    const decisionMs = this.#options.decisionMs ?? DECISION_MS;
    subject.pending++;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer in ${decisionMs} ms`)), decisionMs);
    });
    return Promise.race([answer, late])
      .then((told) => this.#told(subject, flow, names, told) ?? failed(NONSENSE))
      .catch((error: unknown) => failed(`the policy function failed: ${reasonOf(error)}`))
      .finally(() => {
        clearTimeout(timer);
        subject.pending--;
      });
  }

  #told(
    subject: Subject,
    flow: PolicyFlow,
    names: readonly string[],
    told: FlowAnswer,
  ): PolicyVerdict | undefined {
    const answer: unknown = typeof told === 'string' ? { action: told } : told;
    if (typeof answer !== 'object' || answer === null || !('action' in answer)) return undefined;
    if (answer.action === 'deny') return this.#denied(subject, flow, names, 'the policy function denies it');
    if (answer.action === 'allow') {
      subject.counters.allowed++;
      return { action: 'allow' };
    }
    if (answer.action !== 'redirect' || !('address' in answer) || !('port' in answer)) return undefined;
    const { address, port } = answer;
    if (typeof address !== 'string' || parseIp(address) === undefined) return undefined;
    if (typeof port !== 'number' || !Number.isInteger(port) || port < 1 || port > 65_535) return undefined;
    subject.counters.redirected++;
    return { action: 'redirect', address, port };
  }

  #denied(subject: Subject, flow: PolicyFlow, names: readonly string[], reason: string): PolicyVerdict {
    subject.counters.denied++;
    const second = Math.floor(this.#nowMs() / 1000);
    if (second !== subject.second) {
      subject.second = second;
      subject.told = 0;
    }
    if (subject.told < DENIALS_PER_SECOND_MAX) {
      subject.told++;
      const { link, protocol, destination, destinationPort } = flow;
      this.#options.onDenied?.({ subject: link, protocol, destination, destinationPort, names, reason });
    } else {
      subject.counters.untold++;
    }
    return { action: 'deny', reason };
  }

  #subject(name: string): Subject {
    const known = this.#subjects.get(name);
    if (known !== undefined) return known;
    const made: Subject = {
      policy: this.#fallback,
      pins: new Pins(),
      counters: { allowed: 0, denied: 0, redirected: 0, failed: 0, untold: 0 },
      pending: 0,
      second: 0,
      told: 0,
    };
    this.#subjects.set(name, made);
    return made;
  }
}

const NONSENSE = 'the policy function answered neither allow, deny nor redirect';
