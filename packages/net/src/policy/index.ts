export { isPublic } from './address-sets.ts';
export {
  ALLOW_ALL,
  DENY_ALL,
  type Denial,
  type FirstBytes,
  type FlowAnswer,
  type FlowQuestion,
  type Policy,
  type PolicyCounters,
  PolicyEngine,
  type PolicyEngineOptions,
  type PolicyFlow,
  type PolicyFunction,
  type PolicyVerdict,
  PUBLIC_ONLY,
} from './engine.ts';
export type { PolicyDefault, Protocol, Rule, RulePolicy } from './rules.ts';
export { type SeenName, seenName } from './server-name.ts';
