/**
 * Ports of the host that lead to containers. All of a container's are bound before its process starts, or none: one
 * that is taken keeps the container from starting.
 *
 * A port that nobody chose follows from the container and its own port, so that the daemon after a crash binds the same
 * one again without having written it down; the next one is tried when that is taken.
 */
import { createHash } from 'node:crypto';
import { NetError } from '@arcbox/net/errors';
import { type PortMapping, type PortProtocol, parsePortSpec } from '@arcbox/net/ports';
import type { NetworkWorker } from '@arcbox/net/worker';
import { faultPoint } from '@arcbox/sys';
import { EngineError } from '../errors.ts';

/** Of the ports that are given out when none is chosen (Linux's own begin at 32768, too; both skip what is taken). */
const RANDOM_FIRST = 32_768;
const RANDOM_COUNT = 28_232;
const RANDOM_TRIES = 64;
const ALL_4 = '0.0.0.0';
const ALL_6 = '::';

export interface BoundPort {
  readonly containerPort: number;
  readonly protocol: PortProtocol;
  readonly hostAddress: string;
  readonly hostPort: number;
}

/** What binds ports: the network worker. */
export type PortPublisher = Pick<NetworkWorker, 'publish' | 'unpublish'>;

/** Where a published port leads. */
export interface PortTarget {
  readonly network: string;
  readonly address: string;
}

/** What `-p` was given. Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
export function portMappings(specs: readonly string[]): readonly PortMapping[] {
  try {
    return specs.flatMap((spec) => parsePortSpec(spec));
  } catch (error) {
    if (!(error instanceof NetError)) throw error;
    throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', error.message, { cause: error });
  }
}

export class PortBindings {
  readonly #bound = new Map<string, { readonly ports: BoundPort[]; readonly ids: string[] }>();

  /** Numbers them. */
  #publication = 0;

  of(containerId: string): readonly BoundPort[] {
    return this.#bound.get(containerId)?.ports ?? [];
  }

  has(containerId: string): boolean {
    return this.#bound.has(containerId);
  }

  /** Throws `ERR_ARCBOX_NETWORK` when a port is taken; then none is bound. */
  async open(
    worker: PortPublisher,
    containerId: string,
    specs: readonly string[],
    target: PortTarget,
  ): Promise<void> {
    const bound = { ports: [] as BoundPort[], ids: [] as string[] };
    this.#bound.set(containerId, bound);
    try {
      for (const mapping of portMappings(specs))
        await this.#bind(worker, containerId, mapping, target, bound);
    } catch (error) {
      await this.close(worker, containerId);
      if (!(error instanceof NetError)) throw error;
      throw new EngineError('ERR_ARCBOX_NETWORK', error.message, { cause: error });
    }
  }

  async close(worker: PortPublisher, containerId: string): Promise<void> {
    const bound = this.#bound.get(containerId);
    this.#bound.delete(containerId);
    for (const id of bound?.ids ?? []) await worker.unpublish(id);
  }

  /** The worker is gone, and what it had bound with it. */
  forgetAll(): void {
    this.#bound.clear();
  }

  async #bind(
    worker: PortPublisher,
    containerId: string,
    mapping: PortMapping,
    target: PortTarget,
    bound: { readonly ports: BoundPort[]; readonly ids: string[] },
  ): Promise<void> {
    const { containerPort, protocol } = mapping;
    // Everywhere means both families, where the host has both.
    const addresses = mapping.hostAddress === undefined ? [ALL_4, ALL_6] : [mapping.hostAddress];
    const candidates = hostPorts(containerId, mapping);
    for (const [index, hostPort] of candidates.entries()) {
      const before = bound.ids.length;
      try {
        for (const hostAddress of addresses) {
          const id = `${containerId} ${this.#publication}`;
          this.#publication += 1;
          try {
            faultPoint('network.bind');
            await worker.publish({ id, ...target, protocol, hostAddress, hostPort, port: containerPort });
          } catch (error) {
            if (hostAddress === ALL_6 && mapping.hostAddress === undefined && isNoAddress(error)) continue;
            throw error;
          }
          bound.ids.push(id);
          bound.ports.push({ containerPort, protocol, hostAddress, hostPort });
        }
        return;
      } catch (error) {
        const taken = error instanceof NetError && error.code === 'ERR_ARCBOX_NET_PORT_TAKEN';
        if (!taken || index === candidates.length - 1) throw error;
        // The same port in both families, or neither.
        bound.ports.splice(before);
        for (const id of bound.ids.splice(before)) await worker.unpublish(id);
      }
    }
  }
}

/** Of a family that this host does not have. */
function isNoAddress(error: unknown): boolean {
  return error instanceof NetError && error.code === 'ERR_ARCBOX_NET_NO_ADDRESS';
}

/** The ports of the host to try, in order. */
function hostPorts(
  containerId: string,
  { hostPorts: range, containerPort, protocol }: PortMapping,
): number[] {
  if (range !== undefined) {
    return Array.from({ length: range.last - range.first + 1 }, (_, i) => range.first + i);
  }
  const digest = createHash('sha256').update(`${containerId} ${containerPort} ${protocol}`).digest();
  const start = digest.readUInt32BE() % RANDOM_COUNT;
  return Array.from({ length: RANDOM_TRIES }, (_, i) => RANDOM_FIRST + ((start + i) % RANDOM_COUNT));
}
