/**
 * Sockets out: what the stack needs of the host. `relay/node-network.ts` is the one made of Node's sockets; a program
 * that embeds the stack may bring its own, for example one that answers everything from memory.
 *
 * All of it is asynchronous and bounded: one write is under way at a time, and a reader that cannot take more says so.
 */

export interface Endpoint {
  /** As text: `10.0.0.1`, `fd00::1`. */
  readonly address: string;
  readonly port: number;
}

/** The host's end of one TCP connection. */
export interface HostStream {
  /**
   * Takes bytes. True: it is done with them. False: it still needs them where they are, and calls `written` when it does
   * not; until then this is not called again.
   */
  write(bytes: Uint8Array): boolean;
  /** Nothing more will be written: half-close after what was. */
  end(): void;
  /** Stops calling `data`, until `resume`. */
  pause(): void;
  resume(): void;
  /** Gives the connection up; with `reset`, so that the other side sees a reset. Nothing is called after it. */
  destroy(reset: boolean): void;
}

export interface HostStreamEvents {
  connected(): void;
  /** It could not be connected, or broke. `code` as Node's (`ECONNREFUSED`). The last call. */
  failed(code: string): void;
  /** Bytes came; they are the stream's again when this returns. False: pause. */
  data(bytes: Uint8Array): boolean;
  written(): void;
  /** The other side will send nothing more. */
  ended(): void;
}

/** One UDP flow, connected to its peer. */
export interface HostDatagrams {
  /** Sends a copy, or drops it when too much waits. */
  send(payload: Uint8Array): void;
  close(): void;
}

export interface HostDatagramEvents {
  /** The payload is good for this call only. */
  datagram(payload: Uint8Array): void;
  /** The peer's host said that nobody listens there. */
  refused(): void;
  failed(code: string): void;
}

/** Echo requests to one address. */
export interface HostPing {
  send(sequence: number, payload: Uint8Array): void;
  close(): void;
}

export interface HostPingEvents {
  reply(sequence: number, payload: Uint8Array): void;
}

export interface HostNetwork {
  /** May call `connected` before it returns, and may throw what `failed` would say: an error with that `code`. */
  connect(target: Endpoint, events: HostStreamEvents): HostStream;
  datagrams(target: Endpoint, events: HostDatagramEvents): HostDatagrams;
  /** `undefined`: the host does not let us. */
  ping(address: string, events: HostPingEvents): HostPing | undefined;
}
