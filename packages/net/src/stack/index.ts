/** The user-mode stack: links in, sockets out. See docs/network.md. */
export type { Link, LinkReceiver } from '../link/link.ts';
export { type FrameTap, Port, type PortCounters } from '../link/port.ts';
export { StreamLink } from '../link/stream-link.ts';
export { Arena, type ArenaOptions } from '../memory/arena.ts';
export { NodeNetwork, SocketStream } from '../relay/node-network.ts';
export { ReadGate } from '../relay/read-gate.ts';
export { TcpRelay } from '../relay/tcp-relay.ts';
export type { TcpConnection, TcpEnd, TcpUser } from '../tcp/connection.ts';
export type { Datagram, DatagramHandler, UdpLayer } from '../udp/layer.ts';
export type { Clock, Randomness } from './clock.ts';
export type { Attachment, StackEnvironment } from './environment.ts';
export type { TcpService } from './flow-opener.ts';
export type { AddressPair, Hop } from './hop.ts';
export type * from './host-network.ts';
export { type NetworkOptions, NetworkStack, type Uplink } from './network-stack.ts';
export { ALLOW, type Flow, type FlowPolicy, type Verdict } from './policy.ts';
export { Switch, type SwitchCounters } from './switch.ts';
export { TimerWheel } from './timer-wheel.ts';
