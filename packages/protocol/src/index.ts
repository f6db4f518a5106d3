/** The guest agent's protocol: messages, the host's client, and a server for tests and for the fake VM driver. */
export { AgentClient, type CallOptions, type ObjectEnd } from './agent-client.ts';
export type {
  Attachment,
  AttachOptions,
  ChannelStart,
  OutputChannel,
  OutputChunk,
  UnackedInput,
} from './attachment.ts';
export { errnoName, errnoNumber } from './errno.ts';
export { AgentCallError, AgentOpError, ProtocolError, type ProtocolErrorCode, Status } from './errors.ts';
export * from './gen/arcbox/agent/v1/agent_pb.ts';
export type { HelloOptions } from './handshake.ts';
export * from './limits.ts';
export type { OpInput } from './op-input.ts';
export type { InputSink } from './server/input-port.ts';
export { OutputLog } from './server/output-log.ts';
export {
  type AgentHandlers,
  type AgentSession,
  type OpAnswer,
  OpFailure,
  serveAgent,
} from './server/serve-agent.ts';
export { type ObjectEndInit, ServedObject, type ServedObjectOptions } from './server/served-object.ts';
