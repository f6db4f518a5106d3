/** How ports of the host that lead to containers are written, and those that lead nowhere yet. */
import type { ContainerJson } from '@arcbox/api/client';

export type PublishedPort = NonNullable<ContainerJson['ports']>[number];

/** `0.0.0.0:8080`, `[::]:8080`. */
export function hostEnd({ hostAddress = '', hostPort = 0 }: PublishedPort): string {
  return hostAddress.includes(':') ? `[${hostAddress}]:${hostPort}` : `${hostAddress}:${hostPort}`;
}

/** As `ps` shows them: `0.0.0.0:8080->80/tcp, 53/udp`; none of a container that does not run. */
export function portText(container: ContainerJson): string {
  const { ports = [] } = container;
  const published = ports.map((port) => `${hostEnd(port)}->${port.containerPort}/${port.protocol}`);
  return [...published, ...exposedOnly(container)].join(', ');
}

/** Of one that runs: ports that it exposes and that no port of the host leads to. */
export function exposedOnly({ state, ports = [], exposedPorts = [] }: ContainerJson): string[] {
  if (state !== 'running' && state !== 'paused') return [];
  const published = new Set(ports.map(({ containerPort, protocol }) => `${containerPort}/${protocol}`));
  return exposedPorts.filter((port) => !published.has(port));
}

export interface PortRange {
  readonly first: number;
  readonly last: number;
  readonly protocol: string;
}

/** `80`, `80/udp`, `8000-8010/tcp`; undefined when it is none of these. */
export function portRange(text: string): PortRange | undefined {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp))?$/.exec(text);
  if (match === null) return undefined;
  const [, first = '', last = first, protocol = 'tcp'] = match;
  return { first: Number(first), last: Number(last), protocol };
}

export function overlaps(one: PortRange, other: PortRange): boolean {
  return one.protocol === other.protocol && one.first <= other.last && other.first <= one.last;
}
