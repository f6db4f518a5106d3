/** What the daemon and its network worker say to each other. Plain data: it is copied between two threads. */
import type { Endpoint as NamedEndpoint } from '../dns/index.ts';
import type { PortCounters } from '../link/port.ts';
import type { Flow, Verdict } from '../stack/policy.ts';

export interface NetworkSetup {
  readonly name: string;
  readonly mtu: number;
  /** `10.88.0.0/24`, IPv4. */
  readonly subnet: string;
  /** The gateway's address in it; the host's loopback is behind it, too. */
  readonly gateway: string;
  /** Of the same network, IPv6: `fd00:1::/64` and its gateway. */
  readonly subnet6?: string;
  readonly gateway6?: string;
  /** Nothing leaves it, except to its gateway's services. */
  readonly internal: boolean;
  /** The daemon is asked about every flow; otherwise all are allowed. */
  readonly asks: boolean;
}

export interface Publication {
  readonly id: string;
  readonly network: string;
  readonly protocol: 'tcp' | 'udp';
  readonly hostAddress: string;
  /** 0: any that is free. */
  readonly hostPort: number;
  /** In the network. */
  readonly address: string;
  readonly port: number;
}

export interface LinkStats {
  readonly link: string;
  readonly counters: PortCounters;
}

export interface NetworkStats {
  readonly network: string;
  readonly tcpConnections: number;
  readonly tcpOpened: number;
  readonly udpFlows: number;
  readonly denied: number;
  readonly malformed: number;
  readonly badChecksums: number;
}

export interface WorkerStats {
  readonly links: readonly LinkStats[];
  readonly networks: readonly NetworkStats[];
  /** Of the memory for connections' data. */
  readonly chunksFree: number;
  readonly chunksTotal: number;
}

export type Command =
  | { readonly do: 'addNetwork'; readonly network: NetworkSetup }
  | { readonly do: 'removeNetwork'; readonly name: string }
  | { readonly do: 'plug'; readonly link: string; readonly path: string }
  | { readonly do: 'unplug'; readonly link: string }
  | { readonly do: 'attach'; readonly link: string; readonly vlan: number; readonly network: string }
  | { readonly do: 'detach'; readonly link: string; readonly vlan: number }
  | { readonly do: 'addEndpoint'; readonly endpoint: NamedEndpoint }
  | { readonly do: 'removeEndpoint'; readonly owner: string; readonly network: string }
  | { readonly do: 'publish'; readonly publication: Publication }
  | { readonly do: 'unpublish'; readonly id: string }
  | { readonly do: 'capture'; readonly link: string; readonly on: boolean }
  | { readonly do: 'stats' };

/** From the daemon. */
export type ToWorker =
  | { readonly kind: 'command'; readonly id: number; readonly command: Command }
  | { readonly kind: 'verdict'; readonly id: number; readonly verdict: Verdict };

/** From the worker. */
export type FromWorker =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly id: number; readonly value?: unknown }
  | { readonly kind: 'failed'; readonly id: number; readonly code: string; readonly message: string }
  | { readonly kind: 'ask'; readonly id: number; readonly flow: Flow }
  | { readonly kind: 'unplugged'; readonly link: string; readonly reason: string }
  /** There are captured frames in the ring. */
  | { readonly kind: 'captured' }
  | { readonly kind: 'warning'; readonly what: string; readonly detail: string };
