/** A container as `docker inspect` shows it, which is what templates and scripts are written for. */
import { constants } from 'node:os';
import type { ContainerJson, HostOptionsJson, MountJson } from '@arcbox/api/client';
import { NO_TIMEOUT_MS } from './limit-flags.ts';
import { goMap } from './template/evaluate.ts';

const NEVER = '0001-01-01T00:00:00Z';
const SHM_BYTES_DEFAULT = 64 * 1024 * 1024;
const SIGKILL_EXIT_CODE = 137;

export function dockerContainer(container: ContainerJson): Record<string, unknown> {
  const { argv = [], entrypointLength = 0, labels = {}, host = {} } = container;
  const running = container.state === 'running' || container.state === 'paused';
  return {
    Id: container.id ?? '',
    Created: time(container.createdMs),
    Path: argv[0] ?? '',
    Args: argv.slice(1),
    State: {
      Status: container.state ?? '',
      Running: running,
      Paused: container.state === 'paused',
      Restarting: container.state === 'restarting',
      OOMKilled: false,
      Dead: false,
      Pid: container.pid ?? 0,
      ExitCode: running ? 0 : (container.exitCode ?? 0),
      Error: container.exitCode === SIGKILL_EXIT_CODE ? '' : (container.error ?? ''),
      StartedAt: time(container.startedMs),
      FinishedAt: running ? NEVER : time(container.finishedMs),
      ...healthState(container),
    },
    Image: container.imageId ?? '',
    Name: `/${container.name ?? ''}`,
    RestartCount: container.restarts ?? 0,
    Driver: 'overlay2',
    Platform: 'linux',
    Machine: container.machine ?? '',
    Run: container.run ?? 0,
    ExecIDs: container.execIds ?? [],
    HostConfig: hostConfig(host, container),
    Mounts: (container.mounts ?? []).map(mountPoint),
    Config: {
      Hostname: container.hostname ?? '',
      Domainname: container.domainname ?? '',
      User: container.user ?? '',
      Tty: container.tty === true,
      OpenStdin: container.openStdin === true,
      StdinOnce: container.stdinOnce === true,
      Env: container.env ?? [],
      Cmd: argv.slice(entrypointLength),
      Entrypoint: entrypointLength === 0 ? null : argv.slice(0, entrypointLength),
      Image: container.image ?? '',
      WorkingDir: container.workingDir ?? '',
      Labels: goMap(labels),
      ExposedPorts: goMap(Object.fromEntries((container.exposedPorts ?? []).map((port) => [port, {}]))),
      ...healthcheck(container),
      StopSignal: signalName(container.stopSignal ?? 0),
      ...(container.stopTimeoutMs === undefined ? {} : { StopTimeout: stopTimeout(container.stopTimeoutMs) }),
    },
    NetworkSettings: networkSettings(container, running),
  };
}

/** Addresses are shown while it runs, as docker does, though they are kept. */
function networkSettings(
  { networks = [], ports = [] }: ContainerJson,
  running: boolean,
): Record<string, unknown> {
  const shown = networks.map(({ networkId, name, address, prefix, gateway, mac, aliases, ...six }) => ({
    name: name ?? '',
    endpoint: {
      NetworkID: networkId ?? '',
      Aliases: aliases ?? null,
      IPAddress: running ? (address ?? '') : '',
      IPPrefixLen: running ? (prefix ?? 0) : 0,
      Gateway: running ? (gateway ?? '') : '',
      MacAddress: running ? (mac ?? '') : '',
      IPv6Gateway: running ? (six.gateway6 ?? '') : '',
      GlobalIPv6Address: running ? (six.address6 ?? '') : '',
      GlobalIPv6PrefixLen: running ? (six.prefix6 ?? 0) : 0,
    },
  }));
  const [bridge] = shown.filter(({ name }) => name === 'bridge');
  return {
    Ports: goMap(portMap(ports)),
    IPAddress: bridge?.endpoint.IPAddress ?? '',
    IPPrefixLen: bridge?.endpoint.IPPrefixLen ?? 0,
    Gateway: bridge?.endpoint.Gateway ?? '',
    MacAddress: bridge?.endpoint.MacAddress ?? '',
    IPv6Gateway: bridge?.endpoint.IPv6Gateway ?? '',
    GlobalIPv6Address: bridge?.endpoint.GlobalIPv6Address ?? '',
    GlobalIPv6PrefixLen: bridge?.endpoint.GlobalIPv6PrefixLen ?? 0,
    Networks: goMap(Object.fromEntries(shown.map(({ name, endpoint }) => [name, endpoint]))),
  };
}

/** By port of the container. */
function portMap(ports: NonNullable<ContainerJson['ports']>): Record<string, unknown[]> {
  const map: Record<string, unknown[]> = {};
  for (const { containerPort, protocol, hostAddress, hostPort } of ports) {
    const key = `${containerPort}/${protocol}`;
    map[key] = [...(map[key] ?? []), { HostIp: hostAddress ?? '', HostPort: String(hostPort) }];
  }
  return map;
}

function hostConfig(host: HostOptionsJson, container: ContainerJson): Record<string, unknown> {
  const { limits = {} } = host;
  return {
    NetworkMode: host.networkMode || 'bridge',
    AutoRemove: container.autoRemove === true,
    Memory: Number(limits.memoryBytes ?? 0),
    MemorySwap: Number(limits.memorySwapBytes ?? 0),
    MemoryReservation: Number(limits.memoryReservationBytes ?? 0),
    NanoCpus: Number(limits.nanoCpus ?? 0),
    CpuQuota: Number(limits.cpuQuotaUs ?? 0),
    CpuPeriod: Number(limits.cpuPeriodUs ?? 0),
    CpuShares: limits.cpuShares ?? 0,
    CpusetCpus: limits.cpusetCpus ?? '',
    CpusetMems: limits.cpusetMems ?? '',
    BlkioWeight: limits.blkioWeight ?? 0,
    PidsLimit: limits.pidsMax === undefined ? null : Number(limits.pidsMax),
    Privileged: host.privileged === true,
    CapAdd: host.capAdd ?? null,
    CapDrop: host.capDrop ?? null,
    SecurityOpt: host.securityOpt ?? null,
    ReadonlyRootfs: host.readOnlyRoot === true,
    Tmpfs: goMap(host.tmpfs ?? {}),
    ShmSize: Number(host.shmBytes ?? 0) || SHM_BYTES_DEFAULT,
    Ulimits: (host.ulimits ?? []).map(({ name, soft, hard }) => ({
      Name: name,
      Soft: Number(soft ?? 0),
      Hard: Number(hard ?? 0),
    })),
    Sysctls: goMap(host.sysctls ?? {}),
    GroupAdd: host.groupAdd ?? null,
    Init: host.init === true,
    OomScoreAdj: host.oomScoreAdj ?? 0,
    PidMode: host.pidMode ?? '',
    IpcMode: host.ipcMode || 'private',
    UTSMode: host.utsMode ?? '',
    ExtraHosts: host.extraHosts ?? [],
    PublishAllPorts: host.publishAll === true,
    Dns: host.dns ?? [],
    DnsSearch: host.dnsSearch ?? [],
    DnsOptions: host.dnsOptions ?? [],
    RestartPolicy: restartPolicy(container.life?.restart),
    LogConfig: {
      Type: 'json-file',
      Config: goMap({
        'max-file': String(container.life?.logMaxFiles ?? 0),
        'max-size': String(container.life?.logMaxSizeBytes ?? 0),
      }),
    },
  };
}

function healthState({ health }: ContainerJson): { Health?: object } {
  if (health === undefined) return {};
  return {
    Health: {
      Status: health.status ?? '',
      FailingStreak: health.failingStreak ?? 0,
      Log: (health.log ?? []).map((probe) => ({
        Start: time(probe.startMs),
        End: time(probe.endMs),
        ExitCode: probe.exitCode ?? 0,
        Output: probe.output ?? '',
      })),
    },
  };
}

/** Durations are nanoseconds. */
function healthcheck({ life }: ContainerJson): { Healthcheck?: object } {
  const check = life?.health;
  if (check === undefined) return {};
  const ns = (ms: string | undefined): number => Number(ms ?? 0) * 1e6;
  return {
    Healthcheck: {
      Test: check.test ?? [],
      Interval: ns(check.intervalMs),
      Timeout: ns(check.timeoutMs),
      StartPeriod: ns(check.startPeriodMs),
      StartInterval: ns(check.startIntervalMs),
      Retries: check.retries ?? 0,
    },
  };
}

function mountPoint({ type, source = '', target = '', readOnly }: MountJson): object {
  return {
    Type: type ?? '',
    ...(type === 'volume' ? { Name: source, Driver: 'local' } : {}),
    Source: source,
    Destination: target,
    Mode: readOnly === true ? 'ro' : 'rw',
    RW: readOnly !== true,
    Propagation: '',
  };
}

function restartPolicy(text = ''): { Name: string; MaximumRetryCount: number } {
  const [name = '', count = '0'] = text.split(':');
  return { Name: name || 'no', MaximumRetryCount: Number(count) };
}

function time(unixMs: string | undefined): string {
  return unixMs === undefined ? NEVER : new Date(Number(unixMs)).toISOString();
}

/** In seconds; -1: as long as it takes. */
function stopTimeout(ms: number): number {
  return ms === NO_TIMEOUT_MS ? -1 : ms / 1000;
}

function signalName(number: number): string {
  const found = Object.entries(constants.signals).find(([, value]) => value === number);
  return found?.[0] ?? String(number);
}
