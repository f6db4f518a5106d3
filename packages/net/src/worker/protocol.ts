/** What the daemon and its network worker say to each other. Plain data: it is copied between two threads. */
import type { DnsCounters, Endpoint as NamedEndpoint } from '../dns/index.ts';
import type { PortCounters } from '../link/port.ts';
import type { NatCounters, UplinkOptions } from '../nat/index.ts';
import type { Denial, FlowAnswer, FlowQuestion, PolicyCounters, RulePolicy } from '../policy/index.ts';
import type { FlowRecord } from '../stack/flow-list.ts';
import type { HalfOpen } from '../stack/network-stack.ts';
import type { Flow, Verdict } from '../stack/policy.ts';

/** Before the link's name and the frame, in a record of the ring that captured frames go through. */
export const CAPTURE_HEADER_BYTES = 14;

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
  /** Whether machines are told to make themselves IPv6 addresses (router advertisements); default: yes. */
  readonly advertises?: boolean;
  /** Nothing leaves it, except to its gateway's services. */
  readonly internal: boolean;
  /** Whom DHCP gives an address: the network's endpoints theirs (default), or whoever asks a free one. */
  readonly leases?: 'endpoints' | 'anybody';
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

/** Whose policy: a machine's by its link, or that of one owner of endpoints in it, which counts before the machine's. */
export interface PolicySubject {
  readonly kind: 'link' | 'owner';
  readonly name: string;
}

/** Names a subject in a table. */
export function keyOf({ kind, name }: PolicySubject): string {
  return `${kind} ${name}`;
}

/** What a policy that is a function is asked; whose flow it is, it knows. */
export type AskedFlow = Omit<FlowQuestion, 'link'>;

/** Runs in the daemon; what it throws, and what takes longer than 5 s, denies the flow. */
export type FlowFunction = (flow: AskedFlow) => FlowAnswer | Promise<FlowAnswer>;

/** What came of a question: an answer that has not been looked at yet, or why there is none. */
export interface FunctionAnswer {
  readonly answer?:
    | string
    | { readonly action?: string; readonly address?: string; readonly port?: number }
    | undefined;
  readonly failure?: string;
}

/** Instead of rules: the daemon is asked, who has a function. */
export const ASKED = 'asked';

export interface PolicyStats extends PolicySubject {
  readonly counters: PolicyCounters;
}

/** A flow that was denied. */
export type DeniedFlow = Omit<Denial, 'subject'> & PolicySubject;

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

/** A flow, and whose it is: the owner of the endpoint at its address, if there is one. */
export interface OwnedFlow extends FlowRecord {
  readonly owner: string | undefined;
}

export interface WorkerFlows {
  readonly flows: readonly OwnedFlow[];
  /** Flows that there was no room for: those that have carried least. */
  readonly omitted: number;
}

export interface WorkerStats {
  readonly links: readonly LinkStats[];
  readonly networks: readonly NetworkStats[];
  readonly policies: readonly PolicyStats[];
  readonly dns: DnsCounters;
  /** In routed mode. */
  readonly nat: (NatCounters & { readonly connections: number; readonly dropped: number }) | undefined;
  /** Of the memory for connections' data. */
  readonly chunksFree: number;
  readonly chunksTotal: number;
}

export type Command =
  | { readonly do: 'setUplink'; readonly uplink: UplinkOptions }
  | { readonly do: 'addNetwork'; readonly network: NetworkSetup }
  | { readonly do: 'removeNetwork'; readonly name: string }
  | { readonly do: 'plug'; readonly link: string; readonly path: string }
  | { readonly do: 'unplug'; readonly link: string }
  | { readonly do: 'attach'; readonly link: string; readonly vlan: number; readonly network: string }
  | { readonly do: 'detach'; readonly link: string; readonly vlan: number }
  | { readonly do: 'addEndpoint'; readonly endpoint: NamedEndpoint }
  | { readonly do: 'removeEndpoint'; readonly owner: string; readonly network: string }
  | { readonly do: 'reset'; readonly network: string; readonly connections: readonly HalfOpen[] }
  | { readonly do: 'publish'; readonly publication: Publication }
  | { readonly do: 'unpublish'; readonly id: string }
  | {
      readonly do: 'setPolicy';
      readonly subject: PolicySubject;
      readonly policy: RulePolicy | typeof ASKED | undefined;
    }
  | { readonly do: 'capture'; readonly link: string; readonly on: boolean }
  | { readonly do: 'stats' }
  | { readonly do: 'flows' };

/** From the daemon. */
export type ToWorker =
  | { readonly kind: 'command'; readonly id: number; readonly command: Command }
  | { readonly kind: 'verdict'; readonly id: number; readonly verdict: Verdict }
  | { readonly kind: 'answer'; readonly id: number; readonly answer: FunctionAnswer };

/** From the worker. */
export type FromWorker =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly id: number; readonly value?: unknown }
  | { readonly kind: 'failed'; readonly id: number; readonly code: string; readonly message: string }
  | { readonly kind: 'ask'; readonly id: number; readonly flow: Flow }
  | {
      readonly kind: 'askFunction';
      readonly id: number;
      readonly subject: PolicySubject;
      readonly flow: AskedFlow;
    }
  | { readonly kind: 'unplugged'; readonly link: string; readonly reason: string }
  /** There are captured frames in the ring. */
  | { readonly kind: 'captured' }
  | { readonly kind: 'denied'; readonly flow: DeniedFlow }
  | { readonly kind: 'warning'; readonly what: string; readonly detail: string };
