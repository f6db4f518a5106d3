/** Between the API's messages and the engine's types, checked on the way in. */
import {
  type BoundPort,
  type Container,
  type ContainerRecord,
  type CreateOptions,
  EngineError,
  type HostOptions,
  type NamedUsage,
  type NetworkManager,
  type ResourceLimits,
} from '@arcbox/engine';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type {
  ContainerNetworkSchema,
  ContainerSchema,
  ContainerStatsSchema,
  CreateContainerRequest,
  HostOptions as HostOptionsMessage,
  HostOptionsSchema,
  ResourceLimits as ResourceLimitsMessage,
} from '../gen/arcbox/v1/container_pb.ts';
import { healthMessage, lifeMessage, lifeRequest, mountMessage, mountRequests } from './life-messages.ts';

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
export function createOptions(request: CreateContainerRequest, architecture: string): CreateOptions {
  if (request.image === '') throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', 'an image must be named');
  checkPlatform(request.platform, architecture);
  return {
    image: request.image,
    command: request.command,
    env: request.env,
    tty: request.tty,
    openStdin: request.openStdin,
    stdinOnce: request.stdinOnce,
    autoRemove: request.autoRemove,
    workingDir: request.workingDir,
    hostname: request.hostname,
    domainname: request.domainname,
    stopSignal: request.stopSignal,
    labels: request.labels,
    life: lifeRequest(request.life),
    mounts: mountRequests(request.mounts),
    expose: request.expose,
    volumesFrom: request.volumesFrom,
    ...(request.stopTimeoutMs === undefined ? {} : { stopTimeoutMs: request.stopTimeoutMs }),
    ...(request.host === undefined ? {} : { host: hostOptions(request.host) }),
    ...(request.name === '' ? {} : { name: request.name }),
    ...(request.machine === '' ? {} : { machine: request.machine }),
    ...(request.entrypoint === undefined ? {} : { entrypoint: request.entrypoint.argv }),
    ...(request.user === undefined ? {} : { user: request.user }),
    ...(request.idempotencyKey === '' ? {} : { idempotencyKey: request.idempotencyKey }),
  };
}

export function resourceLimits(message: ResourceLimitsMessage | undefined): ResourceLimits {
  const limits = Object.entries(message ?? {}).filter(
    ([name, value]) => !name.startsWith('$') && value !== undefined,
  );
  return Object.fromEntries(
    limits.map(([name, value]) => [name, typeof value === 'bigint' ? Number(value) : value]),
  ) as ResourceLimits;
}

export function toMessage(
  { record, process, health }: Container,
  networks: NetworkManager,
  ports: readonly BoundPort[],
): MessageInitShape<typeof ContainerSchema> {
  const { config, startedMs, finishedMs, exitCode } = record;
  return {
    id: record.id,
    name: record.name,
    image: config.imageName,
    imageId: record.imageId,
    state: record.state,
    argv: [...config.argv],
    entrypointLength: config.entrypointLength,
    env: [...config.env],
    workingDir: config.workingDir,
    user: config.user,
    hostname: config.hostname,
    domainname: config.domainname,
    tty: config.tty,
    openStdin: config.openStdin,
    stdinOnce: config.stdinOnce,
    autoRemove: config.autoRemove,
    stopSignal: config.stopSignal,
    ...(config.stopTimeoutMs === undefined ? {} : { stopTimeoutMs: config.stopTimeoutMs }),
    labels: { ...config.labels },
    host: hostMessage(record),
    networks: networkMessages(networks, record.id),
    ports: [...ports],
    life: lifeMessage(config.life),
    restarts: record.restarts,
    mounts: config.mounts.map(mountMessage),
    exposedPorts: [...config.exposedPorts],
    ...(health === undefined ? {} : { health: healthMessage(health) }),
    machine: record.machine,
    run: record.run,
    pid: process?.pid ?? 0,
    createdMs: BigInt(record.createdMs),
    ...(startedMs === undefined ? {} : { startedMs: BigInt(startedMs) }),
    ...(finishedMs === undefined ? {} : { finishedMs: BigInt(finishedMs) }),
    ...(exitCode === undefined ? {} : { exitCode }),
    error: record.error,
  };
}

/** A container's places in networks, in the order of its interfaces. */
function networkMessages(
  networks: NetworkManager,
  containerId: string,
): MessageInitShape<typeof ContainerNetworkSchema>[] {
  const prefixOf = (subnet: string): number => Number(subnet.slice(subnet.indexOf('/') + 1));
  return networks.endpointsOf(containerId).map(({ networkId, address, address6, mac, aliases }) => {
    const { name, subnet, gateway, subnet6, gateway6 = '' } = networks.find(networkId);
    const four = { networkId, name, address, prefix: prefixOf(subnet), gateway, mac, aliases: [...aliases] };
    return address6 === undefined || subnet6 === undefined
      ? four
      : { ...four, address6, prefix6: prefixOf(subnet6), gateway6 };
  });
}

/** Numbers become 64-bit integers, but for those that count CPUs. */
export function statsMessage({ id, name, usage }: NamedUsage): MessageInitShape<typeof ContainerStatsSchema> {
  if (usage === undefined) return { id, name, running: false };
  const { readUnixNs, machineCpus, interfaces, ...counters } = usage;
  return {
    id,
    name,
    running: true,
    readUnixNs,
    machineCpus,
    interfaces: interfaces.map(({ name, ...traffic }) => ({ name, ...bigints(traffic) })),
    ...bigints(counters),
  };
}

function bigints<Counters extends object>(counters: Counters): Record<keyof Counters, bigint> {
  const entries = Object.entries(counters).map(([key, value]) => [key, BigInt(Math.round(Number(value)))]);
  return Object.fromEntries(entries) as Record<keyof Counters, bigint>;
}

function hostOptions({
  limits,
  shmBytes,
  ulimits,
  networks,
  $typeName,
  $unknown,
  ...rest
}: HostOptionsMessage): HostOptions {
  return {
    ...rest,
    limits: resourceLimits(limits),
    networks: networks.map(({ network, address, address6, mac, aliases }) => ({
      network,
      address,
      address6,
      mac,
      aliases,
    })),
    shmBytes: Number(shmBytes),
    ulimits: ulimits.map(({ name, soft, hard }) => ({ name, soft: Number(soft), hard: Number(hard) })),
  };
}

function hostMessage({ config: { host } }: ContainerRecord): MessageInitShape<typeof HostOptionsSchema> {
  const {
    memoryBytes,
    memorySwapBytes,
    memoryReservationBytes,
    nanoCpus,
    cpuQuotaUs,
    cpuPeriodUs,
    pidsMax,
    ...limits
  } = host.limits;
  const wide = Object.entries({
    memoryBytes,
    memorySwapBytes,
    memoryReservationBytes,
    nanoCpus,
    cpuQuotaUs,
    cpuPeriodUs,
    pidsMax,
  }).flatMap(([name, value]) => (value === undefined ? [] : [[name, BigInt(value)] as const]));
  return {
    ...host,
    limits: { ...limits, ...Object.fromEntries(wide) },
    capAdd: [...host.capAdd],
    capDrop: [...host.capDrop],
    securityOpt: [...host.securityOpt],
    tmpfs: { ...host.tmpfs },
    shmBytes: BigInt(host.shmBytes),
    ulimits: host.ulimits.map(({ name, soft, hard }) => ({ name, soft: BigInt(soft), hard: BigInt(hard) })),
    sysctls: { ...host.sysctls },
    groupAdd: [...host.groupAdd],
    extraHosts: [...host.extraHosts],
    dns: [...host.dns],
    dnsSearch: [...host.dnsSearch],
    dnsOptions: [...host.dnsOptions],
    networkAliases: [...host.networkAliases],
    networks: host.networks.map((join) => ({ ...join, aliases: [...join.aliases] })),
    publish: [...host.publish],
  };
}

const ARCHITECTURES: Readonly<Record<string, string>> = { x86_64: 'amd64', aarch64: 'arm64' };

function checkPlatform(platform: string, architecture: string): void {
  const own = `linux/${ARCHITECTURES[architecture] ?? architecture}`;
  const wanted = platform.includes('/') ? platform : `linux/${platform}`;
  if (platform === '' || wanted === own || wanted === 'linux/') return;
  throw new EngineError(
    'ERR_ARCBOX_INVALID_ARGUMENT',
    `the platform ${platform} cannot be run: the machine is ${own}`,
  );
}
