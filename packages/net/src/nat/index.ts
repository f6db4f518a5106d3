export { Fate, type NatCounters, NatEngine, type NatOptions } from './engine.ts';
export type { RouterCounters, RouterDevice, RouterOptions } from './protocol.ts';
export { adjust, delta16, delta32 } from './rewrite.ts';
export { NatRouter } from './router.ts';
export { TunUplink, type UplinkOptions } from './uplink.ts';
