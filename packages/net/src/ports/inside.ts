/** What publishing needs of the network inside: connections and datagrams to an address there. */
import type { Duplex } from 'node:stream';

/** A UDP flow to one peer inside. */
export interface InsideDatagrams {
  send(payload: Uint8Array): void;
  close(): void;
}

/** A connection inside; one that can be reset is reset when the client breaks off, otherwise it is destroyed. */
export type InsideStream = Duplex & { resetAndDestroy?(): unknown };

export interface Inside {
  /** Connects, or rejects when nothing listens there. `from` is who connects to us; `signal` gives the dialling up. */
  dial(
    target: { readonly address: string; readonly port: number },
    from: { readonly address: string; readonly port: number },
    signal: AbortSignal,
  ): Promise<InsideStream>;
  /** `onMessage` gets what comes back; the payload is good for the call only. */
  datagrams(
    target: { readonly address: string; readonly port: number },
    from: { readonly address: string; readonly port: number },
    onMessage: (payload: Uint8Array) => void,
  ): InsideDatagrams;
}
