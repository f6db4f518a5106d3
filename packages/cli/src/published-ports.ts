/** How ports of the host that lead to containers are written. */
import type { ContainerJson } from '@arcbox/api/client';

export type PublishedPort = NonNullable<ContainerJson['ports']>[number];

/** `0.0.0.0:8080`, `[::]:8080`. */
export function hostEnd({ hostAddress = '', hostPort = 0 }: PublishedPort): string {
  return hostAddress.includes(':') ? `[${hostAddress}]:${hostPort}` : `${hostAddress}:${hostPort}`;
}
