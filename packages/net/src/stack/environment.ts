/** What a network is given: what it shares with the others of its worker, and where its machines are. */
import type { Port } from '../link/port.ts';
import type { Arena } from '../memory/arena.ts';
import type { ReadGate } from '../relay/read-gate.ts';
import type { Clock, Randomness } from './clock.ts';
import type { HostNetwork } from './host-network.ts';
import type { TimerWheel } from './timer-wheel.ts';

/** What all networks of a worker share. */
export interface StackEnvironment {
  readonly arena: Arena;
  readonly clock: Clock;
  readonly random: Randomness;
  readonly wheel: TimerWheel;
  readonly gate: ReadGate;
  readonly host: HostNetwork;
}

/** Where the machines of a network are. */
export interface Attachment {
  readonly port: Port;
  readonly vlan: number;
}
