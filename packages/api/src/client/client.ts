/**
 * The daemon's client for our own command: unary calls of the Connect protocol in JSON, over `node:http` alone.
 *
 * The services speak Connect and gRPC, and any client of those will do; but loading one costs more than everything else
 * a command does. The types are the generated ones.
 */
import { type IncomingMessage, request } from 'node:http';
import { ApiError, RemoteError } from '../errors.ts';
import type {
  CommitContainerRequestJson,
  CommitContainerResponseJson,
  ContainerChangesRequestJson,
  ContainerChangesResponseJson,
  ContainerStatsRequestJson,
  ContainerStatsResponseJson,
  CreateContainerRequestJson,
  CreateContainerResponseJson,
  InspectContainerRequestJson,
  InspectContainerResponseJson,
  KillContainerRequestJson,
  KillContainerResponseJson,
  ListContainersRequestJson,
  ListContainersResponseJson,
  PauseContainerRequestJson,
  PauseContainerResponseJson,
  PruneContainersRequestJson,
  PruneContainersResponseJson,
  RemoveContainerRequestJson,
  RemoveContainerResponseJson,
  RenameContainerRequestJson,
  RenameContainerResponseJson,
  ResizeContainerRequestJson,
  ResizeContainerResponseJson,
  RestartContainerRequestJson,
  RestartContainerResponseJson,
  StartContainerRequestJson,
  StartContainerResponseJson,
  StopContainerRequestJson,
  StopContainerResponseJson,
  TopContainerRequestJson,
  TopContainerResponseJson,
  UnpauseContainerRequestJson,
  UnpauseContainerResponseJson,
  UpdateContainerRequestJson,
  UpdateContainerResponseJson,
  WaitContainerRequestJson,
  WaitContainerResponseJson,
} from '../gen/arcbox/v1/container_pb.ts';
import type {
  CreateExecRequestJson,
  CreateExecResponseJson,
  InspectExecRequestJson,
  InspectExecResponseJson,
  ResizeExecRequestJson,
  ResizeExecResponseJson,
  StartExecRequestJson,
  StartExecResponseJson,
} from '../gen/arcbox/v1/exec_pb.ts';
import type {
  ImageHistoryRequestJson,
  ImageHistoryResponseJson,
  InspectImageRequestJson,
  InspectImageResponseJson,
  ListImagesRequestJson,
  ListImagesResponseJson,
  LoginRequestJson,
  LoginResponseJson,
  PruneImagesRequestJson,
  PruneImagesResponseJson,
  RemoveImageRequestJson,
  RemoveImageResponseJson,
  TagImageRequestJson,
  TagImageResponseJson,
} from '../gen/arcbox/v1/image_pb.ts';
import type {
  CreateMachineRequestJson,
  CreateMachineResponseJson,
  IdleMachineRequestJson,
  IdleMachineResponseJson,
  InspectMachineRequestJson,
  InspectMachineResponseJson,
  ListMachinesRequestJson,
  ListMachinesResponseJson,
  RemoveMachineRequestJson,
  RemoveMachineResponseJson,
  StartMachineRequestJson,
  StartMachineResponseJson,
  StopMachineRequestJson,
  StopMachineResponseJson,
} from '../gen/arcbox/v1/machine_pb.ts';
import type {
  ConnectNetworkRequestJson,
  ConnectNetworkResponseJson,
  CreateNetworkRequestJson,
  CreateNetworkResponseJson,
  DisconnectNetworkRequestJson,
  DisconnectNetworkResponseJson,
  GetNetworkPolicyRequestJson,
  GetNetworkPolicyResponseJson,
  InspectNetworkRequestJson,
  InspectNetworkResponseJson,
  ListNetworksRequestJson,
  ListNetworksResponseJson,
  NetworkStatsRequestJson,
  NetworkStatsResponseJson,
  PruneNetworksRequestJson,
  PruneNetworksResponseJson,
  RemoveNetworkRequestJson,
  RemoveNetworkResponseJson,
  SetNetworkPolicyRequestJson,
  SetNetworkPolicyResponseJson,
} from '../gen/arcbox/v1/network_pb.ts';
import type {
  DiskUsageRequestJson,
  DiskUsageResponseJson,
  DoctorRequestJson,
  DoctorResponseJson,
  InfoRequestJson,
  InfoResponseJson,
  PingRequestJson,
  PingResponseJson,
  ShutdownRequestJson,
  ShutdownResponseJson,
  VersionRequestJson,
  VersionResponseJson,
} from '../gen/arcbox/v1/system_pb.ts';
import type {
  CreateVolumeRequestJson,
  CreateVolumeResponseJson,
  InspectVolumeRequestJson,
  InspectVolumeResponseJson,
  ListVolumesRequestJson,
  ListVolumesResponseJson,
  PruneVolumesRequestJson,
  PruneVolumesResponseJson,
  RemoveVolumeRequestJson,
  RemoveVolumeResponseJson,
} from '../gen/arcbox/v1/volume_pb.ts';
import { ANSWER_BYTES_MAX } from '../limits.ts';

/** Request and answer of every unary method. */
export interface Methods {
  'ContainerService/Create': [CreateContainerRequestJson, CreateContainerResponseJson];
  'ContainerService/Start': [StartContainerRequestJson, StartContainerResponseJson];
  'ContainerService/Wait': [WaitContainerRequestJson, WaitContainerResponseJson];
  'ContainerService/Kill': [KillContainerRequestJson, KillContainerResponseJson];
  'ContainerService/Stop': [StopContainerRequestJson, StopContainerResponseJson];
  'ContainerService/Remove': [RemoveContainerRequestJson, RemoveContainerResponseJson];
  'ContainerService/Prune': [PruneContainersRequestJson, PruneContainersResponseJson];
  'ContainerService/List': [ListContainersRequestJson, ListContainersResponseJson];
  'ContainerService/Inspect': [InspectContainerRequestJson, InspectContainerResponseJson];
  'ContainerService/Resize': [ResizeContainerRequestJson, ResizeContainerResponseJson];
  'ContainerService/Restart': [RestartContainerRequestJson, RestartContainerResponseJson];
  'ContainerService/Pause': [PauseContainerRequestJson, PauseContainerResponseJson];
  'ContainerService/Unpause': [UnpauseContainerRequestJson, UnpauseContainerResponseJson];
  'ContainerService/Rename': [RenameContainerRequestJson, RenameContainerResponseJson];
  'ContainerService/Update': [UpdateContainerRequestJson, UpdateContainerResponseJson];
  'ContainerService/Top': [TopContainerRequestJson, TopContainerResponseJson];
  'ContainerService/Changes': [ContainerChangesRequestJson, ContainerChangesResponseJson];
  'ContainerService/Commit': [CommitContainerRequestJson, CommitContainerResponseJson];
  'ContainerService/Stats': [ContainerStatsRequestJson, ContainerStatsResponseJson];
  'ExecService/Create': [CreateExecRequestJson, CreateExecResponseJson];
  'ExecService/Start': [StartExecRequestJson, StartExecResponseJson];
  'ExecService/Inspect': [InspectExecRequestJson, InspectExecResponseJson];
  'ExecService/Resize': [ResizeExecRequestJson, ResizeExecResponseJson];
  'ImageService/List': [ListImagesRequestJson, ListImagesResponseJson];
  'ImageService/Inspect': [InspectImageRequestJson, InspectImageResponseJson];
  'ImageService/History': [ImageHistoryRequestJson, ImageHistoryResponseJson];
  'ImageService/Tag': [TagImageRequestJson, TagImageResponseJson];
  'ImageService/Remove': [RemoveImageRequestJson, RemoveImageResponseJson];
  'ImageService/Login': [LoginRequestJson, LoginResponseJson];
  'ImageService/Prune': [PruneImagesRequestJson, PruneImagesResponseJson];
  'MachineService/Create': [CreateMachineRequestJson, CreateMachineResponseJson];
  'MachineService/Remove': [RemoveMachineRequestJson, RemoveMachineResponseJson];
  'MachineService/List': [ListMachinesRequestJson, ListMachinesResponseJson];
  'MachineService/Inspect': [InspectMachineRequestJson, InspectMachineResponseJson];
  'MachineService/Start': [StartMachineRequestJson, StartMachineResponseJson];
  'MachineService/Idle': [IdleMachineRequestJson, IdleMachineResponseJson];
  'MachineService/Stop': [StopMachineRequestJson, StopMachineResponseJson];
  'VolumeService/Create': [CreateVolumeRequestJson, CreateVolumeResponseJson];
  'VolumeService/List': [ListVolumesRequestJson, ListVolumesResponseJson];
  'VolumeService/Inspect': [InspectVolumeRequestJson, InspectVolumeResponseJson];
  'VolumeService/Remove': [RemoveVolumeRequestJson, RemoveVolumeResponseJson];
  'VolumeService/Prune': [PruneVolumesRequestJson, PruneVolumesResponseJson];
  'NetworkService/List': [ListNetworksRequestJson, ListNetworksResponseJson];
  'NetworkService/Inspect': [InspectNetworkRequestJson, InspectNetworkResponseJson];
  'NetworkService/Create': [CreateNetworkRequestJson, CreateNetworkResponseJson];
  'NetworkService/Remove': [RemoveNetworkRequestJson, RemoveNetworkResponseJson];
  'NetworkService/Connect': [ConnectNetworkRequestJson, ConnectNetworkResponseJson];
  'NetworkService/Disconnect': [DisconnectNetworkRequestJson, DisconnectNetworkResponseJson];
  'NetworkService/Prune': [PruneNetworksRequestJson, PruneNetworksResponseJson];
  'SystemService/DiskUsage': [DiskUsageRequestJson, DiskUsageResponseJson];
  'NetworkService/GetPolicy': [GetNetworkPolicyRequestJson, GetNetworkPolicyResponseJson];
  'NetworkService/SetPolicy': [SetNetworkPolicyRequestJson, SetNetworkPolicyResponseJson];
  'NetworkService/Stats': [NetworkStatsRequestJson, NetworkStatsResponseJson];
  'SystemService/Ping': [PingRequestJson, PingResponseJson];
  'SystemService/Version': [VersionRequestJson, VersionResponseJson];
  'SystemService/Info': [InfoRequestJson, InfoResponseJson];
  'SystemService/Doctor': [DoctorRequestJson, DoctorResponseJson];
  'SystemService/Shutdown': [ShutdownRequestJson, ShutdownResponseJson];
}

/**
 * Calls a method. Throws `RemoteError` with what the daemon said, and `ApiError` `ERR_ARCBOX_DAEMON_UNREACHABLE` when
 * the connection failed or broke: then it is not known whether the call was carried out.
 */
export async function call<Method extends keyof Methods>(
  socketPath: string,
  method: Method,
  message: Methods[Method][0],
): Promise<Methods[Method][1]> {
  const body = JSON.stringify(message);
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const outgoing = request(
    {
      socketPath,
      method: 'POST',
      path: `/arcbox.v1.${method}`,
      agent: false,
      headers: {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
        'connect-protocol-version': '1',
      },
    },
    resolve,
  );
  outgoing.on('error', (cause) => reject(unreachable(socketPath, cause)));
  outgoing.end(body);
  const answer = await promise;
  const text = await readBody(answer, socketPath);
  if (answer.statusCode === 200) return JSON.parse(text) as Methods[Method][1];
  throw remoteError(text, answer.statusCode ?? 0);
}

/** Reads an answer to its end, within the limit. */
export async function readBody(answer: IncomingMessage, socketPath: string): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of answer as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > ANSWER_BYTES_MAX) throw new Error(`an answer has more than ${ANSWER_BYTES_MAX} bytes`);
      parts.push(part);
    }
  } catch (cause) {
    throw unreachable(socketPath, cause);
  }
  return Buffer.concat(parts).toString('utf8');
}

/** From a Connect error in JSON, or from one of the stdio upgrade. */
export function remoteError(body: string, status: number): RemoteError {
  try {
    const error = JSON.parse(body) as {
      code?: string;
      message?: string;
      exitCode?: number;
      details?: { debug?: { code?: string; exitCode?: number } }[];
    };
    const detail = error.details?.[0]?.debug ?? error;
    return new RemoteError(
      detail.code ?? 'ERR_ARCBOX_INTERNAL',
      error.message ?? error.code ?? `status ${status}`,
      detail.exitCode ?? 125,
    );
  } catch {
    return new RemoteError('ERR_ARCBOX_INTERNAL', `the daemon answered with status ${status}`, 125);
  }
}

export function unreachable(socketPath: string, cause: unknown): ApiError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new ApiError('ERR_ARCBOX_DAEMON_UNREACHABLE', `no daemon answers at ${socketPath}: ${reason}`, {
    cause,
  });
}

/** The connection failed or broke, as opposed to the daemon having refused something. */
export function isUnreachable(error: unknown): boolean {
  return error instanceof ApiError && error.code === 'ERR_ARCBOX_DAEMON_UNREACHABLE';
}
