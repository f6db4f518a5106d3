/** What a router and its thread say to each other. */
import type { NatCounters, NatOptions } from './engine.ts';

/** One of the two devices: a TUN device that the router makes. */
export interface RouterDevice {
  /** Of the interface, up to 15 bytes. */
  readonly name: string;
  /** The host's address on it. Left out: the interface is made and not configured. */
  readonly address?: string;
  readonly prefixLength?: number;
  /** Our address at the other end. */
  readonly peer?: string;
  readonly mtu?: number;
}

export interface RouterOptions {
  readonly inside: RouterDevice;
  readonly outside: RouterDevice;
  readonly nat: Omit<NatOptions, 'admit'>;
}

export interface RouterCounters {
  readonly nat: NatCounters;
  readonly connections: number;
  /** Packets that a device's queue did not take. */
  readonly dropped: number;
  /** Times that the thread woke up. */
  readonly wakes: number;
}

export interface WorkerData {
  readonly options: RouterOptions;
  readonly wakeFd: number;
}

export type RouterCommand =
  | { readonly do: 'counters' }
  | { readonly do: 'stop' }
  | {
      readonly do: 'publish';
      readonly protocol: 'tcp' | 'udp';
      readonly port: number;
      readonly address: string;
      readonly insidePort: number;
    }
  | { readonly do: 'withdraw'; readonly protocol: 'tcp' | 'udp'; readonly port: number };

export type ToRouter = { readonly id: number; readonly command: RouterCommand };

export type FromRouter =
  | { readonly kind: 'ready'; readonly inside: string; readonly outside: string }
  | { readonly kind: 'done'; readonly id: number; readonly value: unknown };
