/**
 * Rules, as people write them and as they are judged by: in order, the first that matches decides, else the default.
 * A rule matches when everything it names does: where to, which domain, which ports, which protocol.
 */
import { NetError } from '../errors.ts';
import { type Cidr, cidrContains, type IpAddress, requireCidr } from '../ipam/index.ts';
import { isPublic } from './address-sets.ts';
import { RULE_VALUES_MAX, RULES_MAX } from './limits.ts';

export type Protocol = 'tcp' | 'udp' | 'icmp';

export interface Rule {
  readonly action: 'allow' | 'deny';
  /** Blocks (`10.0.0.0/8`) or addresses; `public` or `private` for what is and is not reachable for the world. */
  readonly to?: readonly string[];
  /**
   * `example.com`, or `*.example.com` for the names below it, or `*`. Matches an address that this machine resolved
   * through us from such a name. Never a private address: a name of the world does not open the way into the house.
   */
  readonly domains?: readonly string[];
  /** `443` or `8000-8999`. */
  readonly ports?: readonly string[];
  readonly protocol?: Protocol;
}

/** What no rule decides: nothing, what the world reaches, or everything. */
export type PolicyDefault = 'deny' | 'public-only' | 'allow';

export interface RulePolicy {
  readonly rules?: readonly Rule[];
  readonly default: PolicyDefault;
}

interface PortRange {
  readonly first: number;
  readonly last: number;
}

export interface CompiledRule {
  readonly action: 'allow' | 'deny';
  readonly blocks: readonly Cidr[] | undefined;
  /** `undefined`: of no importance. */
  readonly wantsPublic: boolean | undefined;
  readonly domains: readonly DomainPattern[] | undefined;
  readonly ports: readonly PortRange[] | undefined;
  readonly protocol: Protocol | undefined;
}

export interface CompiledPolicy {
  /** Some rule is about a domain. */
  readonly byDomain: boolean;
  readonly rules: readonly CompiledRule[];
  readonly default: PolicyDefault;
}

const DEFAULTS: readonly string[] = ['deny', 'public-only', 'allow'] satisfies PolicyDefault[];
const PROTOCOLS: readonly string[] = ['tcp', 'udp', 'icmp'] satisfies Protocol[];
const RULE_KEYS: readonly string[] = ['action', 'to', 'domains', 'ports', 'protocol'];

/** @throws {NetError} `ERR_ARCBOX_NET_POLICY`, saying which rule and what about it. */
export function compilePolicy(policy: RulePolicy): CompiledPolicy {
  const { rules = [] } = policy;
  if (!DEFAULTS.includes(policy.default)) {
    refuse(`the default is ${JSON.stringify(policy.default)}; it must be ${DEFAULTS.join(', ')}`);
  }
  if (rules.length > RULES_MAX) refuse(`it has ${rules.length} rules; ${RULES_MAX} are possible`);
  const compiled = rules.map((rule, index) => compileRule(rule, index + 1));
  return {
    default: policy.default,
    rules: compiled,
    byDomain: compiled.some((rule) => rule.domains !== undefined),
  };
}

function compileRule(rule: Rule, number: number): CompiledRule {
  const where = `rule ${number}`;
  const unknown = Object.keys(rule).find((key) => !RULE_KEYS.includes(key));
  if (unknown !== undefined) refuse(`${where} has ${JSON.stringify(unknown)}, which means nothing`);
  if (rule.action !== 'allow' && rule.action !== 'deny') {
    refuse(`${where} has the action ${JSON.stringify(rule.action)}; it must be allow or deny`);
  }
  if (rule.protocol !== undefined && !PROTOCOLS.includes(rule.protocol)) {
    refuse(`${where} has the protocol ${JSON.stringify(rule.protocol)}; it must be ${PROTOCOLS.join(', ')}`);
  }
  for (const list of [rule.to, rule.domains, rule.ports]) {
    if (list === undefined) continue;
    if (!Array.isArray(list) || list.length === 0) refuse(`${where} has a list that is empty; leave it out`);
    if (list.length > RULE_VALUES_MAX) refuse(`${where} has a list of more than ${RULE_VALUES_MAX} values`);
  }
  const isWord = (text: string): boolean => text === 'public' || text === 'private';
  const words = (rule.to ?? []).filter(isWord);
  const blocks = (rule.to ?? []).filter((text) => !isWord(text)).map((text) => compileBlock(text, where));
  if (words.length > 0 && (blocks.length > 0 || words.length > 1)) {
    refuse(`${where} goes to ${words.join(' and ')} and to others; make it two rules`);
  }
  return {
    action: rule.action,
    blocks: blocks.length > 0 ? blocks : undefined,
    wantsPublic: words.length > 0 ? words[0] === 'public' : undefined,
    domains: rule.domains?.map((text) => compileDomain(text, where)),
    ports: rule.ports?.map((text) => compilePorts(text, where)),
    protocol: rule.protocol,
  };
}

function compileBlock(text: string, where: string): Cidr {
  try {
    return requireCidr(text, 'block');
  } catch (error) {
    throw new NetError('ERR_ARCBOX_NET_POLICY', `the policy is refused: ${where}: ${String(error)}`, {
      cause: error,
    });
  }
}

function compilePorts(text: string, where: string): PortRange {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  const first = Number(match?.[1]);
  const last = Number(match?.[2] ?? match?.[1]);
  if (match === null || first < 1 || last > 65_535 || first > last) {
    refuse(`${where} has ports ${JSON.stringify(text)}; write 443 or 8000-8999`);
  }
  return { first, last };
}

function refuse(reason: string): never {
  throw new NetError('ERR_ARCBOX_NET_POLICY', `the policy is refused: ${reason}`);
}

/** `''` matches every name; `.example.com` what is below; anything else itself. */
export type DomainPattern = string;

function compileDomain(text: string, where: string): DomainPattern {
  if (text === '*') return '';
  const name = text.toLowerCase().replace(/\.$/, '');
  const bare = name.startsWith('*.') ? name.slice(2) : name;
  if (
    bare.length > 253 ||
    !bare.split('.').every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label))
  ) {
    refuse(`${where} has the domain ${JSON.stringify(text)}; write example.com, *.example.com or *`);
  }
  return name.startsWith('*.') ? `.${bare}` : bare;
}

export function domainMatches(pattern: DomainPattern, name: string): boolean {
  if (pattern === '') return true;
  // What is below is longer than the pattern: the name itself is not below itself.
  return pattern.startsWith('.') ? name.endsWith(pattern) && name.length > pattern.length : name === pattern;
}

export interface RuleFlow {
  readonly protocol: Protocol;
  readonly address: IpAddress;
  readonly port: number;
  /** The names that this machine resolved the address from. */
  readonly names: readonly string[];
}

/** What the policy says of a flow, and why when it says no. */
export function decide(policy: CompiledPolicy, flow: RuleFlow): { readonly denied: string | undefined } {
  const index = policy.rules.findIndex((rule) => ruleMatches(rule, flow));
  const rule = policy.rules[index];
  if (rule !== undefined)
    return { denied: rule.action === 'deny' ? `rule ${index + 1} denies it` : undefined };
  if (policy.default === 'deny') return { denied: 'no rule allows it' };
  if (policy.default === 'allow' || isPublic(flow.address)) return { denied: undefined };
  return { denied: 'it is not a public address, and no rule allows it' };
}

/** True when all that the rule names matches. */
function ruleMatches(rule: CompiledRule, flow: RuleFlow): boolean {
  if (rule.protocol !== undefined && rule.protocol !== flow.protocol) return false;
  if (
    rule.ports !== undefined &&
    !rule.ports.some(({ first, last }) => flow.port >= first && flow.port <= last)
  ) {
    return false;
  }
  if (rule.wantsPublic !== undefined && rule.wantsPublic !== isPublic(flow.address)) return false;
  if (rule.blocks !== undefined && !rule.blocks.some((block) => cidrContains(block, flow.address)))
    return false;
  const { domains } = rule;
  return (
    domains === undefined ||
    flow.names.some((name) => domains.some((pattern) => domainMatches(pattern, name)))
  );
}

/**
 * Whether a name may be asked for: the first rule with a domain that matches decides; else it may be when any address
 * could be reached without a domain. A machine that may reach nothing but one domain has no business with other names,
 * and must not tell the world things by asking for them.
 */
export function nameAllowed(policy: CompiledPolicy, name: string): boolean {
  for (const { domains, action, ports, protocol, blocks, wantsPublic } of policy.rules) {
    if (domains?.some((pattern) => domainMatches(pattern, name)) !== true) continue;
    if (action === 'allow') return true;
    // One that denies some ports only has nothing against the name.
    if (ports === undefined && protocol === undefined && blocks === undefined && wantsPublic === undefined)
      return false;
  }
  return (
    policy.default !== 'deny' ||
    policy.rules.some((rule) => rule.action === 'allow' && rule.domains === undefined)
  );
}
