export { Fate, type NatCounters, NatEngine, type NatOptions } from './engine.ts';
export { adjust, delta16, delta32 } from './rewrite.ts';
