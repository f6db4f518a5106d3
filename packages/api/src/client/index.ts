/** For programs that talk to the daemon; loads nothing of the daemon itself. */

export { ApiError, type ApiErrorCode, RemoteError } from '../errors.ts';
export type {
  ContainerJson,
  ContainerProcessJson,
  ContainerStatsJson,
  CreateContainerRequestJson,
  HostOptionsJson,
  LifeOptionsJson,
  LogEntryJson,
  MountJson,
  NetworkJoinJson,
  ResourceLimitsJson,
  UlimitJson,
} from '../gen/arcbox/v1/container_pb.ts';
export type {
  ImageHistoryEntryJson,
  ImageJson,
  ImageRemovalJson,
  PullImageRequestJson,
  TransferOutcomeJson,
  TransferProgressJson,
} from '../gen/arcbox/v1/image_pb.ts';
export type { MachineJson } from '../gen/arcbox/v1/machine_pb.ts';
export type {
  FlowTrafficJson,
  NetworkJson,
  NetworkPolicyJson,
  NetworkRuleJson,
  NetworkSubjectJson,
} from '../gen/arcbox/v1/network_pb.ts';
export type { DoctorCheckJson, EventJson, UsageRowJson } from '../gen/arcbox/v1/system_pb.ts';
export type { VolumeJson } from '../gen/arcbox/v1/volume_pb.ts';
export { DEFAULT_DETACH_KEYS, DetachKeys, parseDetachKeys } from '../stdio/detach-keys.ts';
export type { ExitPayload } from '../stdio/frames.ts';
export { VERSION } from '../version.ts';
export * from './client.ts';
export * from './container-stream.ts';
export * from './daemon-control.ts';
export * from './exec-stream.ts';
export * from './files.ts';
export { callStream, type StreamMethods } from './stream-call.ts';
