export type { FlowAnswer, PolicyDefault, Protocol, Rule, RulePolicy } from '@arcbox/net/policy';
export type { AskedFlow, FlowFunction } from '@arcbox/net/worker';
export * from './boot-assets.ts';
export * from './config.ts';
export type { CommitOptions } from './container/commit.ts';
export type { Container, ContainerExit } from './container/container.ts';
export type { ContainerAttachment, InputPosition } from './container/container-attachment.ts';
export type {
  ContainerFiles,
  FileChange,
  PathStat,
  UnpackOptions,
} from './container/container-files.ts';
export type { ContainerManager } from './container/container-manager.ts';
export type { ContainerConfig, ContainerRecord } from './container/container-record.ts';
export type { AttachOptions } from './container/container-streams.ts';
export type { ContainerTools, NamedProcess, NamedUsage } from './container/container-tools.ts';
export type { CreateOptions } from './container/create.ts';
export type { Health, HealthProbe, HealthStatus } from './container/health.ts';
export type { HostOptions, ResourceLimits, Ulimit } from './container/host-options.ts';
export * from './container/life-options.ts';
export type { TerminalSize } from './container/oci-spec.ts';
export type { ContainerState } from './container/transitions.ts';
export type { DiskUsage, UsageRow } from './disk-usage.ts';
export * from './errors.ts';
export type { EngineEvent, EventBatch, EventLog, EventQuery, EventType } from './events/event-log.ts';
export { checkFilters, type EventFilters } from './events/filters.ts';
export type { ExecOptions, ExecRecord, ExecState } from './exec/exec.ts';
export type { ExecManager } from './exec/exec-manager.ts';
export type { ExecProcess, ProcessOutput } from './exec/exec-process.ts';
export * from './host-layout.ts';
export type { LogBatch, LogReader, LogRecord } from './log/log-reader.ts';
export * from './logger.ts';
export type { Machine } from './machine/machine.ts';
export { DEFAULT_MACHINE, type MachineOptions } from './machine/machine-record.ts';
export type { MachineState } from './machine/transitions.ts';
export { type CaptureOptions, type CapturePiece, captureFile } from './network/capture-file.ts';
export { connectContainer, disconnectContainer } from './network/connections.ts';
export type { NetworkManager } from './network/network-manager.ts';
export type { EndpointRecord, NetworkRecord } from './network/network-record.ts';
export type { NetworkPolicies, NetworkPolicy } from './network/policies.ts';
export type { PolicySubject } from './network/policy-table.ts';
export type { BoundPort } from './network/port-bindings.ts';
export { availableMemoryBytes, type Reserves, type Room } from './room.ts';
export * from './runtime.ts';
export { signalNumber } from './signals.ts';
export { formatSize, parseSize } from './size.ts';
export type { ContainerMount, MountRequest, VolumeMount } from './volume/mounts.ts';
export type { CreateVolume, VolumeManager, VolumeUsage } from './volume/volume-manager.ts';
export type { VolumeRecord } from './volume/volume-record.ts';
