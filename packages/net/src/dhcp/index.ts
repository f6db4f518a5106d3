export { type DhcpMessage, decodeMessage, MessageType, OptionCode } from './message.ts';
export type { Route } from './option-values.ts';
export {
  type Binding,
  DHCP_CLIENT_PORT,
  DHCP_SERVER_PORT,
  type DhcpCounters,
  type DhcpReply,
  DhcpServer,
  type DhcpServerOptions,
  type DhcpState,
  LEASE_S_DEFAULT,
  LEASE_S_MAX,
  type Reservation,
} from './server.ts';
export { type DhcpUdpOptions, serveDhcpUdp } from './udp.ts';
