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
export { compilePolicy, type PolicyDefault, type Protocol, type Rule, type RulePolicy } from './rules.ts';
export { type SeenName, seenName } from './server-name.ts';
